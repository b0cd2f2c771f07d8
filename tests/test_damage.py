"""A row that is not what was written is recomputed or refused, and never handed out or left out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embstore._migrations.migrations import migrations
from sqlite_utils import Database

from embstore import DamagedStoreError, EmbeddingCache, EmbstoreError
from embstore.checksums import vector_checksums
from embstore.formats import STORED_DTYPES
from embstore.identity import Dtype, ModelIdentity, content_hash
from embstore.stores import stopping
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.tables import collections, documents
from embstore.stores.tables.models import checksum
from tests.fakes import CountingEncoder
from tests.faults.pages import lead_back
from tests.files import change, connection, flip_bit, rows

IDS = [f"doc {i}" for i in range(20)]
TEXTS = [f"text {i}" for i in range(20)]

FLIP = "CAST(x'00' || substr({column}, 2) AS BLOB)"  # an UPDATE that replaces the first byte of a blob


@pytest.fixture
def filled(cache_path: Path, encoder: CountingEncoder) -> Path:
    """Twenty documents; the file is closed."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(IDS, TEXTS, encoder)
        assert cache.verify() == []
    encoder.calls.clear()
    return cache_path


def vector_id(path: Path, doc_id: str) -> int:
    return int(rows(path, "SELECT vector_id FROM documents WHERE doc_id = ?", doc_id)[0][0])


def damage(path: Path, column: str, value: str, doc_id: str = "doc 3") -> None:
    """Change a column of the row that holds a document's vector."""
    change(path, f"UPDATE vectors SET {column} = {value} WHERE vector_id = ?", vector_id(path, doc_id))


DAMAGED_VECTORS: dict[str, Callable[[Path], None]] = {
    "its bytes": lambda path: damage(path, "vector", FLIP.format(column="vector")),
    "its signs": lambda path: damage(path, "vector", f"x'{(-CountingEncoder().vector('text 3')).tobytes().hex()}'"),
    "its length": lambda path: damage(path, "vector", "substr(vector, 1, 16)"),
    "its checksum": lambda path: damage(path, "checksum", "checksum + 1"),
}


@pytest.mark.parametrize("kind", DAMAGED_VECTORS)
def test_a_damaged_vector_is_recomputed_and_mended_by_get(kind: str, filled: Path, encoder: CountingEncoder) -> None:
    DAMAGED_VECTORS[kind](filled)
    with EmbeddingCache(filled) as cache:
        assert [problem.table for problem in cache.verify()] == ["vectors"]
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.calls == [["text 3"]]
        assert cache.verify() == []
        cache.get_many(IDS, TEXTS, encoder)
        assert encoder.calls == [["text 3"]]


@pytest.mark.parametrize("kind", DAMAGED_VECTORS)
def test_a_damaged_vector_is_recomputed_where_one_document_is_asked_for(
    kind: str, filled: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(filled) as cache:
        assert np.array_equal(cache.get("doc 2", "text 2", encoder), encoder.vector("text 2"))  # the model is known
        DAMAGED_VECTORS[kind](filled)
        assert np.array_equal(cache.get("doc 3", "text 3", encoder), encoder.vector("text 3"))
        assert encoder.calls == [["text 3"]]
        assert cache.verify() == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_recomputed_though_its_checksum_fits(
    value: float, dtype: Dtype, cache_path: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(cache_path, dtype=dtype) as cache:
        given = cache.get_many(IDS, TEXTS, encoder)
        (model,) = cache.store.find_models()
        forged = given[3:4].astype(STORED_DTYPES[dtype])
        forged[0, 5] = value
        checksum = int(vector_checksums(model.model_id, [content_hash("text 3")], False, forged)[0])
        change(
            cache_path,
            "UPDATE vectors SET vector = ?, checksum = ? WHERE vector_id = ?",
            *(forged.tobytes(), checksum, vector_id(cache_path, "doc 3")),
        )
        encoder.calls.clear()
        assert [problem.table for problem in cache.verify()] == ["vectors"]
        with pytest.raises(DamagedStoreError, match="'doc 3'"):
            cache.matrix("fake")
        assert np.array_equal(cache.get("doc 3", "text 3", encoder), given[3])
        assert encoder.calls == [["text 3"]]
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), given)
        assert (encoder.calls, cache.verify()) == ([["text 3"]], [])


@pytest.mark.parametrize("changed", [{"dim": 2**31}, {"dim": -8}, {"canary": np.full(8, np.nan, np.float32)}])
def test_a_model_that_cannot_be_is_refused_though_its_checksum_fits(changed: dict[str, Any], filled: Path) -> None:
    with EmbeddingCache(filled) as cache:
        (model,) = cache.store.find_models()
        forged = replace(model, **changed)
        blob = None if forged.canary is None else forged.canary.tobytes()
        with connection(filled, "rw") as opened:
            opened.execute("PRAGMA ignore_check_constraints = ON")
            opened.execute("UPDATE models SET dim = ?, canary = ?, checksum = ?", (forged.dim, blob, checksum(forged)))
            opened.commit()
        assert "models" in {problem.table for problem in cache.verify()}
        with pytest.raises(DamagedStoreError, match="model 'fake'"):
            cache.matrix("fake")


def test_pages_that_lead_back_to_themselves_are_not_read_for_ever(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in ("documents", "documents_by_vector"):
        lead_back(filled, table)
    monkeypatch.setattr(stopping, "STEPS_AT_ONCE", 500_000)
    with EmbeddingCache(filled) as cache:
        assert any("documents: cannot be read" in str(problem) for problem in cache.verify())
        for read in (lambda: len(cache), cache.stats):
            with pytest.raises(DamagedStoreError, match=r"file of its size can hold.*embstore repair"):
                read()
        with pytest.raises(DamagedStoreError, match=r"reading it would leave documents out|can hold"):
            cache.matrix("fake")


@pytest.mark.parametrize("changed", ["n_texts", "texts_version", "vectors_version"])
def test_a_collection_that_nothing_can_be_added_to_is_damaged_though_its_checksum_fits(
    changed: str, cache_path: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(IDS, TEXTS, encoder)
        made = cache.store.texts.ensure_collection("documents", ModelIdentity("fake"))
        with connection(cache_path, "rw") as opened:
            collections.put(opened, replace(made, **{changed: 2**63 - 1}))
            opened.commit()
        assert [problem.table for problem in cache.verify()] == ["collections"]
        with pytest.raises(DamagedStoreError, match="'documents'"):
            cache.store.texts.find_collection("documents")
        assert cache.invalidate("doc 3") == 1


@pytest.mark.parametrize("kind", DAMAGED_VECTORS)
def test_a_damaged_vector_is_an_error_of_matrix_that_names_the_document(kind: str, filled: Path) -> None:
    DAMAGED_VECTORS[kind](filled)
    with EmbeddingCache(filled) as cache:
        for read in (
            lambda: cache.matrix("fake"),
            lambda: cache.matrix("fake", doc_ids=["doc 1", "doc 3"]),
            lambda: list(cache.iter_matrix("fake", batch_rows=2)),
        ):
            with pytest.raises(DamagedStoreError, match=r"'doc 3' \(and 0 more\).*'fake'.*get_many") as caught:
                read()
            assert caught.value.facts["doc_ids"] == ["doc 3"]
        assert cache.matrix("fake", doc_ids=["doc 2"])[0] == ["doc 2"]


@pytest.mark.parametrize("column", ["content_hash", "standalone"])
def test_damage_beside_a_vector_is_told_by_verify_and_hides_no_vector(
    column: str, filled: Path, encoder: CountingEncoder
) -> None:
    damage(filled, column, FLIP.format(column=column) if column == "content_hash" else "1")
    with EmbeddingCache(filled) as cache:
        assert "vectors" in {problem.table for problem in cache.verify()}
        doc_ids, vectors = cache.matrix("fake")
        assert np.array_equal(vectors, encoder.vectors([doc_id.replace("doc", "text") for doc_id in doc_ids]))
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.calls == []
        cache.invalidate("doc 3")
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.calls == [["text 3"]]
        assert cache.verify() == []


def test_a_damaged_content_hash_is_recomputed_where_the_text_is_all_that_is_known(
    filled: Path, encoder: CountingEncoder
) -> None:
    damage(filled, "content_hash", FLIP.format(column="content_hash"))
    with EmbeddingCache(filled) as cache:
        assert np.array_equal(cache.embed(TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.calls == [["text 3"]]


def test_two_swapped_vectors_are_noticed(filled: Path, encoder: CountingEncoder) -> None:
    (one,) = rows(filled, "SELECT checksum, vector FROM vectors WHERE vector_id = ?", vector_id(filled, "doc 1"))
    (two,) = rows(filled, "SELECT checksum, vector FROM vectors WHERE vector_id = ?", vector_id(filled, "doc 2"))
    for doc_id, row in (("doc 1", two), ("doc 2", one)):
        statement = "UPDATE vectors SET checksum = ?, vector = ? WHERE vector_id = ?"
        change(filled, statement, *row, vector_id(filled, doc_id))
    with EmbeddingCache(filled) as cache:
        assert len(cache.verify()) == 2
        with pytest.raises(DamagedStoreError, match=r"'doc 1' \(and 1 more\)"):
            cache.matrix("fake")
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert sorted(encoder.texts) == ["text 1", "text 2"]
        assert cache.verify() == []


def test_two_swapped_content_hashes_are_noticed(filled: Path, encoder: CountingEncoder) -> None:
    first, second = vector_id(filled, "doc 1"), vector_id(filled, "doc 2")
    hashes = dict(rows(filled, "SELECT vector_id, content_hash FROM vectors"))
    for row, key in ((first, bytes(32)), (second, hashes[first]), (first, hashes[second])):
        change(filled, "UPDATE vectors SET content_hash = ? WHERE vector_id = ?", key, row)
    with EmbeddingCache(filled) as cache:
        assert [problem.table for problem in cache.verify()][:2] == ["vectors", "vectors"]
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.calls == []
        assert np.array_equal(cache.embed(TEXTS, encoder), encoder.vectors(TEXTS))
        assert sorted(encoder.texts) == ["text 1", "text 2"]
        with pytest.raises(DamagedStoreError, match="doc 1"):  # points at what is now the vector of another text
            cache.matrix("fake")
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert cache.verify() == []


DAMAGED_DOCUMENTS = {
    "its checksum": "checksum = checksum + 1",
    "its pointer": "vector_id = vector_id + 1",
    "its pointer to nothing": "vector_id = 99",
    "its id": "doc_id = 'doc ' || char(0) || '3'",
    "its collection": "collection = 'x'",
}


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("kind", DAMAGED_DOCUMENTS)
def test_a_damaged_document_is_refused_by_matrix_and_mended_by_get(
    kind: str, scan: bool, filled: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "SCAN_FROM_KEYS", 0 if scan else 10**9)
    monkeypatch.setattr(documents, "SCAN_FROM_SHARE", 1e-9)
    change(filled, f"UPDATE documents SET {DAMAGED_DOCUMENTS[kind]} WHERE doc_id = 'doc 3'")
    with EmbeddingCache(filled) as cache:
        assert {problem.table for problem in cache.verify()} == {"documents"}
        for read in (lambda: cache.matrix("fake"), lambda: list(cache.iter_matrix("fake", batch_rows=3))):
            with pytest.raises(DamagedStoreError):
                read()
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.calls == []
        assert sorted(cache.matrix("fake", doc_ids=IDS)[0]) == sorted(IDS)
        wrong = {row.doc_id for row in cache.documents() if row.collection or row.doc_id not in IDS}
        cache.invalidate(wrong or ["nothing"])
        cache.get_many(IDS, TEXTS, encoder)
        assert cache.verify() == []


@pytest.mark.parametrize("kind", DAMAGED_DOCUMENTS)
def test_a_damaged_document_is_mended_where_it_alone_is_asked_for(
    kind: str, filled: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(filled) as cache:
        cache.get("doc 2", "text 2", encoder)  # the model is known
        change(filled, f"UPDATE documents SET {DAMAGED_DOCUMENTS[kind]} WHERE doc_id = 'doc 3'")
        assert np.array_equal(cache.get("doc 3", "text 3", encoder), encoder.vector("text 3"))
        assert cache.matrix("fake", doc_ids=["doc 3"])[0] == ["doc 3"]
        assert encoder.calls == []


def test_two_documents_whose_pointers_are_swapped_are_noticed(filled: Path, encoder: CountingEncoder) -> None:
    first, second = vector_id(filled, "doc 1"), vector_id(filled, "doc 2")
    change(filled, "UPDATE documents SET vector_id = ? WHERE doc_id = 'doc 1'", second)
    change(filled, "UPDATE documents SET vector_id = ? WHERE doc_id = 'doc 2'", first)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(DamagedStoreError, match=r"'doc [12]' \(and 1 more\)"):
            cache.matrix("fake")
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert (encoder.calls, cache.verify()) == ([], [])


DAMAGED_MODELS = {
    "its name": "model_name = 'other'",
    "its settings": "settings = '{\"a\":1}'",
    "its dim": "dim = 4, canary = NULL",
    "its canary": f"canary = {FLIP.format(column='canary')}",
    "no canary": "canary = NULL",
    "its checksum": "checksum = checksum + 1",
    "its date": "created_at = 'yesterday'",
}


@pytest.mark.parametrize("kind", DAMAGED_MODELS)
def test_nothing_is_read_by_a_damaged_row_of_a_model(kind: str, filled: Path, encoder: CountingEncoder) -> None:
    change(filled, f"UPDATE models SET {DAMAGED_MODELS[kind]}")
    names = {name for (name,) in rows(filled, "SELECT model_name FROM models")}
    with EmbeddingCache(filled) as cache:
        assert "models" in {problem.table for problem in cache.verify()}
        for name in names:
            with pytest.raises(EmbstoreError):
                cache.matrix(name)
        try:
            vectors = cache.get_many(IDS, TEXTS, encoder)
        except DamagedStoreError:
            pass
        else:  # under the name and settings that are sound, anew
            assert np.array_equal(vectors, encoder.vectors(TEXTS))
            assert sorted(encoder.texts) == sorted(TEXTS)
        cache.clear()
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert cache.verify() == []


def test_a_damaged_model_leaves_the_others_usable(filled: Path, encoder: CountingEncoder) -> None:
    other = CountingEncoder(model_name="other", seed=1)
    with EmbeddingCache(filled) as cache:
        cache.get_many(IDS, TEXTS, other)
        change(filled, "UPDATE models SET checksum = 0 WHERE model_name = 'fake'")
        other.calls.clear()
        assert np.array_equal(cache.get_many(IDS, TEXTS, other), other.vectors(TEXTS))
        assert (other.calls, sorted(cache.matrix("other")[0])) == ([], sorted(IDS))
        cache.clear(model_name="fake")
        assert cache.verify() == []
        assert sorted(cache.matrix("other")[0]) == sorted(IDS)


def test_a_flipped_bit_in_the_closed_file_is_noticed(filled: Path, encoder: CountingEncoder) -> None:
    stored = encoder.vector("text 3").astype("<f4").tobytes()
    flip_bit(filled, filled.read_bytes().index(stored) + 13, bit=6)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(DamagedStoreError, match="'doc 3'"):
            cache.matrix("fake")
        assert np.array_equal(cache.get("doc 3", "text 3", encoder), encoder.vector("text 3"))
        assert encoder.calls == [["text 3"]]
        assert cache.verify() == []


def read_in_the_place_of_another(path: Path, name: str) -> None:
    """Let the second row of a table or an index be found where the first one is."""
    ((root,),) = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = ?", name)
    ((page_size,),) = rows(path, "PRAGMA page_size")
    data = bytearray(path.read_bytes())
    pointers = (root - 1) * page_size + 8
    data[pointers + 2 : pointers + 4] = data[pointers : pointers + 2]
    path.write_bytes(data)


def test_a_document_that_is_read_in_the_place_of_another_is_noticed(filled: Path) -> None:
    read_in_the_place_of_another(filled, "documents")
    with EmbeddingCache(filled) as cache:
        with pytest.raises(DamagedStoreError, match="damaged keys"):
            cache.matrix("fake")
        with pytest.raises(DamagedStoreError, match="damaged keys"):
            list(cache.iter_matrix("fake"))
        assert cache.verify() != []


def test_an_entry_in_the_place_of_another_leaves_out_no_document(filled: Path, encoder: CountingEncoder) -> None:
    read_in_the_place_of_another(filled, "documents_by_vector")
    with EmbeddingCache(filled) as cache:
        for doc_ids, vectors in [cache.matrix("fake"), *cache.iter_matrix("fake")]:
            assert doc_ids == IDS
            assert np.array_equal(vectors, encoder.vectors(TEXTS))
        assert cache.verify() != []


def test_a_damaged_entry_of_the_index_hands_out_no_other_texts_vector(filled: Path, encoder: CountingEncoder) -> None:
    mine, other = vector_id(filled, "doc 3"), vector_id(filled, "doc 5")
    ((key,),) = rows(filled, "SELECT content_hash FROM vectors WHERE vector_id = ?", mine)
    entry = key + bytes([mine])  # in the table itself, the dim follows on the hash
    data = filled.read_bytes()
    assert data.count(entry) == 1
    filled.write_bytes(data.replace(entry, key + bytes([other])))
    with EmbeddingCache(filled) as cache:
        assert cache.verify() != []
        assert np.array_equal(cache.get("doc 3", "text 3", encoder), encoder.vector("text 3"))
        assert np.array_equal(cache.embed(TEXTS, encoder), encoder.vectors(TEXTS))


def test_a_flipped_bit_of_the_database_header_is_told(filled: Path) -> None:
    flip_bit(filled, 3)
    with pytest.raises(EmbstoreError, match="not an SQLite database"):
        EmbeddingCache(filled)


def test_a_truncated_file_is_told(filled: Path, encoder: CountingEncoder) -> None:
    data = filled.read_bytes()
    filled.write_bytes(data[: len(data) // 2])

    def read() -> None:
        with EmbeddingCache(filled) as cache:
            assert cache.verify() != []
            cache.matrix("fake")

    with pytest.raises(EmbstoreError):
        read()


def test_verify_ends_where_ids_go_backwards(tmp_path: Path) -> None:
    """The last vector's rowid is the byte after its length; a smaller one sends a search back to the start."""
    path = small_pages(tmp_path, n=30)
    content_hash = rows(path, "SELECT content_hash FROM vectors ORDER BY vector_id DESC LIMIT 1")[0][0]
    cell = path.read_bytes().index(content_hash)
    for back in range(6, 16):
        for bit in range(5):
            flip_bit(path, cell - back, bit)
            try:
                with EmbeddingCache(path) as cache:
                    assert isinstance(cache.verify(), list)
            except EmbstoreError:
                pass
            flip_bit(path, cell - back, bit)


# --- any bit --------------------------------------------------------------------------------


def small_pages(folder: Path, n: int) -> Path:
    """A cache in small pages, so that a random bit is likely to mean something."""
    path = folder / "small.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 1024")
    migrations.apply(Database(connection))
    connection.close()
    with EmbeddingCache(path) as cache:
        ids, texts = [f"doc {i}" for i in range(n)], [f"text {i // 2}" for i in range(n)]
        cache.get_many(ids, texts, CountingEncoder())
        cache.get_many(ids[: n // 3], texts[n // 3 :][: n // 3], CountingEncoder(), collection="other")
        cache.embed(["bare"], CountingEncoder())
        assert cache.verify() == []
    return path


def use_damaged(cache: EmbeddingCache, encoder: CountingEncoder, n: int) -> None:
    """Ask for everything: what comes is right and whole, or an error of ours."""
    texts = {f"doc {i}": f"text {i // 2}" for i in range(n)}

    def whole(ids: list[str], vectors: np.ndarray) -> None:
        assert np.array_equal(vectors, encoder.vectors([texts[doc_id] for doc_id in ids]))
        assert sorted(ids) == sorted(texts)

    def pages() -> None:
        found = list(cache.iter_matrix("fake", collection="", batch_rows=7))
        whole([doc_id for ids, _ in found for doc_id in ids], np.concatenate([vectors for _, vectors in found]))

    def get() -> None:
        vectors = cache.get_many(list(texts), list(texts.values()), encoder)
        assert np.array_equal(vectors, encoder.vectors(list(texts.values())))

    asked: list[Callable[[], object]] = [
        lambda: whole(*cache.matrix("fake", collection="")),
        lambda: whole(*cache.matrix("fake", collection="", doc_ids=list(texts))),
        pages,
        lambda: list(cache.documents()),
        cache.stats,
        get,
        lambda: cache.invalidate("doc 1"),
        cache.prune,
        cache.clear,
        cache.compact,
    ]
    problems = cache.verify()
    for ask in asked:
        try:
            ask()
        except EmbstoreError:
            assert problems or ask in (cache.clear, cache.compact), f"{ask} failed, and verify() found nothing"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_bit_flips_what_is_read_is_right_and_whole_or_an_error_of_ours(seed: int, tmp_path: Path) -> None:
    n = 60
    path, encoder = small_pages(tmp_path, n), CountingEncoder()
    data = path.read_bytes()
    choose = random.Random(seed)
    for _ in range(100):
        place, bit = choose.randrange(len(data)), choose.randrange(8)
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        path.write_bytes(data)
        flip_bit(path, place, bit)
        try:
            cache = EmbeddingCache(path)
        except EmbstoreError:
            continue
        with cache:
            try:
                use_damaged(cache, encoder, n)
            except BaseException as error:
                error.add_note(f"bit {bit} of byte {place}")
                raise


def test_an_id_that_is_no_text_is_nobodys(
    filled: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite comes to such a row where a page of another table is in the place of one of documents."""
    find = documents.find

    def with_others(connection_: sqlite3.Connection, *scope: Any) -> Any:
        there = find(connection_, *scope)
        others = [7, *there.doc_ids, None, b"a"]
        at = np.array([0, *range(len(there.doc_ids)), 0, 0])
        return replace(there, doc_ids=others, vector_ids=there.vector_ids[at], checksums=there.checksums[at])

    monkeypatch.setattr(documents, "find", with_others)
    with EmbeddingCache(filled) as cache:
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
    assert not encoder.n_texts
