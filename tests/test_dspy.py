"""CachedEmbedder: functions, and DSPy's Embedder and retriever where it is installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    InvalidInputError,
    InvalidTypeError,
    ModelChangedError,
    ModelIdentity,
    ModelNameError,
)
from embstore.integrations.dspy import CachedEmbedder, DspyEncoder
from tests.fakes import CountingEncoder

TEXTS = ["one", "two", "one"]


@pytest.fixture
def function(encoder: CountingEncoder) -> Callable[[list[str]], Any]:
    return lambda texts: encoder.encode(texts).tolist()


class Embedder:
    """What dspy.Embedder looks like, where it is not installed."""

    def __init__(self, model: Any, batch_size: int = 200, caching: bool = True, **kwargs: Any) -> None:
        self.model, self.batch_size, self.caching, self.default_kwargs = model, batch_size, caching, kwargs

    def __call__(self, inputs: list[str], caching: bool | None = None) -> Any:
        assert caching is False
        return self.model(inputs)


def test_a_function_is_called_once_for_each_text(
    cache: EmbeddingCache, encoder: CountingEncoder, function: Callable[[list[str]], Any]
) -> None:
    embedder = CachedEmbedder(function, cache, model_name="function")
    for _ in range(2):
        assert np.array_equal(embedder(TEXTS), encoder.vectors(TEXTS))
        assert np.array_equal(embedder("two"), encoder.vector("two"))
    assert sorted(encoder.texts) == ["one", "two"]
    assert embedder([]).shape[0] == 0


def test_batches_are_as_large_as_asked_for(
    cache: EmbeddingCache, encoder: CountingEncoder, function: Callable[[list[str]], Any]
) -> None:
    CachedEmbedder(function, cache, model_name="function")(["a", "b", "c"], batch_size=2, caching=True)
    assert sorted(map(len, encoder.calls)) == [1, 2]


def test_an_await_blocks_no_event_loop(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    threads = []

    def function(texts: list[str]) -> Any:
        threads.append(threading.current_thread())
        return encoder.encode(texts)

    embedder = CachedEmbedder(function, cache, model_name="function")
    assert np.array_equal(asyncio.run(embedder.acall(TEXTS)), encoder.vectors(TEXTS))
    assert threading.main_thread() not in threads


def test_what_may_change_the_vectors_of_one_call_is_refused(
    cache: EmbeddingCache, encoder: CountingEncoder, function: Callable[[list[str]], Any]
) -> None:
    with pytest.raises(InvalidInputError, match="dimensions: give it to the embedder"):
        CachedEmbedder(function, cache, model_name="function")(TEXTS, dimensions=4)
    assert encoder.calls == []


def test_a_function_needs_a_name_and_what_cannot_be_called_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(ModelNameError):
        CachedEmbedder(lambda texts: texts, cache)
    with pytest.raises(InvalidTypeError):
        CachedEmbedder(5, cache, model_name="five")


def test_what_a_hosted_model_is_asked_for_is_in_its_identity_and_no_secret() -> None:
    secrets = {"api_key": "secret", "aws_secret_access_key": "secret", "azure_ad_token": "secret", "Authorization": "x"}
    address = "http://user:secret@here/?key=secret"
    embedder = Embedder("openai/small", dimensions=4, api_base=address, timeout=3, extra=[1], **secrets)
    assert DspyEncoder(embedder).identity("query") == ModelIdentity.of(
        "openai/small", {"dimensions": 4, "api_base": "http://here", "extra": "[1]"}
    )


def test_an_embedder_is_asked_past_its_own_cache(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    embedder = CachedEmbedder(Embedder(encoder.encode), cache, model_name="named")
    assert np.array_equal(embedder(TEXTS), encoder.vectors(TEXTS))
    with pytest.raises(ModelChangedError):
        CachedEmbedder(Embedder(CountingEncoder(seed=1).encode), cache, model_name="named")(TEXTS)


def test_a_path_is_opened_and_closed(cache_path: Path, encoder: CountingEncoder, function: Callable[..., Any]) -> None:
    for _ in range(2):
        with CachedEmbedder(function, cache_path, model_name="function") as embedder:
            embedder(TEXTS)
    assert encoder.n_texts == 2


def test_dspys_own_embedder_and_retriever_use_the_cache(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    dspy = pytest.importorskip("dspy", reason="needs the package dspy")
    embedder = CachedEmbedder(dspy.Embedder(encoder.encode), cache, model_name="fake")
    for _ in range(2):
        search = dspy.retrievers.Embeddings(corpus=["the cat", "the dog", "the bird"], embedder=embedder, k=1)
        assert search("the dog").passages == ["the dog"]
    assert sorted(encoder.texts) == ["the bird", "the cat", "the dog"]
