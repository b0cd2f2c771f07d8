"""The model of an engine is the one whose vectors the index holds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, EncoderError, ModelChangedError, SemanticSearchEngine
from embstore.canary import CANARY_TEXT
from embstore.errors import InvalidInputError
from embstore.search.collection import CANARY_KEY
from embstore.search.inputs import IndexKind
from tests.fakes import CountingEncoder

TEXTS = ["one", "two", "three"]


@pytest.fixture(params=["chroma", "exact"])
def index(request: pytest.FixtureRequest) -> IndexKind:
    if request.param == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    return request.param


def assert_only_the_right_model_is_let_in(library: Path, index: IndexKind) -> None:
    for kind in (SemanticSearchEngine, CachedSemanticSearchEngine):
        with kind(CountingEncoder(seed=1), path=library, index=index) as engine:
            with pytest.raises(ModelChangedError, match="'fake' is not the model that filled"):
                engine.search("q")
            with pytest.raises(ModelChangedError, match="'fake' is not the model that filled"):
                engine.index_documents(["new"], ids=["new"])
        with kind(CountingEncoder(), path=library, index=index) as engine:
            assert engine.search("one", 1)[0].document == "one"


def test_a_model_that_was_swapped_is_refused(library: Path, index: IndexKind) -> None:
    for kind in (SemanticSearchEngine, CachedSemanticSearchEngine):
        with kind(CountingEncoder(), path=library, index=index) as engine:
            engine.index_documents(TEXTS)
        assert_only_the_right_model_is_let_in(library, index)


def test_it_is_refused_by_a_collection_that_was_filled_without_a_canary(library: Path, index: IndexKind) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, index=index, check_canary=False) as engine:
        engine.index_documents(TEXTS)
        assert engine._index.canary() is None
    assert_only_the_right_model_is_let_in(library, index)


def test_it_is_refused_by_a_collection_that_lost_its_canary(library: Path) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(TEXTS)
        metadata = {key: value for key, value in engine.collection.metadata.items() if key.startswith("embstore:")}
        engine.collection.modify(metadata={**metadata, CANARY_KEY: "no base64"})
    with SemanticSearchEngine(CountingEncoder(seed=1), path=library) as engine:
        with pytest.raises(ModelChangedError):
            engine.search("q")
        assert engine.collection.metadata[CANARY_KEY] == "no base64"
    with SemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.search("q")
        assert engine.collection.metadata[CANARY_KEY] != "no base64"


def test_a_model_that_was_let_in_while_the_collection_was_empty_is_refused_once_another_has_filled_it(
    library: Path, index: IndexKind
) -> None:
    with (
        SemanticSearchEngine(CountingEncoder(seed=1), path=library, index=index) as swapped,
        SemanticSearchEngine(CountingEncoder(), path=library, index=index) as engine,
    ):
        assert swapped.search("q") == engine.search("q") == swapped.search("q") == []
        engine.index_documents(TEXTS)
        with pytest.raises(ModelChangedError):
            swapped.search("q")
        with pytest.raises(ModelChangedError):
            swapped.index_documents(["new"], ids=["new"])
        assert engine.search("one", 1)[0].document == "one"


def test_an_engine_that_goes_on_does_not_note_its_canary_again(
    cached: CachedSemanticSearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.search("q")
    monkeypatch.setattr(type(cached._index), "note_canary", lambda *_: pytest.fail("noted again"))
    cached.index_documents(TEXTS)
    assert cached.search("one", 1)[0].document == "one"


def test_an_empty_exact_collection_is_not_filled_by_a_model_that_others_are_not_of(library: Path) -> None:
    with SemanticSearchEngine(CountingEncoder(), path=library, index="exact") as engine:
        engine.index_documents(TEXTS)
    swapped = CountingEncoder(seed=1)
    with (
        SemanticSearchEngine(swapped, path=library, index="exact", collection_name="second") as engine,
        pytest.raises(ModelChangedError, match="the model that filled it, or another model_name="),
    ):
        engine.index_documents(TEXTS)
    with EmbeddingCache(library / "embeddings.db") as cache:
        assert np.array_equal(cache.matrix("fake")[1], CountingEncoder().vectors(TEXTS))


def test_an_engine_and_its_cache_ask_for_one_canary_together(library: Path, index: IndexKind) -> None:
    encoder = CountingEncoder()
    with CachedSemanticSearchEngine(encoder, path=library, index=index) as engine:
        engine.index_documents(TEXTS)
        engine.search("q")
    assert encoder.n_canaries == 1


class WithoutCanary(CountingEncoder):
    """An encoder that cannot take the canary."""

    def encode(self, texts: list[str]) -> np.ndarray:
        if CANARY_TEXT in texts:
            raise ValueError("ASCII only")
        return super().encode(texts)


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine])
def test_a_model_that_cannot_take_the_canary_is_used_without(
    kind: type[SemanticSearchEngine], library: Path, index: IndexKind
) -> None:
    with (
        kind(WithoutCanary(), path=library, index=index) as engine,
        pytest.raises(EncoderError, match="check_canary=False"),
    ):
        engine.index_documents(TEXTS)
    with kind(WithoutCanary(), path=library, index=index, check_canary=False) as engine:
        assert engine.index_documents(TEXTS).added == 3
        assert engine.search("one", 1)[0].document == "one"


def test_with_a_cache_of_ones_own_the_cache_says_whether_models_are_compared(
    cache: EmbeddingCache, library: Path
) -> None:
    with pytest.raises(InvalidInputError, match=r"EmbeddingCache\(\.\.\., check_canary=False\)"):
        CachedSemanticSearchEngine(CountingEncoder(), path=library, index="exact", cache=cache, check_canary=False)


# --- forks ----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_indexes_although_another_thread_was_indexing_at_the_fork(library: Path) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    class Waiting(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            if "slow" in texts:
                encoding.set()
                go_on.wait(60)
            return super().encode(texts)

    with SemanticSearchEngine(Waiting(), path=library, index="exact") as engine:
        engine.index_documents(["first"], ids=["first"])
        thread = threading.Thread(target=engine.index_documents, args=(["slow"], ["slow"]))
        thread.start()
        assert encoding.wait(60)
        child = os.fork()
        if not child:
            code = 1
            try:
                with SemanticSearchEngine(CountingEncoder(), path=library, index="exact") as own:
                    own.index_documents(["from the child"], ids=["child"])
                code = 0
            finally:
                os._exit(code)
        try:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            go_on.set()
            thread.join(60)
        assert {hit.doc_id for hit in engine.search("q")} == {"first", "slow", "child"}
