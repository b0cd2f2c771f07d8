"""Models whose vectors are stored as float16: half the space, and the same float32 from every call."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    CachedSemanticSearchEngine,
    DamagedStoreError,
    EmbeddingCache,
    InvalidInputError,
    OutOfRangeError,
    SemanticSearchEngine,
    StoredEmbeddings,
)
from embstore.search.inputs import IndexKind
from tests.fakes import CountingEncoder, TooLarge, halved
from tests.files import flip_bit, rows

IDS = [f"doc {i}" for i in range(20)]
TEXTS = [f"text {i}" for i in range(20)]


@pytest.mark.parametrize("dim", [384, 768])
def test_a_file_has_little_more_than_the_halved_values(dim: int, cache_path: Path) -> None:
    """For a vector and its document there are keys and checksums of some 170 bytes, whatever the values take."""
    n = 20_000
    values = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)
    ids = [f"doc_{i}" for i in range(n)]
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        cache.put_many(ids, ids, values, model_name="m")
    size = cache_path.stat().st_size
    assert size < {384: 0.65, 768: 0.58}[dim] * values.nbytes


@pytest.mark.parametrize("dtype", ["float64", "f2", "", "FLOAT16"])
def test_another_format_is_refused_and_creates_nothing(dtype: Any, tmp_path: Path) -> None:
    for make in (EmbeddingCache, StoredEmbeddings):
        with pytest.raises(InvalidInputError, match="is not one of 'float32', 'float16'"):
            make(tmp_path / "new.db", dtype=dtype)
    with pytest.raises(InvalidInputError):
        CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path / "library", index="exact", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_of_a_vector_is_noticed(tmp_path: Path) -> None:
    path, encoder = tmp_path / "embeddings.db", CountingEncoder(dim=3)
    with EmbeddingCache(path, dtype="float16") as cache:
        cache.get_many(IDS, TEXTS, encoder)
    start = path.read_bytes().index(encoder.vector("text 7").astype("<f2").tobytes())
    for bit in range(48):
        flip_bit(path, start + bit // 8, bit % 8)
        with EmbeddingCache(path) as cache:
            assert [problem.table for problem in cache.verify()] == ["vectors"]
            with pytest.raises(DamagedStoreError, match="'doc 7'"):
                cache.matrix("fake")
            assert cache.missing(TEXTS, encoder) == ["text 7"]
        flip_bit(path, start + bit // 8, bit % 8)


def test_random_damage_gives_no_wrong_vector(tmp_path: Path) -> None:
    encoder, rng = CountingEncoder(dim=16), random.Random(7)
    path = tmp_path / "embeddings.db"
    with EmbeddingCache(path, dtype="float16") as cache:
        cache.get_many(IDS, TEXTS, encoder)
    sound = path.read_bytes()
    expected = {doc_id: halved(encoder.vectors([text])).tobytes() for doc_id, text in zip(IDS, TEXTS, strict=True)}
    page = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = 'vectors'")[0][0]
    for _ in range(60):
        path.write_bytes(sound)
        flip_bit(path, rng.randrange((page - 1) * 65536, page * 65536), rng.randrange(8))
        with EmbeddingCache(path) as cache:
            try:
                ids, vectors = cache.matrix("fake")
            except DamagedStoreError:
                continue
            assert {doc_id: vector.tobytes() for doc_id, vector in zip(ids, vectors, strict=True)} == expected


@pytest.fixture(params=["chroma", "exact"])
def index(request: pytest.FixtureRequest) -> IndexKind:
    if request.param == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    return request.param


def test_an_index_has_the_rounded_vectors(index: IndexKind, library: Path, encoder: CountingEncoder) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index=index, dtype="float16") as engine:
        assert engine.index_documents(TEXTS, IDS).encoded == 20
        engine.reindex_document("doc 1", "another text", {"a": 1})
        texts = [TEXTS[0], "another text", *TEXTS[2:]]
        found = {record.doc_id: record.vector for page in engine._index.records() for record in page}
        for doc_id, vector in zip(IDS, halved(encoder.vectors(texts)), strict=True):
            # Chroma scales vectors to length 1 and back.
            assert found[doc_id] == pytest.approx(vector, abs=1e-6 if index == "chroma" else 0)
        assert engine.search("text 5", 1)[0].doc_id == "doc 5"
        assert engine.reconcile(texts, IDS, [{}, {"a": 1}, *[{}] * 18]).ok
        assert engine.index_documents(texts, IDS, [{}, {"a": 1}, *[{}] * 18]).unchanged == 20
        assert engine.cache.verify() == []
    with CachedSemanticSearchEngine(encoder, path=library, index=index) as engine:
        assert {model.dtype for model in engine.cache.models()} == {"float16"}
        assert engine.plan(texts, IDS).to_encode == 0


def test_an_engine_without_a_cache_writes_to_a_model_that_is_stored_as_float16(library: Path) -> None:
    encoder = CountingEncoder()
    with CachedSemanticSearchEngine(encoder, path=library, index="exact", dtype="float16") as engine:
        engine.index_documents(TEXTS[:10], IDS[:10])
    with SemanticSearchEngine(encoder, path=library, index="exact") as engine:
        engine.index_documents(TEXTS, IDS)
        version = engine._index._collection.current().vectors_version  # type: ignore[attr-defined]
        engine.reindex_document("doc 3", "text 3")
        assert engine._index._collection.current().vectors_version == version  # type: ignore[attr-defined]
        assert engine.search("text 15", 1)[0].doc_id == "doc 15"
    with EmbeddingCache(library / "embeddings.db") as cache:
        assert [model.dtype for model in cache.models()] == ["float16"]
        assert cache.matrix("fake", doc_ids=IDS)[1].tobytes() == halved(encoder.vectors(TEXTS)).tobytes()
        assert cache.verify() == []


def test_a_document_that_float16_has_no_place_for_is_named(library: Path) -> None:
    with CachedSemanticSearchEngine(TooLarge(), path=library, index="exact", dtype="float16") as engine:
        engine.index_documents(["one"], ["a"])
    with (
        SemanticSearchEngine(TooLarge(), path=library, index="exact") as engine,
        pytest.raises(OutOfRangeError, match="doc_id 'b'"),
    ):
        engine.index_documents(["large"], ["b"])
