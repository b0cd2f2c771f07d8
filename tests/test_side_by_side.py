"""Collections that share a cache, and models that take turns on the same documents."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, SemanticSearchEngine, content_hash
from embstore.errors import CollectionMismatchError
from tests.fakes import CountingEncoder

pytest.importorskip("chromadb", reason="needs the extra chroma")


def held(engine: SemanticSearchEngine) -> dict[str, str]:
    """What the index holds: texts by id."""
    return {record.doc_id: record.document for page in engine._index.records() for record in page}


# --- collections ----------------------------------------------------------------------------


def test_collections_with_the_same_ids_share_a_cache_without_meeting(
    library: Path, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    with (
        CachedSemanticSearchEngine(encoder, path=library, collection_name="first", cache=cache) as first,
        CachedSemanticSearchEngine(encoder, path=library, collection_name="second", cache=cache) as second,
    ):
        first.index_documents(["A", "B", "C"])
        report = second.index_documents(["B", "A", "D"])
        assert (report.encoded, report.from_cache) == (1, 2)
        assert held(first) == {"doc_0": "A", "doc_1": "B", "doc_2": "C"}
        assert held(second) == {"doc_0": "B", "doc_1": "A", "doc_2": "D"}
        rows = {(info.collection, info.doc_id, info.content_hash) for info in cache.documents()}
        assert rows == {
            (collection, f"doc_{i}", content_hash(text).hex())
            for collection, texts in (("first", "ABC"), ("second", "BAD"))
            for i, text in enumerate(texts)
        }

        assert second.index_documents(["B", "A"], remove_missing=True).removed == 1
        assert first.plan(["A", "B", "C"], remove_missing=True).unchanged == 3
        assert held(first) == {"doc_0": "A", "doc_1": "B", "doc_2": "C"}
    assert sorted(encoder.texts) == ["A", "B", "C", "D"]


def test_forgetting_a_collection_leaves_the_vectors_that_another_uses(
    library: Path, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    for name, texts in (("first", ["shared", "A"]), ("second", ["shared", "B"])):
        with CachedSemanticSearchEngine(encoder, path=library, collection_name=name, cache=cache) as engine:
            engine.index_documents(texts)
    assert cache.clear(collection="second") == 2
    assert cache.missing(["shared", "A", "B"], encoder) == ["B"]


# --- models ---------------------------------------------------------------------------------


def test_a_model_that_comes_back_encodes_nothing(library: Path, cache: EmbeddingCache) -> None:
    texts = [f"text {i}" for i in range(20)]
    first, second = CountingEncoder(model_name="first"), CountingEncoder(dim=12, model_name="second", seed=1)
    encoded = []
    for turn, encoder in enumerate([first, second, first]):
        name = f"turn-{turn}"
        with CachedSemanticSearchEngine(encoder, path=library, collection_name=name, cache=cache) as engine:
            encoded.append(engine.index_documents(texts).encoded)
            for record in chain.from_iterable(engine._index.records()):
                np.testing.assert_allclose(record.vector, encoder.vector(record.document), atol=1e-6)
    assert encoded == [20, 20, 0]
    assert (first.n_texts, second.n_texts) == (20, 20)


def test_one_name_with_two_settings_is_two_models(library: Path, cache: EmbeddingCache) -> None:
    class Short(CountingEncoder):
        model_settings = {"max_seq_length": 8}  # noqa: RUF012

    plain, short = CountingEncoder(), Short(seed=1)
    for turn, (encoder, n_encoded) in enumerate([(plain, 2), (short, 2), (plain, 0), (short, 0)]):
        name = f"turn-{turn}"
        with CachedSemanticSearchEngine(encoder, path=library, collection_name=name, cache=cache) as engine:
            assert engine.index_documents(["A", "B"]).encoded == n_encoded


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine], ids=["direct", "cached"])
@pytest.mark.parametrize(
    ("other", "said"),
    [("other", "'other'"), ("fake", 'max_seq_length":8')],
    ids=["another name", "other settings"],
)
def test_a_collection_refuses_another_model_and_names_both_and_the_cure(
    library: Path, kind: type[SemanticSearchEngine], other: str, said: str
) -> None:
    encoder = CountingEncoder()
    with kind(encoder, path=library) as engine:
        engine.index_documents(["A"])
        identity = engine._index.identity
    another = CountingEncoder(model_name=other)
    another.model_settings = {"max_seq_length": 8} if other == "fake" else {}  # type: ignore[attr-defined]
    with pytest.raises(CollectionMismatchError) as raised:
        kind(another, path=library)
    message = str(raised.value)
    assert str(identity) in message
    assert said in message
    assert "use another collection_name=, or that model" in message
    with kind(encoder, path=library) as engine:
        assert held(engine) == {"doc_0": "A"}
