"""Engines with `truncate_dim`: what they share, what they refuse, and what is mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    CachedSemanticSearchEngine,
    CollectionMismatchError,
    DimensionError,
    EmbeddingCache,
    SemanticSearchEngine,
    content_hash,
)
from embstore.codec import Vectors
from embstore.encoders import as_encoder
from embstore.search.base import HASH_KEY
from embstore.search.collection import CANARY_KEY, TRUNCATE_KEY, open_client
from embstore.search.inputs import IndexKind
from embstore.search.note import HOLDER_NAME
from embstore.search.truncating import check_truncate_dim
from embstore.truncation import truncated
from tests.damage import create_collection, lose, segments, tear
from tests.fakes import CountingEncoder

N = 200
IDS = [f"d{i}" for i in range(N)]
TEXTS = [f"text {i}" for i in range(N)]
MISMATCH = r"holds vectors with truncate_dim={}, and truncate_dim={} is asked for; use truncate_dim={}, or another"

needs_chroma = pytest.mark.usefixtures("_chroma")
Engine = SemanticSearchEngine


@pytest.fixture
def _chroma() -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")


@pytest.fixture(params=["chroma", "exact"])
def index(request: pytest.FixtureRequest) -> IndexKind:
    if request.param == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    return request.param


def test_a_model_that_is_converted_later_leaves_no_fault_behind(
    index: IndexKind, library: Path, encoder: CountingEncoder
) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index=index, truncate_dim=3) as engine:
        engine.index_documents(TEXTS, IDS)
        engine.cache.convert("fake", dtype="float16")
        assert engine.reconcile(TEXTS, IDS).ok
        assert [hit.doc_id for hit in engine.search("text 7", 1)] == ["d7"]
        engine.cache.convert("fake", dtype="float32")
        assert engine.reconcile(TEXTS, IDS).ok
    assert encoder.n_texts == N


def expected(*texts: str, dim: int = 3) -> Vectors:
    return truncated(CountingEncoder().vectors(list(texts)), dim)


def assert_answers(engine: Engine, dim: int | None) -> None:
    """The nearest are those that are nearest by their leading values."""
    hits = engine.search("text 7", n_results=N)
    rows = expected(*TEXTS, dim=8 if dim is None else dim).astype(np.float64)
    right = dict(zip(IDS, (rows @ rows[7]).tolist(), strict=True))
    assert {hit.doc_id: hit.score for hit in hits} == pytest.approx(right, abs=1e-5)


def vectors_of(engine: Engine) -> dict[str, Vectors]:
    """What the index holds."""
    records = [record for page in engine._index.records() for record in page]
    return {record.doc_id: record.vector for record in records if record.vector is not None}


# --- one cache, many lengths ----------------------------------------------------------------


def test_other_lengths_of_the_same_documents_cost_no_model_call(library: Path, index: IndexKind) -> None:
    encoder = CountingEncoder()
    for n, truncate_dim in enumerate([None, 4, 2, 8]):
        with CachedSemanticSearchEngine(
            encoder, path=library, index=index, collection_name=f"by-{truncate_dim}", truncate_dim=truncate_dim
        ) as engine:
            plan = engine.plan(TEXTS, IDS)
            assert (plan.new, plan.to_encode) == (N, N if n == 0 else 0)
            report = engine.index_documents(TEXTS, IDS)
            assert (report.added, report.encoded) == (N, N if n == 0 else 0)
            assert_answers(engine, truncate_dim)
        assert encoder.n_texts == N  # the query is one of the texts
    with EmbeddingCache(library / "embeddings.db") as cache:
        assert np.array_equal(cache.matrix("fake", collection="by-2")[1], encoder.vectors(TEXTS))
        assert cache.stats().n_vectors == N
        assert cache.verify() == []


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine])
def test_engines_of_an_exact_collection_may_differ_in_length(kind: type[Engine], library: Path) -> None:
    with (
        kind(CountingEncoder(), path=library, index="exact", truncate_dim=3) as shorter,
        kind(CountingEncoder(), path=library, index="exact", truncate_dim=5) as longer,
        kind(CountingEncoder(), path=library, index="exact") as whole,
    ):
        shorter.index_documents(TEXTS[:150], IDS[:150])
        whole.index_documents(TEXTS[150:], IDS[150:])
        assert longer.plan(TEXTS, IDS).unchanged == N
        for engine, dim in ((shorter, 3), (longer, 5), (whole, None)):
            assert_answers(engine, dim)
            assert engine.reconcile(TEXTS, IDS).ok
        whole.reindex_document("d7", "text 7")
        assert_answers(shorter, 3)
    with EmbeddingCache(library / "embeddings.db") as cache:
        ids, vectors = cache.matrix("fake")
        assert dict(zip(ids, vectors.tolist(), strict=True)) == dict(
            zip(IDS, CountingEncoder().vectors(TEXTS).tolist(), strict=True)
        )


def test_an_exact_index_has_only_the_leading_values_in_memory(library: Path) -> None:
    encoder = CountingEncoder(dim=64)
    with CachedSemanticSearchEngine(encoder, path=library, index="exact", truncate_dim=4) as engine:
        engine.index_documents(TEXTS, IDS)
        engine.search("q")
        engine.index_documents(["new"], ["new"])
        engine.search("q")
        room = engine._index._collection._loaded.matrix.room  # type: ignore[attr-defined]
        assert (room.shape[1], room.base) == (4, None)
        assert len(room) < (N + 1) * 9 / 8 + 1


def test_a_query_of_another_length_is_refused_although_it_would_be_cut_to_the_same(library: Path) -> None:
    with SemanticSearchEngine(CountingEncoder(), path=library, index="exact", truncate_dim=3) as engine:
        engine.index_documents(["text"])
        with pytest.raises(DimensionError, match="holds vectors of 8 values, and model 'fake' gave 9"):
            engine._index.query(np.ones(9, dtype=np.float32), 1, None)


@needs_chroma
def test_a_chroma_collection_holds_the_leading_values_of_length_1(library: Path) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=3) as engine:
        engine.index_documents(TEXTS[:3], IDS[:3])
        held = vectors_of(engine)
        assert np.allclose([held[doc_id] for doc_id in IDS[:3]], expected(*TEXTS[:3]), rtol=0, atol=1e-6)
        assert engine.collection.metadata[TRUNCATE_KEY] == 3


@needs_chroma
def test_a_client_of_ones_own_is_no_different(library: Path) -> None:
    with open_client(library) as client:
        engine = CachedSemanticSearchEngine(CountingEncoder(), path=library, client=client, truncate_dim=3)
        engine.index_documents(TEXTS, IDS)
        assert_answers(engine, 3)
        with pytest.raises(CollectionMismatchError, match=MISMATCH.format(3, None, 3)):
            SemanticSearchEngine(CountingEncoder(), path=library, client=client)
        engine.close()


# --- what does not fit ----------------------------------------------------------------------


@needs_chroma
@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine])
@pytest.mark.parametrize(("noted", "given"), [(3, None), (3, 4), (3, 2), (None, 3), (None, 8), (8, None)])
def test_a_chroma_collection_has_one_length(
    noted: int | None, given: int | None, kind: type[Engine], library: Path
) -> None:
    with kind(CountingEncoder(), path=library, truncate_dim=noted) as engine:
        engine.index_documents(TEXTS, IDS)
    encoder = CountingEncoder()
    with pytest.raises(CollectionMismatchError, match=MISMATCH.format(noted, given, noted)) as caught:
        kind(encoder, path=library, truncate_dim=given)
    assert caught.value.facts == {"collection_name": "documents", "stored": noted, "given": given}
    assert encoder.calls == []
    with kind(CountingEncoder(), path=library, truncate_dim=noted) as engine:
        assert engine.index_documents(TEXTS, IDS).unchanged == N
        assert_answers(engine, noted)


@needs_chroma
def test_a_collection_of_before_is_not_truncated(library: Path) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(TEXTS, IDS)
        assert TRUNCATE_KEY not in engine.collection.metadata
    with pytest.raises(CollectionMismatchError, match=MISMATCH.format(None, 8, None)):
        CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=8)


@needs_chroma
def test_a_collection_that_never_held_anything_takes_the_length_of_the_next_engine(library: Path) -> None:
    for truncate_dim in (9, 3, None, 4):
        with SemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=truncate_dim) as engine:
            assert engine.collection.metadata.get(TRUNCATE_KEY) == truncate_dim
            if truncate_dim != 9:
                assert engine.search("q") == []
                assert engine.collection.metadata[CANARY_KEY]
    with pytest.raises(CollectionMismatchError, match="holds vectors of the model 'fake', not of 'other'"):
        CachedSemanticSearchEngine(CountingEncoder(model_name="other"), path=library, truncate_dim=2)
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=4) as engine:
        engine.index_documents(TEXTS, IDS)
        engine.delete_documents(IDS)
    with pytest.raises(CollectionMismatchError, match=MISMATCH.format(4, 3, 4)):
        CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=3)


@needs_chroma
def test_a_collection_that_was_made_again_with_another_length_is_refused(library: Path) -> None:
    with open_client(library) as client:
        engine = CachedSemanticSearchEngine(CountingEncoder(), path=library, client=client, truncate_dim=3)
        engine.index_documents(TEXTS, IDS)
        client.delete_collection("documents")
        other = CachedSemanticSearchEngine(CountingEncoder(), path=library, client=client, truncate_dim=4)
        for call in (lambda: engine.search("q"), lambda: engine.index_documents(TEXTS, IDS), lambda: engine.plan([])):
            with pytest.raises(CollectionMismatchError, match=MISMATCH.format(4, 3, 4)):
                call()
        assert other.index_documents(TEXTS, IDS).added == N
        assert len(engine.reconcile(repair=True).other_model) == N
        assert_answers(other, 4)
        engine.close()
        other.close()


def test_a_stored_model_tells_when_the_engine_is_opened(library: Path, index: IndexKind) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, index=index) as engine:
        engine.index_documents(["text"])
    with pytest.raises(DimensionError, match="truncate_dim is 9, and vectors of model 'fake' have 8 values"):
        CachedSemanticSearchEngine(
            CountingEncoder(), path=library, index=index, collection_name="second", truncate_dim=9
        )
    if index == "chroma":
        with open_client(library) as client:
            assert [collection.name for collection in client.list_collections()] == ["documents"]


def test_a_model_that_truncates_itself_is_named_with_both_lengths() -> None:
    encoder = CountingEncoder()
    encoder.model_settings = {"truncate_dim": 4}  # type: ignore[attr-defined]
    check_truncate_dim(4, as_encoder(encoder), None)
    with pytest.raises(DimensionError) as caught:
        check_truncate_dim(5, as_encoder(encoder), None)
    assert str(caught.value) == (
        "truncate_dim is 5, and model 'fake' itself cuts its vectors to truncate_dim=4; give 1 to 4, or load the model "
        "without that"
    )


# --- comparing and mending ------------------------------------------------------------------


@pytest.fixture
def made(library: Path) -> Path:
    """A library on Chroma with the leading values of 200 documents, which writes its files soon."""
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    create_collection(library, "fake")
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=3) as engine:
        for start in range(0, N, 20):
            engine.index_documents(TEXTS[start : start + 20], IDS[start : start + 20])
    return library


@contextmanager
def without_model(library: Path) -> Iterator[CachedSemanticSearchEngine]:
    """An engine on it whose model is not called, and which is as it was made at the end."""
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=3) as engine:
        yield engine
        assert {name: value for name, value in asdict(engine.reconcile(TEXTS, IDS)).items() if value} == {
            "n_records": N
        }
        assert_answers(engine, 3)
        assert engine.collection.metadata[TRUNCATE_KEY] == 3
        assert engine.model.calls == []
        assert engine.cache.verify() == []


def test_a_wrong_vector_is_found_and_replaced_by_the_leading_values(made: Path) -> None:
    with without_model(made) as engine:
        wrong = [expected("other")[0], 2 * expected("text 4")[0]]  # of which only the direction counts
        engine.collection.update(ids=["d3", "d4"], embeddings=wrong)
        report = engine.reconcile(repair=True)
        assert (report.wrong_vector, report.repaired, report.left) == (["d3"], 1, [])
        assert np.allclose(vectors_of(engine)["d3"], expected("text 3")[0], rtol=0, atol=1e-6)


def test_missing_and_outdated_documents_are_put_with_the_leading_values(made: Path) -> None:
    with without_model(made) as engine:
        key = content_hash("text 9").hex()
        engine.collection.delete(ids=["d3", "d5"])
        engine.collection.add(
            ids=["d5"], embeddings=expected("text 9"), documents=["text 9"], metadatas=[{HASH_KEY: key}]
        )
        report = engine.reconcile(TEXTS, IDS, repair=True)
        assert (report.missing, report.outdated, report.repaired, report.left) == (["d3"], ["d5"], 2, [])


@pytest.mark.parametrize("damage", ["few", "many", "torn"])
def test_what_an_unclean_end_damaged_is_mended_with_the_leading_values(
    damage: str, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (made / HOLDER_NAME).write_text("{}")
    if damage == "torn":
        tear(segments(made)[0] / "index_metadata.pickle")
    else:
        lose(segments(made)[0], IDS[: 2 if damage == "few" else 50])
    with without_model(made):
        said = " ".join(record.getMessage() for record in caplog.records)
        assert ("they were put anew" if damage == "few" else "with 200 vectors from the cache") in said


def test_a_library_that_is_to_be_mended_is_not_given_vectors_of_another_length(made: Path) -> None:
    (made / HOLDER_NAME).write_text("{}")
    tear(segments(made)[0] / "index_metadata.pickle")
    for truncate_dim in (None, 4):
        with pytest.raises(CollectionMismatchError, match=MISMATCH.format(3, truncate_dim, 3)):
            CachedSemanticSearchEngine(CountingEncoder(), path=made, truncate_dim=truncate_dim)
    with without_model(made):
        pass


@needs_chroma
def test_a_collection_that_lost_its_canary_is_compared_by_a_record(library: Path) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=3) as engine:
        engine.index_documents(TEXTS, IDS)
        noted: dict[str, Any] = {key: value for key, value in engine.collection.metadata.items() if key != "hnsw:space"}
        engine.collection.modify(metadata={**noted, CANARY_KEY: "no base64"})
    with SemanticSearchEngine(CountingEncoder(), path=library, truncate_dim=3) as engine:
        assert_answers(engine, 3)
        canary = engine._index.canary()
        assert canary is not None
        assert canary.shape == (8,)
