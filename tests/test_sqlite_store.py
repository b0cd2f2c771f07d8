"""The store beneath a cache: what its protocol promises, on the one in SQLite."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embstore import (
    DimensionError,
    EmbeddingCache,
    ModelIdentity,
    NewerStoreError,
    StoreBusyError,
    content_hash,
)
from embstore.stores import open_store, sqlite, tables
from embstore.stores.base import Store, StoredModel
from embstore.stores.opening import PAGE_SIZE
from embstore.stores.schema import SCHEMA_VERSION
from embstore.stores.sqlite import SQLiteStore
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.tables import document_rows, documents, vector_rows, vectors
from embstore.stores.texts import StoredText
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
    """A model with fifty vectors; those at even places were cached without an id."""
    with store.writing():
        model = store.ensure_model(IDENTITY, 5, None)
        assert store.insert_vectors(model, KEYS[::2], VECTORS[::2], standalone=True) == 25
        assert store.insert_vectors(model, KEYS, VECTORS, standalone=False) == 25
    return model


def test_the_store_has_every_method_of_the_protocol_with_its_parameters() -> None:
    for name, method in inspect.getmembers(Store, inspect.isfunction):
        if not name.startswith("_"):
            expected = [name.rstrip("_") for name in inspect.signature(method).parameters]
            found = [name.rstrip("_") for name in inspect.signature(getattr(SQLiteStore, name)).parameters]
            assert found == expected, name


def test_a_look_up_is_in_the_order_asked_whatever_is_missing(store: Store, model: StoredModel) -> None:
    order = np.random.default_rng(0).permutation(50)
    asked = [KEYS[i] for i in order]
    asked[3], asked[10] = content_hash("unknown"), content_hash("unknown too")
    there = store.look_up(model, asked)
    found = np.ones(50, dtype=bool)
    found[[3, 10]] = False
    assert there.found.tolist() == found.tolist()
    assert np.array_equal(there.vectors[found], VECTORS[order][found])
    assert there.standalone[found].tolist() == (order[found] % 2 == 0).tolist()
    assert (there.vector_ids > 0).tolist() == found.tolist()
    assert not there.damaged.any()


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


def test_one_document_is_read_once_its_model_was_found(store: Store, model: StoredModel) -> None:
    store.put_documents(model, "c", ["a"], KEYS[7:8])
    assert store.read_document(IDENTITY, "c", "a", KEYS[7]) is None
    store.find_variant(IDENTITY)
    found = store.read_document(IDENTITY, "c", "a", KEYS[7])
    assert found is not None
    assert (found[0].model_id, found[1].tolist()) == (model.model_id, VECTORS[7].tolist())
    for collection, doc_id, key in (("", "a", KEYS[7]), ("c", "b", KEYS[7]), ("c", "a", KEYS[8])):
        assert store.read_document(IDENTITY, collection, doc_id, key) is None
    other = open_store(store.location)
    other.rename_model("m", "renamed")
    other.close()
    assert store.read_document(IDENTITY, "c", "a", KEYS[7]) is None


def test_larger_files_are_given_larger_groups(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.group_rows() == 0
    monkeypatch.setattr(sqlite, "GROUPS", 2)
    assert store.group_rows() == 25
    monkeypatch.setattr(sqlite, "MOST_GROUP_ROWS", 10)
    assert store.group_rows() == 10


def test_a_look_up_of_nothing_is_empty(store: Store, model: StoredModel) -> None:
    there = store.look_up(model, [])
    assert (there.vectors.shape, there.found.shape, there.vector_ids.shape) == ((0, 5), (0,), (0,))


def test_inserting_keeps_what_is_there_and_replacing_does_not(store: Store, model: StoredModel) -> None:
    new = content_hash("new")
    assert store.insert_vectors(model, [KEYS[0], new], np.zeros((2, 5), np.float32), standalone=False) == 1
    assert np.array_equal(store.look_up(model, KEYS[:1]).vectors[0], VECTORS[0])
    newer = content_hash("newer")
    assert store.replace_vectors(model, [KEYS[0], newer], np.ones((2, 5), np.float32), standalone=False) == 1
    there = store.look_up(model, [KEYS[0], newer])
    assert np.array_equal(there.vectors, np.ones((2, 5)))
    assert there.standalone.tolist() == [True, False]


def test_replacing_keeps_the_row_that_documents_point_at(store: Store, model: StoredModel) -> None:
    before = store.look_up(model, KEYS).vector_ids
    store.put_documents(model, "", ["a"], KEYS[3:4])
    store.replace_vectors(model, KEYS, np.ones((50, 5), np.float32), standalone=False)
    assert store.look_up(model, KEYS).vector_ids.tolist() == before.tolist()
    assert store.matrix(model, collection=None, doc_ids=["a"])[1].tolist() == [[1.0] * 5]


def test_marking_changes_the_mark_alone(store: Store, model: StoredModel) -> None:
    before = store.look_up(model, KEYS)
    store.mark_standalone(model, [*KEYS, content_hash("unknown")])
    after = store.look_up(model, KEYS)
    assert after.standalone.all()
    assert np.array_equal(after.vectors, before.vectors)
    assert after.vector_ids.tolist() == before.vector_ids.tolist()


def test_a_document_is_recorded_where_it_points_at_that_content(store: Store, model: StoredModel) -> None:
    store.put_documents(model, "c", ["a", "b"], [KEYS[0], KEYS[1]])
    ids = store.look_up(model, KEYS[:3]).vector_ids
    asked = (["a", "b", "new"], [KEYS[0], KEYS[2], KEYS[2]], ids[[0, 2, 2]])
    assert store.recorded(model, "c", *asked).tolist() == [True, False, False]
    assert store.recorded(model, "", *asked).tolist() == [False, False, False]


def test_a_canary_is_stored_once(store: Store, model: StoredModel) -> None:
    first, second = np.ones(5, np.float32), np.zeros(5, np.float32)
    for canary in (first, second):
        kept = store.set_canary(model, canary)
        assert kept.canary is not None
        assert kept.canary.tolist() == first.tolist()
    found = store.find_model(IDENTITY)
    assert found is not None
    assert found.canary is not None
    assert (found.canary.tolist(), found.created_at) == (first.tolist(), model.created_at)


def test_a_model_is_stored_once_and_keeps_its_dimension(store: Store, model: StoredModel) -> None:
    assert store.ensure_model(IDENTITY, 5, np.ones(5, np.float32)).model_id == model.model_id
    with pytest.raises(DimensionError, match=r"6 values, those of model .* have 5"):
        store.ensure_model(IDENTITY, 6, None)
    assert [found.identity for found in store.find_models()] == [IDENTITY]
    assert store.find_model(ModelIdentity("m")) is None


def test_a_model_id_is_never_used_again(store: Store, model: StoredModel) -> None:
    store.forget_models("m")
    assert store.ensure_model(IDENTITY, 5, None).model_id > model.model_id


def test_several_writes_in_a_block_are_one_transaction(store: Store, model: StoredModel) -> None:
    def fail() -> None:
        with store.writing():
            store.put_documents(model, "", ["a"], KEYS[:1])
            store.replace_vectors(model, KEYS[:1], np.zeros((1, 5), np.float32), standalone=True)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.count_documents() == 0
    assert np.array_equal(store.look_up(model, KEYS[:1]).vectors[0], VECTORS[0])


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


# --- what is noted of collections -----------------------------------------------------------

OTHER = ModelIdentity("other")
ONE_MORE = np.full((1, 5), 2, np.float32)

# Which of the collections of the models m, m with other settings, and other, are to be read anew.
CHANGES: dict[str, tuple[Callable[[Store, StoredModel], object], set[str]]] = {
    "another vector": (lambda store, m: store.replace_vectors(m, KEYS[:1], ONE_MORE, standalone=False), {"m"}),
    "the same vector": (lambda store, m: store.replace_vectors(m, KEYS[:1], VECTORS[:1], standalone=True), set()),
    "a new vector": (lambda store, m: store.replace_vectors(m, [bytes(32)], ONE_MORE, standalone=True), set()),
    "a document that others share": (lambda store, m: forget(store, ["shared"]), set()),
    "a document": (lambda store, m: forget(store, ["mine"]), {"m"}),
    "an unknown document": (lambda store, m: forget(store, ["unknown"]), set()),
    "a model": (lambda store, m: store.forget_models("m"), {"m"}),
    "another model": (lambda store, m: store.forget_models("other"), {"other"}),
    "all models": (lambda store, m: store.forget_models(None), {"m", "other", "no vectors"}),
    "what is unused": (lambda store, m: store.prune(standalone=False, dry_run=False), {"other"}),
    "a dry run": (lambda store, m: store.prune(standalone=True, dry_run=True), set()),
    "a rename before": (lambda store, m: rename_and_replace(store, m), {"m"}),
}


def forget(store: Store, doc_ids: list[str]) -> int:
    return store.forget_documents(doc_ids, model_name=None, collection=None)


def rename_and_replace(store: Store, model: StoredModel) -> None:
    """Write with what was read of a model before it was renamed."""
    store.rename_model("m", "renamed")
    store.replace_vectors(model, KEYS[:1], ONE_MORE, standalone=False)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_vectors_is_noted_at_the_collections_of_their_model(change: str, cache_path: Path) -> None:
    write, expected = CHANGES[change]
    store = open_store(cache_path)
    model, other = store.ensure_model(IDENTITY, 5, None), store.ensure_model(OTHER, 5, None)
    store.insert_vectors(model, KEYS[:3], VECTORS[:3], standalone=False)
    store.insert_vectors(other, KEYS[:3], VECTORS[:3], standalone=False)
    store.put_documents(model, "", ["mine", "shared", "last"], KEYS[:3])
    store.put_documents(model, "x", ["sharing"], KEYS[1:2])
    for name, identity in (("m", IDENTITY), ("other", OTHER), ("no vectors", ModelIdentity("m"))):
        store.texts.ensure_collection(name, identity)
    before = dict(rows(cache_path, "SELECT collection, vectors_version FROM collections"))
    write(store, model)
    after = dict(rows(cache_path, "SELECT collection, vectors_version FROM collections"))
    assert {name for name in after if after[name] > before[name]} == expected
    store.close()


def test_where_the_row_of_a_model_is_damaged_every_collection_is_noted(cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.put_many(["a"], ["A"], np.ones((1, 3)), model_name="m")
        cache.store.texts.ensure_collection("c", OTHER)
        define(cache_path, "UPDATE models SET checksum = checksum + 1")
        cache.clear(model_name="m")
    assert rows(cache_path, "SELECT vectors_version FROM collections") == [(1,)]


def test_a_collection_with_texts_keeps_its_model_and_an_empty_one_takes_another(store: Store) -> None:
    def ensured(identity: ModelIdentity) -> ModelIdentity:
        return store.texts.ensure_collection("c", identity).identity

    assert [ensured(IDENTITY), ensured(OTHER)] == [IDENTITY, OTHER]
    store.texts.put("c", [StoredText("a", KEYS[0], "{}", "text 0")])
    assert [ensured(IDENTITY), ensured(OTHER)] == [OTHER, OTHER]
    store.texts.delete("c", ["a"])
    assert ensured(IDENTITY) == IDENTITY


# --- how long models take -------------------------------------------------------------------


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


# --- files that became newer ----------------------------------------------------------------


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
