"""An engine with `truncate_dim` answers by the leading values, whatever its index and whoever keeps its vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    CachedSemanticSearchEngine,
    DimensionError,
    EmbeddingCache,
    InvalidInputError,
    InvalidTypeError,
    ModelChangedError,
    SemanticSearchEngine,
)
from embstore.canary import CANARY_TEXT
from embstore.errors import EmbstoreError
from embstore.search.inputs import IndexKind
from embstore.truncation import truncated
from tests.fakes import CountingEncoder, QueryEncoder

IDS = [f"d{i}" for i in range(40)]
TEXTS = [f"text {i}" for i in range(40)]
METADATAS: list[dict[str, Any] | None] = [{"n": i} for i in range(40)]

Open = Callable[..., SemanticSearchEngine]


class Long(QueryEncoder):
    """Gives vectors of any length, and others for queries."""

    def vector(self, text: str) -> np.ndarray:
        return super().vector(text) * np.float32(1 + len(text) % 5)


@pytest.fixture(params=["chroma", "exact"])
def index(request: pytest.FixtureRequest) -> IndexKind:
    if request.param == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    return request.param


@pytest.fixture(params=[SemanticSearchEngine, CachedSemanticSearchEngine], ids=["direct", "cached"])
def open_engine(request: pytest.FixtureRequest, index: IndexKind, library: Path) -> Iterator[Open]:
    """Open engines of one kind on one library, and close them at the end."""
    engines = []

    def open_engine(encoder: CountingEncoder | None = None, **options: Any) -> SemanticSearchEngine:
        engines.append(request.param(encoder or Long(), path=library, index=index, **options))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()
    if (library / "embeddings.db").exists():
        with EmbeddingCache(library / "embeddings.db") as cache:
            assert cache.verify() == []


@pytest.fixture
def engine(open_engine: Open) -> SemanticSearchEngine:
    engine = open_engine(truncate_dim=3)
    engine.index_documents(TEXTS, IDS, METADATAS)
    return engine


def scores(query: str, texts: list[str], dim: int) -> list[float]:
    """The similarities of a query to texts by their leading values alone."""
    encoder = Long()
    rows = truncated(encoder.vectors(texts), dim).astype(np.float64)
    return list(rows @ truncated(encoder.vector(f"query: {query}")[np.newaxis], dim)[0])


def assert_answers(engine: SemanticSearchEngine, dim: int, text_of: dict[str, str]) -> None:
    """Every document is found, with the score that its leading values give, best first."""
    hits = engine.search("q", n_results=len(text_of) + 5)
    assert {hit.doc_id: hit.document for hit in hits} == text_of
    assert [hit.score for hit in hits] == pytest.approx(scores("q", [hit.document for hit in hits], dim), abs=1e-5)
    assert all(one.score >= other.score - 1e-6 for one, other in pairwise(hits))


@pytest.mark.parametrize("truncate_dim", [1, 3, 8, np.int64(3)])
def test_searches_go_by_the_leading_values(truncate_dim: Any, open_engine: Open) -> None:
    engine = open_engine(truncate_dim=truncate_dim)
    engine.index_documents(TEXTS, IDS)
    assert_answers(engine, int(truncate_dim), dict(zip(IDS, TEXTS, strict=True)))


def test_indexing_again_changes_nothing_and_calls_no_model(open_engine: Open, engine: SemanticSearchEngine) -> None:
    for again in (engine, open_engine(truncate_dim=3)):
        n_texts = again.model.n_texts
        assert asdict(again.plan(TEXTS, IDS, METADATAS))["unchanged"] == 40
        report = again.index_documents(iter(TEXTS), iter(IDS), iter(METADATAS))
        assert (report.unchanged, report.encoded, again.model.n_texts) == (40, 0, n_texts)
    assert_answers(again, 3, dict(zip(IDS, TEXTS, strict=True)))


def test_documents_change_as_they_do_otherwise(engine: SemanticSearchEngine) -> None:
    changed = engine.index_documents(["other", "text 1", "new"], ["d0", "d1", "new"], [None, {"n": -1}, None])
    assert (changed.updated, changed.metadata_updated, changed.added, changed.encoded) == (1, 1, 1, 2)
    assert engine.reindex_document("d2", "another").updated == 1
    assert engine.delete_documents(["d3"]) == 1
    text_of = {**dict(zip(IDS, TEXTS, strict=True)), "d0": "other", "d2": "another", "new": "new"}
    del text_of["d3"]
    assert_answers(engine, 3, text_of)
    assert [hit.doc_id for hit in engine.search("q", where={"n": -1})] == ["d1"]


def test_an_engine_is_as_sound_as_another_one(engine: SemanticSearchEngine) -> None:
    n_texts = engine.model.n_texts
    for repair in (False, True):
        report = engine.reconcile(TEXTS, IDS, METADATAS, repair=repair)
        assert {name: value for name, value in asdict(report).items() if value} == {"n_records": 40}
    assert engine.model.n_texts == n_texts


def test_a_renamed_model_is_still_truncated(open_engine: Open, engine: SemanticSearchEngine) -> None:
    engine.rename_model("fake", "renamed")
    assert engine.model_name == "renamed"
    for renamed in (engine, open_engine(model_name="renamed", truncate_dim=3)):
        assert_answers(renamed, 3, dict(zip(IDS, TEXTS, strict=True)))


def test_a_model_that_was_swapped_is_refused(open_engine: Open, engine: SemanticSearchEngine) -> None:
    swapped = open_engine(Long(seed=1), truncate_dim=3)
    with pytest.raises(ModelChangedError, match="'fake' is not the model that filled"):
        swapped.search("q")
    with pytest.raises(ModelChangedError, match="'fake' is not the model that filled"):
        swapped.index_documents(["new"], ["new"])
    assert_answers(engine, 3, dict(zip(IDS, TEXTS, strict=True)))


def test_it_is_refused_by_one_of_the_records_where_there_is_no_canary(open_engine: Open) -> None:
    open_engine(truncate_dim=3, check_canary=False).index_documents(TEXTS, IDS)
    with pytest.raises(ModelChangedError, match="'fake' is not the model that filled"):
        open_engine(Long(seed=1), truncate_dim=3).search("q")
    right = open_engine(truncate_dim=3)
    assert_answers(right, 3, dict(zip(IDS, TEXTS, strict=True)))


def test_the_canary_of_an_index_is_whole(open_engine: Open, engine: SemanticSearchEngine) -> None:
    canary = engine._index.canary()
    assert canary is not None
    assert np.array_equal(canary, Long().vector(CANARY_TEXT))


def test_leading_values_that_are_all_zero_are_as_near_as_what_is_orthogonal(open_engine: Open) -> None:
    class Zero(CountingEncoder):
        def vector(self, text: str) -> np.ndarray:
            return np.array([0, 0, 1] if text == "zero" else [1, len(text) - 3, 0], dtype=np.float32)

    engine = open_engine(Zero(), truncate_dim=2)
    engine.index_documents(["zero", "one", "opposite"], ["zero", "one", "opposite"])
    assert {hit.doc_id: round(hit.score, 5) for hit in engine.search("one")}["zero"] == 0.0
    assert len(engine.search("zero")) == 3


# --- what cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truncate_dim", "error", "said"),
    [
        (0, InvalidInputError, "truncate_dim is 0; it must be at least 1"),
        (True, InvalidTypeError, "truncate_dim is bool, not int: True"),
        (1.5, InvalidTypeError, "truncate_dim is float, not int: 1.5"),
        ("3", InvalidTypeError, "truncate_dim is str, not int: '3'"),
    ],
)
def test_what_is_no_dim_is_refused_before_anything_is_made(
    truncate_dim: Any, error: type[EmbstoreError], said: str, open_engine: Open, library: Path
) -> None:
    with pytest.raises(error) as caught:
        open_engine(truncate_dim=truncate_dim)
    assert str(caught.value) == said
    assert not library.exists()


@pytest.mark.parametrize("call", ["index_documents", "reindex_document", "search"])
def test_more_values_than_the_model_gives_are_refused_once_that_is_known(
    call: str, open_engine: Open, library: Path
) -> None:
    engine = open_engine(truncate_dim=9)
    arguments: Any = {"index_documents": [["text"]], "reindex_document": ["a", "text"], "search": ["q"]}[call]
    for _ in range(2):
        with pytest.raises(DimensionError) as caught:
            getattr(engine, call)(*arguments)
        assert str(caught.value) == "truncate_dim is 9, and vectors of model 'fake' have 8 values; give 1 to 8"
    assert (engine._index.count(), engine.model.calls) == (0, [])
    if (library / "embeddings.db").exists():
        with EmbeddingCache(library / "embeddings.db") as cache:
            assert cache.models() == []
    engine.close()
    again = open_engine(truncate_dim=8)  # nothing is left of what could not be
    again.index_documents(TEXTS, IDS)
    assert_answers(again, 8, dict(zip(IDS, TEXTS, strict=True)))


def test_without_a_canary_the_first_vectors_tell(open_engine: Open) -> None:
    engine = open_engine(truncate_dim=9, check_canary=False)
    for call in (lambda: engine.index_documents(["text"]), lambda: engine.reindex_document("a", "text")):
        with pytest.raises(DimensionError, match="truncate_dim is 9, and vectors of model 'fake' have 8 values"):
            call()
    assert engine._index.count() == 0
    with pytest.raises(DimensionError, match="truncate_dim is 9, and vectors of model 'fake' have 8 values"):
        engine.search("q")
