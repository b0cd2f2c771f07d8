"""The store in SQLite: ways of reading that must find the same, locks, damage to pages, newer files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    ModelIdentity,
    NewerStoreError,
    StoreBusyError,
    StoreError,
    content_hash,
)
from embstore.stores import open_store, sqlite, tables
from embstore.stores.base import Store, StoredModel
from embstore.stores.opening import PAGE_SIZE
from embstore.stores.schema import SCHEMA_VERSION
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.tables import document_rows, documents, vector_rows, vector_writes, vectors
from tests.fakes import CountingEncoder
from tests.files import connection, define, dump, rows

IDENTITY = ModelIdentity.of("m", {"a": 1})
KEYS = [content_hash(f"text {i}") for i in range(50)]
VECTORS = CountingEncoder(dim=5).vectors([f"text {i}" for i in range(50)])


@pytest.fixture
def store(cache_path: Path) -> Iterator[Store]:
    store = open_store(cache_path)
    yield store
    assert store.verify() == []
    store.close()


@pytest.fixture
def model(store: Store) -> StoredModel:
    """A model with fifty vectors."""
    model = store.ensure_model(IDENTITY, 5, None)
    store.insert_vectors(model, KEYS, VECTORS, standalone=False)
    return model


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_searching_key_by_key_and_scanning_the_index_find_the_same(
    scan: bool, chunk: int, store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (vectors, documents):
        monkeypatch.setattr(module, "SCAN_FROM_KEYS", 0 if scan else 10**9)
        monkeypatch.setattr(module, "SCAN_FROM_SHARE", 1e-9 if scan else 1.0)
    monkeypatch.setattr(tables.chunks, "__defaults__", (chunk,))
    monkeypatch.setattr(vector_rows, "KEYS_AT_ONCE", chunk)
    doc_ids = [f"doc {i}" for i in range(50)]
    store.put_documents(model, "c", doc_ids, KEYS)
    there = store.look_up(model, KEYS[::-3])
    assert np.array_equal(there.vectors, VECTORS[::-3])
    recorded = store.recorded(model, "c", doc_ids, [*KEYS[:49], KEYS[0]], store.look_up(model, KEYS).vector_ids)
    assert recorded.tolist() == [True] * 49 + [False]
    assert np.array_equal(store.read_documents(model, "c", doc_ids[::-3], KEYS[::-3]), VECTORS[::-3])
    assert store.read_documents(model, "c", doc_ids, [*KEYS[:49], KEYS[0]]) is None
    ids, matrix = store.matrix(model, collection=None, doc_ids=doc_ids[::-1])
    assert (ids, matrix.tolist()) == (doc_ids[::-1], VECTORS[::-1].tolist())


ODD_IDS = ["a\0b", '"quoted"', "back\\slash", "new\nline", "größer", "🙂", "\u2028", "{}", "1", "null", "x" * 300]


@pytest.mark.parametrize("n_rows", [1, 3, len(ODD_IDS), 50_000])
def test_rows_that_are_read_as_one_are_those_that_are_read_one_by_one(
    n_rows: int, store: Store, model: StoredModel, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_rows, "ROWS_TOGETHER", n_rows)
    store.put_documents(model, "c", ODD_IDS, KEYS[: len(ODD_IDS)])
    with connection(cache_path) as opened:
        together = document_rows._all_together(opened, model.model_id, "c")
        one_by_one = document_rows.Documents.of(
            "c", opened.execute(document_rows.ALL, (model.model_id, "c")).fetchall()
        )
        assert vars(together).keys() == vars(one_by_one).keys()
        for name, column in vars(one_by_one).items():
            assert np.array_equal(getattr(together, name), column)
        assert document_rows.find(opened, model.model_id, "nobody's", None).doc_ids == []
    assert np.array_equal(store.read_documents(model, "c", ODD_IDS, KEYS[: len(ODD_IDS)]), VECTORS[: len(ODD_IDS)])


@pytest.mark.parametrize("n_bytes", [1, 60, 2**26])
def test_however_long_vectors_are_they_are_read_together(
    n_bytes: int, store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_rows, "BYTES_TOGETHER", n_bytes)
    doc_ids = [f"doc {i}" for i in range(50)]
    store.put_documents(model, "c", doc_ids, KEYS)
    assert np.array_equal(store.read_documents(model, "c", doc_ids, KEYS), VECTORS)
    assert np.array_equal(store.matrix(model, collection="c", doc_ids=doc_ids)[1], VECTORS)


@pytest.mark.parametrize("what", ["a table of its name", "no such function"])
def test_rows_are_written_one_by_one_where_the_function_that_cuts_them_is_not_sqlites_own(
    what: str, store: Store, model: StoredModel, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [f"more {i}" for i in range(9)]
    vectors_ = CountingEncoder(dim=5).vectors(more)
    if what == "a table of its name":
        define(cache_path, "CREATE TABLE JSON_each (key, value)")
    else:
        monkeypatch.setattr(
            vector_writes, "INSERT_TOGETHER", vector_writes.INSERT_TOGETHER.replace("json_each", "no_such")
        )
    assert store.insert_vectors(model, [content_hash(text) for text in more], vectors_, standalone=False) == 9
    assert np.array_equal(store.look_up(model, [content_hash(text) for text in more]).vectors, vectors_)


def test_rows_are_written_one_by_one_where_there_is_no_folder_for_a_temporary_file(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_open(*arguments: object, **named: object) -> tuple[object, ...]:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(vector_writes, "_columns", cannot_open)
    more = CountingEncoder(dim=5).vectors(["more"])
    assert store.insert_vectors(model, [content_hash("more")], more, standalone=False) == 1
    assert np.array_equal(store.look_up(model, [content_hash("more")]).vectors, more)


def test_documents_are_stored_where_the_newest_vectors_are_damaged_and_not_theirs(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "NEWEST", "SELECT abs(-9223372036854775808), ?1, ?2, ?3")  # would be an error
    store.put_documents(model, "c", ["a", "b"], KEYS[:2])
    assert store.recorded(model, "c", ["a", "b"], KEYS[:2], store.look_up(model, KEYS[:2]).vector_ids).all()


def test_larger_files_are_given_larger_groups(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.group_rows() == 0
    monkeypatch.setattr(sqlite, "GROUPS", 2)
    assert store.group_rows() == 25
    monkeypatch.setattr(sqlite, "MOST_GROUP_ROWS", 10)
    assert store.group_rows() == 10


def test_a_lock_met_while_reading_is_no_damage(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: object) -> list[object]:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(vector_rows, "_fetch", locked)
        with pytest.raises(StoreBusyError):
            store.look_up(model, KEYS)
    assert store.look_up(model, KEYS).found.all()


def write_text_for_a_number(path: Path) -> None:
    """Put text that is not UTF-8 into a column of numbers, which a damaged page can have."""
    with connection(path, "rw") as connected:
        for before, after in (("REAL", "ANY"), ("ANY", "REAL")):
            connected.execute("PRAGMA writable_schema = ON")
            connected.execute(
                "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'encodings'", (before, after)
            )
            connected.execute("PRAGMA writable_schema = RESET")
            connected.commit()
            if after == "ANY":
                connected.execute("UPDATE encodings SET seconds = CAST(x'ff80fe' AS TEXT)")
                connected.commit()


def overwrite_its_page(path: Path, table: str = "encodings") -> None:
    ((page,),) = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_SIZE)
        file.write(bytes(range(1, 251)))


@pytest.mark.parametrize("damage", [write_text_for_a_number, overwrite_its_page])
def test_damage_to_the_noted_speeds_keeps_nothing_from_being_stored(
    damage: Callable[[Path], None], cache_path: Path, encoder: CountingEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b"], ["A", "B"], encoder)
    damage(cache_path)
    can_be_mended = damage is write_text_for_a_number
    with EmbeddingCache(cache_path) as cache, caplog.at_level(logging.WARNING, "embstore"):
        assert cache.verify() != []
        assert cache.estimate_s(10, encoder) is None
        for text in ("C", "D"):
            assert np.array_equal(cache.get_many([text], [text], encoder), encoder.vectors([text]))
        assert cache.missing(["A", "B", "C", "D"], encoder) == []
        assert len(cache) == 4
        assert (cache.verify() == []) == can_be_mended
        assert (cache.estimate_s(10, encoder) is not None) == can_be_mended
    assert len(caplog.records) == (0 if can_be_mended else 1)
    assert can_be_mended or "is not noted" in caplog.text


def test_damage_to_the_page_of_counts_keeps_nothing_from_being_stored_or_read(
    cache_path: Path, encoder: CountingEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b"], ["A", "B"], encoder)
    overwrite_its_page(cache_path, "usage")
    with EmbeddingCache(cache_path) as cache, caplog.at_level(logging.WARNING, "embstore"):
        assert "usage" in {problem.table for problem in cache.verify()}
        for text in ("A", "C", "C"):
            assert np.array_equal(cache.get(text, text, encoder), encoder.vector(text))
        cache.invalidate("a")
        assert [model.usage.days for model in cache.models()] == [()]
        assert len(cache) == 3
    assert len(caplog.records) == 1


def test_nothing_is_written_to_a_file_that_a_newer_embstore_has_migrated(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get_many(["a", "b"], ["A", "B"], encoder)
    define(cache.path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = dump(cache.path)
    writes: list[Callable[[], object]] = [
        lambda: cache.get("c", "C", encoder),
        lambda: cache.put_many(["c"], ["C"], encoder.vectors(["C"]), model_name="fake"),
        lambda: cache.invalidate("a"),
        cache.clear,
        cache.prune,
        lambda: cache.rename_model("fake", "new"),
        cache.compact,
    ]
    for write in writes:
        with pytest.raises(NewerStoreError, match=r"schema version \d+, this embstore knows up to"):
            write()
        assert dump(cache.path) == before
    assert np.array_equal(cache.get_many(["a"], ["A"], encoder), encoder.vectors(["A"]))
    define(cache.path, f"PRAGMA user_version = {SCHEMA_VERSION}")
    cache.get("c", "C", encoder)
    assert len(cache) == 3


def test_documents_of_vectors_that_were_stored_just_now_need_no_search_for_them(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch, cache_path: Path
) -> None:
    doc_ids = [f"doc {i}" for i in range(60)]
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "find_ids", lambda *_: pytest.fail("searched"))
        store.put_documents(model, "new", doc_ids, [*KEYS, *KEYS[:10]])  # some share a text
    store.put_documents(model, "old", doc_ids[:10], KEYS[:10])
    for collection, n in (("new", 60), ("old", 10)):
        expected = [VECTORS[i % 50].tolist() for i in range(n)]
        assert store.matrix(model, collection=collection, doc_ids=doc_ids[:n])[1].tolist() == expected


def test_a_document_of_a_vector_that_is_not_stored_is_refused(store: Store, model: StoredModel) -> None:
    with pytest.raises(StoreError, match="NOT NULL"):
        store.put_documents(model, "c", ["a", "b"], [KEYS[0], bytes(32)])
    assert store.count_documents() == 0
