"""Models that are stored in another format afterwards: all of them or none, without the model, whoever looks on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embstore import (
    CachedSemanticSearchEngine,
    DamagedStoreError,
    EmbeddingCache,
    SemanticSearchEngine,
    content_hash,
)
from embstore.errors import ReadOnlyError
from embstore.identity import Dtype
from tests.fakes import CountingEncoder, halved
from tests.files import change, connection

IDS = [f"doc {i}" for i in range(1200)]
TEXTS = [f"text {i}" for i in range(1200)]


@pytest.fixture
def filled(cache_path: Path, encoder: CountingEncoder) -> Path:
    """Documents of one model in two collections, a text without an id, and another model; the file is closed."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(IDS, TEXTS, encoder)
        cache.get_many(IDS[:3], TEXTS[1:4], encoder, collection="other")
        cache.embed(["standalone", "text 1"], encoder)
        cache.get("a", "text 1", CountingEncoder(model_name="another", dim=3))
    encoder.calls.clear()
    return cache_path


# --- what it does ---------------------------------------------------------------------------


def test_the_space_comes_back_with_compact(cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.put_many(IDS, TEXTS, np.random.default_rng(0).standard_normal((1200, 1024)), model_name="m")
        size = cache_path.stat().st_size
        cache.convert("m", dtype="float16")
        assert cache_path.stat().st_size <= size
        assert cache.compact() > 0.4 * size


# --- all or nothing -------------------------------------------------------------------------


def test_a_row_of_another_model_is_not_converted_with_this_one(filled: Path) -> None:
    change(filled, "UPDATE vectors SET model_id = 2 WHERE vector_id = 5")
    before = filled.read_bytes()
    with EmbeddingCache(filled) as cache, pytest.raises(DamagedStoreError, match=r"no document \(vector_id 5\)"):
        cache.convert("another", dtype="float16")
    assert filled.read_bytes() == before


def test_a_row_that_its_index_has_lost_is_noticed(filled: Path) -> None:
    with connection(filled, "rw") as opened:  # as damage to a page of the index would
        opened.execute("PRAGMA writable_schema = ON")
        change_root = "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = ?)"
        opened.execute("CREATE TABLE few (m INTEGER, h BLOB)")
        opened.execute("CREATE UNIQUE INDEX few_index ON few (m, h)")
        opened.execute("INSERT INTO few SELECT model_id, content_hash FROM vectors WHERE vector_id < 9")
        opened.execute(f"{change_root} WHERE name = ?", ("few_index", "sqlite_autoindex_vectors_1"))
        opened.commit()
    with EmbeddingCache(filled) as cache, pytest.raises(DamagedStoreError, match=r"damaged keys: 1201 rows .* has 8"):
        cache.convert("fake", dtype="float16")


def test_a_file_that_can_only_be_read_is_not_converted(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(ReadOnlyError):
            cache.convert("fake", dtype="float16")
        assert cache.convert("fake", dtype="float32") == 0


CONVERT = """
import sys
from embstore import EmbeddingCache
from embstore.stores.tables import conversion

some = conversion._convert_some

def told(*arguments):
    some(*arguments)
    print("some", flush=True)

conversion._convert_some = told
with EmbeddingCache(sys.argv[1]) as cache:
    print("ready", flush=True)
    cache.convert("m", dtype=sys.argv[2])
    print("done", flush=True)
"""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_process_that_is_killed_while_it_converts_leaves_one_or_the_other(dtype: Dtype, cache_path: Path) -> None:
    """Also where the transaction is larger than SQLite's cache, so that much is written to the file before its end."""
    encoder, other = CountingEncoder(dim=768, model_name="m"), "float16" if dtype == "float32" else "float32"
    ids = [f"doc {i}" for i in range(20_000)]
    values = np.random.default_rng(0).standard_normal((len(ids), encoder.dim)).astype(np.float16).astype(np.float32)
    with EmbeddingCache(cache_path, dtype=other) as cache:  # type: ignore[arg-type]
        cache.put_many(ids, ids, values, model_name="m")
    rng, ends = random.Random(dtype), []
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", CONVERT, str(cache_path), dtype], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range((2, 39, 20, 38, 10, 40)[round_]):
            assert process.stdout.readline() == "some\n"
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with EmbeddingCache(cache_path) as cache:
            assert cache.verify() == []
            (model,) = cache.models()
            ends.append(model.dtype)
            assert model.n_vectors == len(ids)
            assert cache.matrix("m", doc_ids=ids[::97])[1].tobytes() == values[::97].tobytes()
            if model.dtype == dtype:
                cache.convert("m", dtype=other)  # type: ignore[arg-type]
    assert other in ends


# --- beside others --------------------------------------------------------------------------


# --- indexes --------------------------------------------------------------------------------


def test_an_open_exact_index_goes_on_with_the_converted_vectors(library: Path, encoder: CountingEncoder) -> None:
    texts, ids = TEXTS[:30], IDS[:30]
    with (
        CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine,
        SemanticSearchEngine(encoder, path=library, index="exact", collection_name="empty") as empty,
    ):
        engine.index_documents(texts, ids)
        assert engine.search("text 5", 1)[0].score == 1
        with EmbeddingCache(library / "embeddings.db") as other:
            other.convert("fake", dtype="float16")
        hit = engine.search("text 5", 1)[0]
        assert (hit.doc_id, hit.score) == ("doc 5", 1)
        (loaded,) = (engine._index._collection._loaded.matrix,)  # type: ignore[attr-defined]
        expected = halved(encoder.vectors(texts)).astype(np.float64)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        row_of = {doc_id: row for row, doc_id in enumerate(loaded.doc_ids)}
        assert np.abs(loaded.vectors[[row_of[doc_id] for doc_id in ids]] - expected).max() < 1e-7
        report = engine.index_documents([*texts, "new"], [*ids, "new"])
        assert (report.unchanged, report.encoded) == (30, 1)
        empty.index_documents(["text 3"], ["doc 3"])
        assert empty.search("text 3", 1)[0].doc_id == "doc 3"
        assert engine.reconcile([*texts, "new"], [*ids, "new"]).ok
        engine.rename_model("fake", "renamed")
        assert [(model.model_name, model.dtype) for model in engine.cache.models()] == [("renamed", "float16")]
        assert engine.search("text 5", 1)[0].doc_id == "doc 5"
        assert engine.cache.verify() == []


def test_an_index_of_chroma_stays_as_it_is(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    texts, ids = TEXTS[:30], IDS[:30]
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(texts, ids)
        engine.cache.convert("fake", dtype="float16")
    for dtype in ("float16", "float32"):
        with CachedSemanticSearchEngine(encoder, path=library) as engine:
            encoder.calls.clear()
            report = engine.reconcile(texts, ids)
            assert (report.ok, report.not_cached) == (True, [])
            assert engine.index_documents(texts, ids).unchanged == 30
            assert engine.plan([*texts, "new"], [*ids, "new"]).to_encode == 1
            assert engine.search("text 5", 1)[0].doc_id == "doc 5"
            assert encoder.calls in ([], [["text 5"]])
            engine.cache.convert("fake", dtype="float32")
        assert dtype


def test_a_wrong_vector_of_an_index_is_found_all_the_same(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with CachedSemanticSearchEngine(encoder, path=library, dtype="float16") as engine:
        engine.index_documents(TEXTS[:30], IDS[:30])
        wrong = encoder.vector("text 7") + np.float32(0.002)
        engine.collection.update(ids=["doc 7"], embeddings=wrong[None])
        assert engine.reconcile().wrong_vector == ["doc 7"]
        assert engine.reconcile(repair=True).ok
        assert engine.reconcile().ok
        found, _ = engine.cache.stored_vectors([content_hash("text 7")], encoder)
        assert found.all()
