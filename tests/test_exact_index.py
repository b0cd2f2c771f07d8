"""The exact index: what it does beyond the suite for every index, on real files and with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, ModelIdentity, SemanticSearchEngine, content_hash
from embstore.checksums import text_checksum
from embstore.codec import Vectors
from embstore.errors import (
    CollectionMismatchError,
    DamagedStoreError,
    EmbstoreError,
    InvalidInputError,
    ModelExistsError,
    ReadOnlyError,
    SearchIndexError,
    StoreBusyError,
)
from embstore.search.base import Document, Metadata
from embstore.search.exact import ExactIndex
from embstore.search.loading import LoadedCollection
from embstore.search.matrix import DocumentMatrix
from embstore.stores import forks, open_store
from embstore.stores.base import Store
from embstore.stores.opening import PAGE_SIZE
from embstore.stores.sqlite_texts import SQLiteTexts
from embstore.stores.tables import collections as collections_table
from embstore.stores.tables import texts as texts_table
from tests.fakes import CountingEncoder
from tests.files import change, dump, flip_bit, rows
from tests.scifact import SCIFACT, needs_scifact

IDENTITY = ModelIdentity("fake")
Engine = SemanticSearchEngine


@pytest.fixture
def path(library: Path) -> Path:
    return library / "embeddings.db"


@pytest.fixture
def engine(library: Path, encoder: CountingEncoder) -> Iterator[CachedSemanticSearchEngine]:
    with CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine:
        yield engine


@pytest.fixture
def store(cache_path: Path) -> Iterator[Store]:
    store = open_store(cache_path)
    yield store
    store.close()


@pytest.fixture
def index(store: Store) -> ExactIndex:
    return ExactIndex(store, "documents", IDENTITY)


def document(doc_id: str, text: str = "text", metadata: Metadata | None = None) -> Document:
    return Document(doc_id, text, metadata or {})


def vectors(*texts: str) -> Vectors:
    return CountingEncoder().vectors(list(texts))


def found(engine: Engine, query: str = "q", n_results: int = 10) -> list[str]:
    return [hit.doc_id for hit in engine.search(query, n_results)]


def python(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def ask(process: subprocess.Popen[str], line: str = "") -> str:
    """Send a line to a process, and give the one that it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().rstrip("\n")


# --- one file, and nothing beside it --------------------------------------------------------


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine], ids=["direct", "cached"])
def test_the_library_is_one_sound_file(library: Path, path: Path, kind: type[Engine], encoder: CountingEncoder) -> None:
    with kind(encoder, path=library, index="exact") as engine:
        engine.index_documents(["A", "\ud800"], metadatas=[{"k": [1.0]}, None])
    assert list(library.iterdir()) == [path]
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []
    names = "collection, doc_id, content_hash, metadata, text"
    assert rows(path, f"SELECT {names} FROM texts ORDER BY doc_id") == [
        ("documents", "doc_0", content_hash("A"), '{"k":[1.0]}', "A"),
        ("documents", "doc_1", content_hash("\ud800"), "{}", "\ufffd"),
    ]


def test_neither_chroma_nor_its_lock_is_needed_or_imported(library: Path) -> None:
    script = """
import sys
if sys.argv[2] == "blocked":
    sys.modules["chromadb"] = sys.modules["filelock"] = None
from embstore import CachedSemanticSearchEngine, SemanticSearchEngine
from tests.fakes import CountingEncoder
for kind in (SemanticSearchEngine, CachedSemanticSearchEngine):
    with kind(CountingEncoder(), path=sys.argv[1], index="exact") as engine:
        engine.index_documents(["A"], metadatas=[{"k": 1}])
        print(len(engine.search("A", where={"k": 1})))
print([name for name in ("chromadb", "filelock") if sys.modules.get(name)])
"""
    for how in ("blocked", "installed"):
        output, _ = python(script, library, how).communicate(timeout=60)
        assert output.splitlines() == ["1", "1", "[]"]


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine])
def test_arguments_that_make_no_sense_create_nothing(library: Path, kind: type[Engine]) -> None:
    with pytest.raises(InvalidInputError, match="client= is a Chroma client"):
        kind(CountingEncoder(), path=library, index="exact", client=object())  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="index is 'faiss'; there are 'chroma' and 'exact'"):
        kind(CountingEncoder(), path=library, index="faiss")  # type: ignore[arg-type]
    assert not library.exists()


def test_it_has_no_chroma_collection(engine: Engine) -> None:
    with pytest.raises(SearchIndexError, match="has no Chroma collection"):
        _ = engine.collection


def test_an_index_in_a_cache_that_was_given_is_in_its_file(
    library: Path, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=cache) as engine:
        engine.index_documents(["A"])
        assert found(engine) == ["doc_0"]
    assert not library.exists()
    assert rows(cache.path, "SELECT text FROM texts") == [("A",)]


def test_what_the_plain_engine_encoded_is_not_encoded_again_by_the_cached_one(library: Path) -> None:
    with SemanticSearchEngine(CountingEncoder(), path=library, index="exact") as plain:
        plain.index_documents(["A", "B"])
    again = CountingEncoder()
    with CachedSemanticSearchEngine(again, path=library, index="exact") as cached:
        assert cached.index_documents(["A", "B"]).unchanged == 2
        assert cached.index_documents(["B", "A"]).from_cache == 2
        assert (len(cached.cache), cached.cache.verify()) == (2, [])
    assert [text for text in again.texts if text not in "AB"] == []


def test_a_text_that_is_unchanged_writes_nothing(engine: Engine, path: Path) -> None:
    engine.index_documents(["A", "B"], metadatas=[{"k": 1}, None])
    before = path.read_bytes()
    assert engine.index_documents(["A", "B"], metadatas=[{"k": 1}, None]).unchanged == 2
    assert path.read_bytes() == before


def test_what_has_nothing_to_write_takes_no_write_lock(library: Path, path: Path, encoder: CountingEncoder) -> None:
    with (
        EmbeddingCache(path, timeout_s=0) as cache,
        CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=cache) as engine,
    ):
        engine.index_documents(["A", "B"])
        with contextlib.closing(open_store(path)) as other, other.writing():
            assert engine.index_documents(["A", "B"], remove_missing=True).unchanged == 2
            assert engine.delete_documents([]) == 0
            cache.store.texts.put("documents", [])
            with pytest.raises(StoreBusyError):
                engine.delete_documents(["doc_0"])


def test_the_sign_of_zero_and_the_order_of_keys_are_kept(engine: Engine) -> None:
    engine.index_documents(["A"], metadatas=[{"z": -0.0, "a": 1}])
    assert repr(engine.search("A")[0].metadata) == "{'z': -0.0, 'a': 1}"


# --- exactness ------------------------------------------------------------------------------


@needs_scifact
def test_it_finds_what_float64_finds(index: ExactIndex) -> None:
    docs, queries = np.load(SCIFACT / "minilm_docs.npy")[:2000], np.load(SCIFACT / "minilm_queries.npy")[:50]
    index.add([document(str(row), f"text {row}") for row in range(len(docs))], docs)
    wide = docs.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    for query in queries.astype(np.float64):
        scores = wide @ (query / np.linalg.norm(query))
        order = np.argsort(-scores)[:100]
        hits = index.query(query.astype(np.float32), 100)
        assert [int(hit.doc_id) for hit in hits] == order.tolist()
        assert [hit.score for hit in hits] == pytest.approx(scores[order].tolist(), abs=1e-7)


@pytest.mark.parametrize("dim", [3, 8, 384])
def test_what_is_equally_near_has_the_same_score_and_comes_by_id(dim: int) -> None:
    """BLAS adds up in another order in another row, and gives other scores for the same vector."""
    random = np.random.default_rng(dim)
    n = 1003
    matrix = random.standard_normal((n, dim)).astype(np.float32)
    same = random.permutation(n)[:100]
    matrix[same] = matrix[same[0]]
    names = [f"{number:04}" for number in random.permutation(n)]
    made = DocumentMatrix.of(np.arange(n), names, ["{}"] * n, matrix.copy())
    for query in (matrix[same[0]], random.standard_normal(dim).astype(np.float32)):
        nearest = made.nearest(query, n, None)
        scores = {score for row, score in nearest if row in set(same.tolist())}
        assert len(scores) == 1
        ordered = [names[row] for row, score in nearest if score in scores]
        assert ordered == sorted(ordered)
        for n_results in (1, 50, n - 1):
            assert made.nearest(query, n_results, None) == nearest[:n_results]


def test_differences_that_float32_does_not_see_decide(index: ExactIndex) -> None:
    random = np.random.default_rng(11)
    query = random.standard_normal(384)
    matrix = (query + 1e-4 * random.standard_normal((1000, 384))).astype(np.float32)
    index.add([document(f"{row:03}", str(row)) for row in range(1000)], matrix)
    wide = matrix.astype(np.float64)
    scores = wide @ query.astype(np.float32).astype(np.float64) / np.linalg.norm(wide, axis=1)
    hits = index.query(query.astype(np.float32), 10)
    scores /= np.linalg.norm(query.astype(np.float32).astype(np.float64))
    assert np.ptp(scores) < 1e-7
    assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1][:10].tolist(), abs=1e-11)


def test_vectors_of_any_length_are_compared_by_direction(index: ExactIndex) -> None:
    lengths = [1e-44, 1e-30, 1.0, 1e30, 3e38]
    directions = np.array([[1, 0], [4, 3], [0, 1], [-3, 4], [-1, 0]], dtype=np.float64)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    matrix = (unit * np.array(lengths)[:, np.newaxis]).astype(np.float32)
    index.add([document(str(row), str(row)) for row in range(5)], matrix)
    for length in (1e-30, 1.0, 1e38):
        hits = index.query(np.array([length, 0], dtype=np.float32), 5)
        assert [hit.doc_id for hit in hits] == ["0", "1", "2", "3", "4"]
        assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8, 0.0, -0.6, -1.0], abs=1e-6)


@pytest.mark.parametrize("dim", [1, 37, 1024])
def test_the_same_direction_scores_one(index: ExactIndex, dim: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((200, dim)).astype(np.float32)
    index.add([document(str(row), str(row)) for row in range(200)], matrix)
    for vector in matrix:
        assert index.query(vector, 1)[0].score == 1.0
        assert index.query(-vector, 200)[-1].score == -1.0


# --- what others write ----------------------------------------------------------------------

OTHER = """
import sys
from embstore import CachedSemanticSearchEngine
from tests.fakes import CountingEncoder
engine = CachedSemanticSearchEngine(CountingEncoder(), path=sys.argv[1], index="exact")
for line in sys.stdin:
    command, _, text = line.rstrip("\\n").partition(" ")
    if command == "index":
        engine.index_documents(text.split(), ids=text.split())
    elif command == "delete":
        engine.delete_documents(text.split())
    elif command == "clear":
        engine.cache.clear()
    print(*(hit.doc_id for hit in engine.search("q")) if command != "clear" else "", flush=True)
engine.close()
"""


def test_two_processes_see_what_the_other_writes(engine: Engine, library: Path) -> None:
    with python(OTHER, library) as other:
        assert ask(other, "search") == ""
        engine.index_documents(["A", "B"], ids=["A", "B"])
        assert set(ask(other, "search").split()) == {"A", "B"}
        assert set(ask(other, "index C").split()) == set(found(engine)) == {"A", "B", "C"}
        engine.index_documents(["new"], ids=["A"])
        assert set(ask(other, "search").split()) == {"A", "B", "C"}
        assert [hit.document for hit in engine.search("new", 1)] == ["new"]
        assert set(ask(other, "delete B").split()) == set(found(engine)) == {"A", "C"}
        ask(other, "clear")
        with pytest.raises(SearchIndexError, match=r"doc_id '[AC]' \(and 1 more\)"):
            engine.search("q")
        engine.index_documents(["new", "C"], ids=["A", "C"])
        assert set(ask(other, "search").split()) == {"A", "C"}
        ask(other)


def test_processes_that_write_at_once_lose_nothing(library: Path, path: Path) -> None:
    script = """
import sys
from embstore import CachedSemanticSearchEngine
from tests.fakes import CountingEncoder
with CachedSemanticSearchEngine(CountingEncoder(), path=sys.argv[1], index="exact") as engine:
    for i in range(20):
        engine.index_documents([f"{sys.argv[2]} {i}", f"shared {i}"], ids=[f"{sys.argv[2]} {i}", f"shared {i}"])
        assert f"{sys.argv[2]} {i}" in [hit.doc_id for hit in engine.search(f"{sys.argv[2]} {i}", 1)]
    engine.delete_documents([f"{sys.argv[2]} {i}" for i in range(10)])
"""
    writers = [python(script, library, name) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.communicate()
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
        expected = {f"{name} {i}" for name in "abc" for i in range(10, 20)} | {f"shared {i}" for i in range(20)}
        assert set(found(engine, n_results=100)) == expected
        assert engine.cache.verify() == []


def test_threads_search_while_another_one_writes(engine: Engine) -> None:
    engine.index_documents(["A", "B"])
    failures: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                hits = engine.search("A", 1000)
                assert hits[0].document == "A"
                assert len({hit.doc_id for hit in hits}) == len(hits)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=search) for _ in range(4)]
    for reader in readers:
        reader.start()
    for i in range(30):
        engine.index_documents([f"text {i}"], ids=[f"new {i}"])
        if i % 3 == 0:
            engine.delete_documents([f"new {i}"])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(found(engine, n_results=1000)) == 22


@pytest.mark.parametrize("use", ["search", "records", "records of an id"])
def test_an_edit_and_a_prune_between_two_reads_are_no_loss(
    use: str, index: ExactIndex, store: Store, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every committed state is sound, and so is what is read of any."""
    index.add([document("a", "old"), document("b", "B")], vectors("old", "B"))
    original = LoadedCollection.look_up

    def look_up_later(self: LoadedCollection, keys: Any) -> Any:
        monkeypatch.setattr(LoadedCollection, "look_up", original)
        with contextlib.closing(open_store(cache_path, timeout_s=0)) as other, contextlib.suppress(StoreBusyError):
            ExactIndex(other, "documents", IDENTITY).replace([document("a", "new")], vectors("new"))
            other.prune(standalone=True, dry_run=False)
        return original(self, keys)

    monkeypatch.setattr(LoadedCollection, "look_up", look_up_later)
    if use == "search":
        assert len(index.query(vectors("q")[0], 9)) == 2
    else:
        pages = index.records() if use == "records" else index.records(["a"])
        assert [record.doc_id for page in pages for record in page if record.vector is None] == []


def test_a_document_that_is_removed_before_its_page_is_read_is_no_damage(
    index: ExactIndex, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add([document("a", "A"), document("b", "B")], vectors("A", "B"))
    original = DocumentMatrix.keep

    def keep(self: DocumentMatrix, text_ids: Any) -> DocumentMatrix:
        monkeypatch.setattr(DocumentMatrix, "keep", original)
        with contextlib.closing(open_store(cache_path)) as other:
            ExactIndex(other, "documents", IDENTITY).delete(["a"])
        return original(self, text_ids)

    monkeypatch.setattr(DocumentMatrix, "keep", keep)
    assert [hit.doc_id for hit in index.query(vectors("q")[0], 9)] == ["b"]


@pytest.mark.parametrize("n_writes", [0, 1, 20])
def test_no_search_waits_for_another_one_inside_a_transaction(
    n_writes: int, index: ExactIndex, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork would wait for it, and it for one that the fork keeps from beginning a transaction."""
    index.add([document("a", "A")], vectors("A"))
    original, are_inside, left = LoadedCollection._lock, list[bool](), iter(range(n_writes))

    def lock(self: LoadedCollection) -> threading.Lock:
        are_inside.append(forks.transaction()._is_owned())
        return original(self)

    keep = DocumentMatrix.keep

    def keep_later(self: DocumentMatrix, text_ids: Any) -> DocumentMatrix:
        """Somebody writes while this is read: what was read is of an earlier state."""
        if (number := next(left, None)) is not None and not forks.transaction()._is_owned():
            with contextlib.closing(open_store(cache_path)) as other:
                ExactIndex(other, "documents", IDENTITY).add([document(f"new {number}")], vectors("text"))
        return keep(self, text_ids)

    monkeypatch.setattr(LoadedCollection, "_lock", lock)
    monkeypatch.setattr(DocumentMatrix, "keep", keep_later)
    hits = index.query(vectors("q")[0], 100)
    assert len(hits) == index.count()
    assert len(are_inside) == min(n_writes + 1, 4)
    assert set(are_inside) == {False}


def test_a_search_that_finds_everything_as_it_was_waits_for_no_other(index: ExactIndex) -> None:
    index.add([document("a", "A")], vectors("A"))
    index.query(vectors("q")[0], 1)
    hits: list[Any] = []
    search = threading.Thread(target=lambda: hits.extend(index.query(vectors("q")[0], 1)), daemon=True)
    with index._collection._lock():
        search.start()
        search.join(timeout=10)
        assert len(hits) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_may_use_the_engine(library: Path) -> None:
    script = """
import os, sys
from embstore import CachedSemanticSearchEngine
from tests.fakes import CountingEncoder
engine = CachedSemanticSearchEngine(CountingEncoder(), path=sys.argv[1], index="exact")
engine.index_documents(["A"])
engine.search("A")
child = os.fork()
if child == 0:
    engine.index_documents(["B"], ids=["b"])
    print(len(engine.search("A")), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(len(engine.search("A")))
"""
    output, _ = python(script, library).communicate(timeout=60)
    assert output.split() == ["2", "2"]


def test_only_what_was_written_is_read_again(index: ExactIndex, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add([document(f"d{i}", f"text {i}") for i in range(20)], vectors(*(f"text {i}" for i in range(20))))
    index.query(vectors("q")[0], 1)
    read: list[list[int]] = []
    original = SQLiteTexts.read

    def noted(self: SQLiteTexts, collection: str, text_ids: Any) -> Any:
        read.append(text_ids.tolist())
        return original(self, collection, text_ids)

    monkeypatch.setattr(SQLiteTexts, "read", noted)
    index.delete(["d3"])
    index.replace([document("d5", "new")], vectors("new"))
    index.update_metadata({"d7": {"k": 1}})
    (hit,) = index.query(vectors("new")[0], 1)
    assert (hit.doc_id, hit.document) == ("d5", "new")
    assert read == [[21, 22], [21]]
    assert len(index.query(vectors("q")[0], 100)) == 19
    assert [hit.doc_id for hit in index.query(vectors("q")[0], 100, {"k": 1})] == ["d7"]


def test_only_what_concerns_the_collections_model_makes_it_be_read_again(
    index: ExactIndex, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add([document("a", "A"), document("b", "B")], vectors("A", "B"))
    index.query(vectors("q")[0], 1)
    with EmbeddingCache(store.location) as cache, monkeypatch.context() as patch:
        patch.setattr(DocumentMatrix, "of", lambda *_: 1 / 0)
        cache.put_many(["x"], ["A"], np.ones((1, 3)), model_name="other")
        cache.put_many(["x"], ["A"], np.zeros((1, 3)), model_name="other")
        cache.put_many(["x"], ["A"], vectors("A"), model_name="fake")
        cache.invalidate("x", model_name="other")
        cache.put_many(["x"], ["X"], np.ones((1, 3)), model_name="other")
        cache.put_many(["x"], ["Y"], np.ones((1, 3)), model_name="other")
        assert cache.prune().n_vectors == 1
        cache.clear(model_name="other")
        assert len(index.query(vectors("q")[0], 9)) == 2
        cache.put_many(["y"], ["A"], -vectors("A"), model_name="fake")
        with pytest.raises(ZeroDivisionError):
            index.query(vectors("q")[0], 9)
    assert index.query(-vectors("A")[0], 1)[0].doc_id == "a"


def test_a_matrix_that_grows_gives_what_one_that_is_read_at_once_gives(store: Store, index: ExactIndex) -> None:
    random = np.random.default_rng(3)
    for round_ in range(30):
        names = [f"d{number}" for number in random.permutation(40)[:5]]
        index.add([document(name, f"{name} {round_}") for name in names], vectors(*(f"{n} {round_}" for n in names)))
        index.delete([f"d{number}" for number in random.permutation(40)[:2]])
        query = vectors(f"query {round_}")[0]
        anew = ExactIndex(store, "documents", IDENTITY)
        assert index.query(query, 100) == anew.query(query, 100)
        assert len(index.query(query, 100)) == index.count()


def test_ids_of_rows_are_never_used_again(index: ExactIndex, cache_path: Path) -> None:
    """A matrix in memory is right as long as its ids are there."""
    index.add([document("a", "A"), document("b", "B")], vectors("A", "B"))
    index.delete(["b"])
    index.add([document("c", "C")], vectors("C"))
    assert rows(cache_path, "SELECT text_id, doc_id FROM texts ORDER BY text_id") == [(1, "a"), (3, "c")]


# --- vectors that are forgotten -------------------------------------------------------------


def test_documents_whose_vectors_were_cleared_are_named_and_mended_by_indexing(
    engine: CachedSemanticSearchEngine, encoder: CountingEncoder
) -> None:
    texts = ["A", "B"]
    engine.index_documents(texts, metadatas=[{"k": 1}, {"k": 2}])
    for is_loaded in (True, False):
        if is_loaded:
            engine.search("q")
        engine.cache.clear()
        for where in (None, {"k": 1}):
            with pytest.raises(SearchIndexError, match=r"doc_id 'doc_0' \(and 1 more\).*index these") as refused:
                engine.search("q", where=where)
        assert refused.value.doc_ids == ["doc_0", "doc_1"]  # type: ignore[attr-defined]
        assert engine._index.unreachable() == ["doc_0", "doc_1"]
        assert engine._index.count() == 2
        n_before = encoder.n_texts
        assert engine.index_documents(texts, metadatas=[{"k": 1}, {"k": 2}]).encoded == 2
        assert encoder.n_texts == n_before + 2
        assert set(found(engine)) == {"doc_0", "doc_1"}
        assert engine._index.unreachable() == []
    assert engine.cache.verify() == []


def test_a_search_that_fails_again_reads_only_what_was_lost(
    index: ExactIndex, cache_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"d{i}" for i in range(6)]
    index.add([document(name, name) for name in names], vectors(*names))
    before = index.query(vectors("q")[0], 9)
    with EmbeddingCache(cache_path) as cache:
        cache.invalidate(["d2", "d5"])
        read: list[list[int]] = []
        original = SQLiteTexts.read

        def noted(self: SQLiteTexts, collection: str, text_ids: Any) -> Any:
            read.append(text_ids.tolist())
            return original(self, collection, text_ids)

        monkeypatch.setattr(SQLiteTexts, "read", noted)
        for _ in range(2):
            with pytest.raises(SearchIndexError, match=r"doc_id 'd2' \(and 1 more\)"):
                index.query(vectors("q")[0], 9)
        cache.put_many(["d5"], ["d5"], vectors("d5"), model_name="fake", collection="documents")
        with pytest.raises(SearchIndexError, match=r"doc_id 'd2' \(and 0 more\)"):
            index.query(vectors("q")[0], 9)
        index.add([document("d6", "d6")], vectors("d6"))
        cache.put_many(["d2"], ["d2"], vectors("d2"), model_name="fake", collection="documents")
        assert len(index.query(vectors("q")[0], 9)) == 7
    assert read[:4] == [[1, 2, 3, 4, 5, 6], [3, 6], [3, 6], [3, 7]]
    index.delete(["d6"])
    assert index.query(vectors("q")[0], 9) == before


def test_a_document_whose_vector_was_forgotten_can_be_deleted_instead(engine: CachedSemanticSearchEngine) -> None:
    engine.index_documents(["A", "B"])
    engine.search("q")
    engine.cache.invalidate("doc_0")
    with pytest.raises(SearchIndexError, match="'doc_0'"):
        engine.search("q")
    with pytest.raises(SearchIndexError, match="'doc_0'"):
        engine._index.mend(engine._source)
    assert engine.delete_documents(["doc_0"]) == 1
    assert (found(engine), engine._index.mend(engine._source)) == (["doc_1"], 0)


def test_what_a_source_no_longer_has_is_removed_also_where_its_vector_was_forgotten(
    engine: CachedSemanticSearchEngine,
) -> None:
    engine.index_documents(["A", "B"])
    engine.cache.invalidate(["doc_0", "doc_1"])
    report = engine.index_documents(["A"], remove_missing=True)
    assert (report.updated, report.removed) == (1, 1)
    assert found(engine) == ["doc_0"]


@pytest.mark.parametrize("standalone", [False, True])
def test_prune_keeps_the_vectors_of_all_documents(engine: CachedSemanticSearchEngine, standalone: bool) -> None:
    engine.index_documents(["A", "B", "C"])
    engine.index_documents(["new", "B"])
    engine.delete_documents(["doc_2"])
    engine.search("a query")
    assert engine.cache.prune(standalone=standalone).n_vectors == (2 if standalone else 1)
    assert set(found(engine)) == {"doc_0", "doc_1"}
    assert engine.index_documents(["new", "B"]).unchanged == 2


def test_prune_keeps_a_vector_that_came_back_as_that_of_a_query(engine: CachedSemanticSearchEngine) -> None:
    engine.index_documents(["A"])
    engine.cache.clear()
    engine.cache.embed_query("A", engine.model)
    assert found(engine) == ["doc_0"]
    assert engine.index_documents(["A"]).from_cache == 1
    engine.cache.prune(standalone=True)
    assert found(engine) == ["doc_0"]


def test_a_vector_that_is_replaced_in_the_cache_is_the_one_that_is_searched(engine: CachedSemanticSearchEngine) -> None:
    engine.index_documents(["A", "B"])
    before = engine.search("q")
    opposite = -CountingEncoder().vectors(["A"])
    engine.cache.put_many(["doc_0"], ["A"], opposite, model=ModelIdentity("fake"), collection="documents")
    (changed,) = [hit.score for hit in engine.search("q") if hit.doc_id == "doc_0"]
    assert changed == pytest.approx(-next(hit.score for hit in before if hit.doc_id == "doc_0"), abs=1e-6)


def test_clearing_and_counting_the_cache_leave_texts_alone(engine: CachedSemanticSearchEngine, path: Path) -> None:
    engine.index_documents(["A", "B"])
    texts = dump(path)["texts"]
    stats = engine.cache.stats()
    assert (stats.n_documents, stats.n_doc_ids, stats.n_vectors) == (2, 2, 2)
    engine.delete_documents(["doc_0"])
    assert engine.cache.stats().n_documents == 2
    assert engine.cache.clear() == 2
    assert dump(path)["texts"] == texts[1:]


# --- damage ---------------------------------------------------------------------------------

CHANGES = {
    "collection": "UPDATE texts SET collection = 'other' WHERE doc_id = 'doc_0'",
    "doc_id": "UPDATE texts SET doc_id = 'doc_9' WHERE doc_id = 'doc_0'",
    "content_hash": "UPDATE texts SET content_hash = zeroblob(32) WHERE doc_id = 'doc_0'",
    "another's hash": "UPDATE texts SET content_hash = (SELECT content_hash FROM texts WHERE doc_id = 'doc_1') "
    "WHERE doc_id = 'doc_0'",
    "text": "UPDATE texts SET text = 'a' WHERE doc_id = 'doc_0'",
    "metadata": """UPDATE texts SET metadata = '{"k":2}' WHERE doc_id = 'doc_0'""",
    "shifted": """UPDATE texts SET metadata = '{"k":1', text = '}A' WHERE doc_id = 'doc_0'""",
    "checksum": "UPDATE texts SET checksum = checksum + 1 WHERE doc_id = 'doc_0'",
    "no text": "UPDATE texts SET text = CAST(x'ff41' AS TEXT) WHERE doc_id = 'doc_0'",
    "gone": "DELETE FROM texts WHERE doc_id = 'doc_0'",
}


def damaged(library: Path, path: Path, statement: str) -> CachedSemanticSearchEngine:
    """Open an engine on a library in which something was changed behind its back."""
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
        engine.index_documents(["A", "B", "C"], metadatas=[{"k": 1}, None, None])
        engine.search("q")
    change(path, statement)
    return CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact")


def test_a_checksum_covers_each_field_and_where_it_ends() -> None:
    row = ("documents", "doc", bytes(32), "{}", "text")
    others = [
        ("documentx", "doc", bytes(32), "{}", "text"),
        ("documents", "dox", bytes(32), "{}", "text"),
        ("documents", "doc", bytes(31) + b"\1", "{}", "text"),
        ("documents", "doc", bytes(32), "[]", "text"),
        ("documents", "doc", bytes(32), "{}", "texs"),
        ("documentsd", "oc", bytes(32), "{}", "text"),
        ("documents", "doc", bytes(32), "{}t", "ext"),
    ]
    assert len({text_checksum(*each) for each in (row, *others)}) == 1 + len(others)


def test_a_document_that_is_there_twice_is_noticed(cache_path: Path) -> None:
    """Where the key of a row is damaged, the row is not found, and whoever indexes it again writes it once more."""
    with contextlib.closing(open_store(cache_path)) as store:
        ExactIndex(store, "documents", IDENTITY).add([document(each, each) for each in "ace"], vectors("a", "c", "e"))
    ((page,),) = rows(cache_path, "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_texts_1'")
    data, start = bytearray(cache_path.read_bytes()), (page - 1) * PAGE_SIZE
    data[data.index(b"documentsc", start) + len("documents")] = ord("b")
    cache_path.write_bytes(data)
    with contextlib.closing(open_store(cache_path)) as store:
        index = ExactIndex(store, "documents", IDENTITY)
        assert len(index.query(vectors("c")[0], 9)) == 3
        assert index.stored(["c"]) == {}
        index.add([document("c", "c")], vectors("c"))
        with pytest.raises(DamagedStoreError, match="cannot be found, or is there twice"):
            index.query(vectors("c")[0], 9)


@pytest.mark.parametrize("changed", CHANGES)
def test_a_row_that_is_not_what_was_written_is_an_error_of_every_read(library: Path, path: Path, changed: str) -> None:
    with damaged(library, path, CHANGES[changed]) as engine:
        uses: list[Callable[[], object]] = [
            lambda: engine.search("q"),
            lambda: engine.search("q", where={"k": 1}),
            lambda: list(engine._index.doc_ids()),
            lambda: list(engine._index.records()),
            lambda: engine._index.unreachable(),
        ]
        for use in uses:
            with pytest.raises(DamagedStoreError):
                use()
        assert {problem.table for problem in engine.cache.verify()} <= {"texts", "collections"}
        assert engine.cache.verify() != []


@pytest.mark.parametrize("changed", sorted(CHANGES.keys() - {"collection", "doc_id", "gone"}))
def test_a_damaged_document_is_mended_by_indexing_it_again(library: Path, path: Path, changed: str) -> None:
    with damaged(library, path, CHANGES[changed]) as engine:
        with pytest.raises(DamagedStoreError, match="doc_id 'doc_0'"):
            list(engine._index.records(["doc_0"]))
        with pytest.raises(DamagedStoreError, match="doc_id 'doc_0'"):
            engine._index.update_metadata({"doc_0": {"k": 2}})
        report = engine.index_documents(["A", "B", "C"], metadatas=[{"k": 1}, None, None])
        assert (report.updated, report.unchanged, report.encoded) == (1, 2, 0)
        assert [(hit.document, hit.metadata) for hit in engine.search("A", 1)] == [("A", {"k": 1})]
        assert engine.cache.verify() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE collections SET model_name = 'other'",
        "UPDATE collections SET settings = '{\"a\":1}'",
        "UPDATE collections SET n_texts = n_texts + 1",
        "UPDATE collections SET texts_version = 0",
        "UPDATE collections SET vectors_version = vectors_version + 1",
        "UPDATE collections SET checksum = 0",
    ],
)
def test_a_damaged_row_of_a_collection_is_noticed(library: Path, path: Path, statement: str) -> None:
    with pytest.raises(DamagedStoreError, match="row of collection 'documents' is damaged"):
        damaged(library, path, statement)
    with EmbeddingCache(path) as cache:
        assert [problem.table for problem in cache.verify()] == ["collections"]
        cache.clear()  # is not prevented


def test_a_damaged_vector_is_named_and_mended_by_indexing(library: Path, path: Path) -> None:
    statement = "UPDATE vectors SET vector = zeroblob(length(vector)) WHERE vector_id = 1"
    with damaged(library, path, statement) as engine:
        with pytest.raises(SearchIndexError, match="'doc_0'"):
            engine.search("q")
        assert engine.index_documents(["A", "B", "C"], metadatas=[{"k": 1}, None, None]).encoded == 1
        assert len(found(engine)) == 3


READS: dict[str, Callable[[ExactIndex], Any]] = {
    "a search": lambda index: index.query(vectors("q")[0], 100),
    "a filtered search": lambda index: index.query(vectors("q")[0], 5, {"k": {"$gte": 20}}),
    "ids": lambda index: sorted(doc_id for page in index.doc_ids() for doc_id in page),
    "count": lambda index: index.count(),
}


def test_no_flipped_bit_gives_another_answer(cache_path: Path) -> None:
    """The right answer or an error of ours: never another one, never one that leaves a document out."""
    store = open_store(cache_path)
    index = ExactIndex(store, "documents", IDENTITY)
    documents = [document(f"doc_{i}", f"text {i} {'x' * i}", {"k": i}) for i in range(40)]
    index.add(documents, vectors(*(each.text for each in documents)))
    expected = {name: read(index) for name, read in READS.items()}
    stored = index.stored([each.doc_id for each in documents])
    store.close()
    data, random, n_noticed = cache_path.read_bytes(), np.random.default_rng(5), 0
    in_use = np.flatnonzero(np.frombuffer(data, np.uint8))
    for offset, bit in zip(random.choice(in_use, 300), random.integers(8, size=300), strict=True):
        cache_path.write_bytes(data)
        flip_bit(cache_path, int(offset), int(bit))
        try:
            store = open_store(cache_path)
        except EmbstoreError:
            continue
        for name, read in READS.items():
            try:
                assert read(ExactIndex(store, "documents", IDENTITY)) == expected[name], (offset, bit)
            except EmbstoreError:
                n_noticed += 1
        with contextlib.suppress(EmbstoreError):
            held = ExactIndex(store, "documents", IDENTITY).stored(list(stored))
            assert {doc_id: each for doc_id, each in held.items() if each.content_hash}.items() <= stored.items()
        store.close()
    assert n_noticed > 100


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_that_is_killed_leaves_a_sound_index(library: Path, path: Path) -> None:
    script = """
import sys
from embstore import CachedSemanticSearchEngine
from tests.fakes import CountingEncoder
engine = CachedSemanticSearchEngine(CountingEncoder(), path=sys.argv[1], index="exact")
for round in range(10_000):
    texts = [f"text {i} of round {round}" for i in range(40)]
    engine.index_documents(texts, metadatas=[{"round": round}] * 40)
    engine.delete_documents([f"doc_{round % 40}"])
    print(round, flush=True)
"""
    for delay_s in (0.0, 0.005, 0.01, 0.02, 0.04):
        with python(script, library) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n"
            sleep(delay_s)
            writer.kill()
        with CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
            assert engine.cache.verify() == []
            hits = engine.search("q", 100)
            assert len(hits) in (39, 40)
            assert len({hit.metadata["round"] for hit in hits}) == 1
            assert all(hit.document.endswith(f"of round {hit.metadata['round']}") for hit in hits)


def test_a_write_that_fails_halfway_writes_nothing(
    engine: CachedSemanticSearchEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = engine._index
    index.add([document("a", "A")], vectors("A"))
    before = dump(path)
    with monkeypatch.context() as patch:
        patch.setattr(texts_table, "_checksum", lambda *_: 1 / 0)
        for use in (
            lambda: index.add([document("b", "B")], vectors("B")),
            lambda: index.replace([document("a", "new")], vectors("new")),
            lambda: index.update_metadata({"a": {"k": 1}}),
        ):
            with pytest.raises(ZeroDivisionError):
                use()
    assert dump(path) == before


# --- models ---------------------------------------------------------------------------------


def test_the_model_that_writes_first_is_that_of_the_collection(library: Path) -> None:
    one, other = (CountingEncoder(model_name=name) for name in ("one", "other"))
    with (
        SemanticSearchEngine(one, path=library, index="exact") as first,
        SemanticSearchEngine(other, path=library, index="exact") as second,
    ):
        second._index.check_identity(ModelIdentity("other"))
        first.index_documents(["A"])
        with pytest.raises(CollectionMismatchError, match="'one', not of 'other'"):
            second.index_documents(["A"])
        with pytest.raises(CollectionMismatchError, match="'one', not of 'other'"):
            second._index.add([document("b", "B")], vectors("B"))
        assert found(first) == ["doc_0"]


def test_an_emptied_collection_is_of_the_model_that_writes_next(library: Path, path: Path) -> None:
    def opened(name: str, dim: int) -> Engine:
        return CachedSemanticSearchEngine(CountingEncoder(dim=dim, model_name=name), path=library, index="exact")

    with opened("one", 8) as first, opened("one", 8) as still_open:
        first.index_documents(["A", "B"])
        assert len(found(still_open)) == 2
        with pytest.raises(CollectionMismatchError, match="'one', not of 'other'"):
            opened("other", 5)
        first.delete_documents(["doc_0", "doc_1"])
        with opened("other", 5) as second:
            assert found(second) == []
            assert found(first) == []
            assert rows(path, "SELECT model_name FROM collections") == [("one",)]
            second.index_documents(["A", "C"], ids=["a", "c"])
            assert set(found(second)) == {"a", "c"}
            for engine in (first, still_open):
                with pytest.raises(CollectionMismatchError, match="'other', not of 'one'"):
                    engine.search("q")
                with pytest.raises(CollectionMismatchError, match="'other', not of 'one'"):
                    engine.index_documents(["A"])
            second.delete_documents(["a", "c"])
        assert found(still_open) == []
        assert still_open.index_documents(["A"]).encoded == 0
        assert found(first) == found(still_open) == ["doc_0"]
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []


def test_a_rename_reaches_a_collection_whose_vectors_were_forgotten(
    engine: CachedSemanticSearchEngine, path: Path
) -> None:
    engine.index_documents(["A"])
    engine.cache.clear()
    engine.rename_model("fake", "new")
    assert rows(path, "SELECT model_name FROM collections") == [("new",)]
    assert engine.index_documents(["A"]).updated == 1
    assert found(engine) == ["doc_0"]


def test_a_rename_writes_each_collection_once(
    engine: CachedSemanticSearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index_documents(["A"])
    monkeypatch.setattr(SQLiteTexts, "rename_model", lambda *_: 1 / 0)
    engine.rename_model("fake", "new")
    assert found(engine) == ["doc_0"]


def test_opening_and_searching_an_empty_library_writes_no_collection(library: Path, path: Path) -> None:
    with SemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
        assert found(engine) == []
        assert engine.plan(["A"]).new == 1
        assert engine.delete_documents(["doc_0"]) == 0
    assert rows(path, "SELECT * FROM collections") == []


def test_a_rename_is_one_step_for_the_cache_and_all_collections(library: Path, path: Path) -> None:
    for name in ("first", "second"):
        with CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact", collection_name=name) as engine:
            engine.index_documents(["A"])
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact", collection_name="first") as engine:
        engine.rename_model("fake", "new")
        assert engine.index_documents(["A"]).unchanged == 1
    assert rows(path, "SELECT collection, model_name FROM collections") == [("first", "new"), ("second", "new")]
    assert rows(path, "SELECT model_name FROM models") == [("new",)]
    for name in ("first", "second"):
        again = CountingEncoder(model_name="new")
        with CachedSemanticSearchEngine(again, path=library, index="exact", collection_name=name) as engine:
            assert found(engine) == ["doc_0"]
            assert engine.cache.verify() == []
        with pytest.raises(CollectionMismatchError):
            CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact", collection_name=name)


def test_a_rename_by_the_cache_alone_renames_the_collections(engine: CachedSemanticSearchEngine, library: Path) -> None:
    engine.index_documents(["A"])
    engine.cache.rename_model("fake", "new")
    with pytest.raises(CollectionMismatchError, match="'new', not of 'fake'"):
        engine.search("q")
    with CachedSemanticSearchEngine(CountingEncoder(model_name="new"), path=library, index="exact") as renamed:
        assert found(renamed) == ["doc_0"]


def test_a_rename_that_fails_changes_nothing(
    engine: CachedSemanticSearchEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index_documents(["A"])
    engine.cache.get("x", "text", CountingEncoder(), model_name="taken")
    before = dump(path)
    with pytest.raises(ModelExistsError):
        engine.rename_model("fake", "taken")
    with monkeypatch.context() as patch:
        patch.setattr(collections_table, "rename_model", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.rename_model("fake", "new")
    assert dump(path) == before
    assert (found(engine), engine.model_name) == (["doc_0"], "fake")


# --- files that can only be read ------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write any file")
def test_a_library_that_can_only_be_read_can_be_searched(library: Path, path: Path) -> None:
    check_read_only(library, path)


def test_a_library_that_is_taken_to_be_read_only_can_be_searched(
    library: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    check_read_only(library, path)


def check_read_only(library: Path, path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda *_, **__: True)
        with SemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
            engine.index_documents(["A", "B"])
    path.chmod(0o400)
    library.chmod(0o500)
    try:
        with SemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
            assert found(engine, "A", 1) == ["doc_0"]
            assert engine.index_documents(["A", "B"]).unchanged == 2
            with pytest.raises(ReadOnlyError):
                engine.index_documents(["C"])
            with pytest.raises(ReadOnlyError):
                engine.delete_documents(["doc_0"])
        with SemanticSearchEngine(CountingEncoder(), path=library, index="exact", collection_name="another") as engine:
            assert found(engine) == []
            with pytest.raises(ReadOnlyError):
                engine.index_documents(["A"])
    finally:
        library.chmod(0o700)
