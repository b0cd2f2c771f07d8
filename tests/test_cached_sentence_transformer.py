"""CachedSentenceTransformer beside the SentenceTransformer that it wraps: real ones of a few numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, InvalidInputError, InvalidTypeError, PrecisionError
from embstore.canary import CANARY_TEXT
from embstore.encoders import as_encoder
from tests.fakes import CountingEncoder
from tests.tiny_models import tokenizer, word_vectors

pytest.importorskip("sentence_transformers", reason="needs the extra sentence-transformers")
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

from embstore.integrations.sentence_transformers import CachedSentenceTransformer

TEXTS = ["the cat sat", "the dog ran", "the cat sat", "question"]
PROMPTS = {"query": "question ", "document": "answer ", "other": "dog "}


def static(seed: int = 0) -> Any:
    return StaticEmbedding(tokenizer(), embedding_weights=word_vectors(dim=16, seed=seed))


def counted(model: Any) -> Any:
    """Let a model note the texts of each call in `calls`, canaries left out."""
    encode = model.encode

    def counting(inputs: Any, *arguments: Any, **options: Any) -> Any:
        if list(inputs) != [CANARY_TEXT]:
            model.calls.append(list(inputs))
        return encode(inputs, *arguments, **options)

    counting.__wrapped__ = encode  # type: ignore[attr-defined]
    model.calls = []
    model.encode = counting
    return model


@pytest.fixture
def plain() -> Any:
    return SentenceTransformer(modules=[static()], device="cpu", prompts=dict(PROMPTS))


@pytest.fixture
def model() -> Any:
    return counted(SentenceTransformer(modules=[static()], device="cpu", prompts=dict(PROMPTS)))


@pytest.fixture
def cached(model: Any, cache: EmbeddingCache) -> CachedSentenceTransformer:
    return CachedSentenceTransformer(model, cache, model_name="tiny")


def assert_same(given: Any, expected: Any) -> None:
    """Compare types, shapes and values; those that a batch of another size moves by its last bit are the same."""
    assert type(given) is type(expected)
    if isinstance(expected, list):
        assert len(given) == len(expected)
        for one, other in zip(given, expected, strict=True):
            assert_same(one, other)
        return
    assert (given.dtype, given.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(np.asarray(given), np.asarray(expected), atol=1e-6)


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "a list": ((TEXTS,), {}),
    "a tuple": ((tuple(TEXTS),), {}),
    "an array": ((np.array(TEXTS),), {}),
    "a text": ((TEXTS[0],), {}),
    "nothing": (([],), {}),
    "a tensor": ((TEXTS,), {"convert_to_tensor": True}),
    "a tensor of a text": ((TEXTS[0],), {"convert_to_tensor": True}),
    "a tensor of nothing": (([],), {"convert_to_tensor": True}),
    "a list of tensors": ((TEXTS,), {"convert_to_numpy": False}),
    "normalised": ((TEXTS,), {"normalize_embeddings": True}),
    "truncated": ((TEXTS,), {"truncate_dim": 8}),
    "truncated and normalised": ((TEXTS,), {"truncate_dim": 8, "normalize_embeddings": True}),
    "a prompt": ((TEXTS,), {"prompt": "cat "}),
    "no prompt": ((TEXTS,), {"prompt": ""}),
    "a prompt by name": ((TEXTS,), {"prompt_name": "other"}),
    "by position": ((TEXTS, "other", None, 2, False, "sentence_embedding", "float32", False, True), {}),
    "binary": ((TEXTS,), {"precision": "binary"}),
    "unsigned binary": ((TEXTS,), {"precision": "ubinary"}),
    "by name": ((), {"inputs": TEXTS, "batch_size": 1, "show_progress_bar": False, "device": "cpu"}),
}


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize("call", CALLS)
def test_each_call_gives_what_the_model_gives_and_encodes_once(
    call: str, method: str, plain: Any, model: Any, cached: Any
) -> None:
    arguments, options = CALLS[call]
    expected = getattr(plain, method)(*arguments, **options)
    assert_same(getattr(cached, method)(*arguments, **options), expected)
    model.calls.clear()
    assert_same(getattr(cached, method)(*arguments, **options), expected)
    assert [texts for texts in model.calls if texts] == []


def test_all_calls_after_one_another_give_each_its_own_vectors(plain: Any, cached: Any) -> None:
    for _ in range(2):
        for method in ("encode", "encode_query", "encode_document"):
            for arguments, options in CALLS.values():
                expected = getattr(plain, method)(*arguments, **options)
                assert_same(getattr(cached, method)(*arguments, **options), expected)


def test_plain_calls_share_their_vectors_with_the_cache(model: Any, cached: Any, cache: EmbeddingCache) -> None:
    cache.embed(TEXTS, model, model_name="tiny")
    cache.embed_query(TEXTS, model, model_name="tiny")
    model.calls.clear()
    cached.encode_document(TEXTS)
    cached.encode_query(TEXTS)
    cached.encode(TEXTS, prompt_name="document")
    cached.encode(TEXTS, prompt=PROMPTS["query"])
    assert model.calls == []
    cached.encode(TEXTS)  # without a prompt: a third kind
    assert len(model.calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_shorter_or_of_length_1_is_made_of_what_is_stored_with_the_bits_of_the_library(
    plain: Any, model: Any, cached: Any, dtype: torch.dtype
) -> None:
    plain.to(dtype), model.to(dtype)
    cached.encode(TEXTS)
    model.calls.clear()
    for truncate_dim in (None, 16, 8, 3, 100):
        for normalize in (False, True):
            options = {"truncate_dim": truncate_dim, "normalize_embeddings": normalize}
            expected = plain.encode(TEXTS, convert_to_tensor=True, **options).float().numpy()
            given = cached.encode(TEXTS, **options)
            assert (given.dtype, given.shape) == (np.float32, expected.shape)
            assert given.tobytes() == expected.tobytes()
    assert model.calls == []


def test_more_values_than_the_model_is_set_to_give_are_encoded_for_themselves(
    plain: Any, model: Any, cached: Any
) -> None:
    plain.truncate_dim = model.truncate_dim = 4
    for truncate_dim in (None, 2, 4, 8, 16, None):
        expected = plain.encode(TEXTS, truncate_dim=truncate_dim)
        assert_same(cached.encode(TEXTS, truncate_dim=truncate_dim), expected)
    assert len(model.calls) == 3  # of 4, 8 and 16 values


def test_a_router_sends_texts_the_way_of_their_task(cache: EmbeddingCache) -> None:
    def routed() -> Any:
        router = Router.for_query_document(query_modules=[static(1)], document_modules=[static(2)])
        return SentenceTransformer(modules=[router], device="cpu")

    plain, cached = routed(), CachedSentenceTransformer(counted(routed()), cache, model_name="routed")
    for _ in range(2):
        assert_same(cached.encode_query(TEXTS), plain.encode_query(TEXTS))
        assert_same(cached.encode_document(TEXTS), plain.encode_document(TEXTS))
        assert_same(cached.encode(TEXTS, task="query"), plain.encode(TEXTS, task="query"))
        assert_same(cached.encode(TEXTS), plain.encode(TEXTS))
    assert len(cached.calls) == 3


def test_a_module_that_takes_the_task_gives_queries_vectors_of_their_own(cache: EmbeddingCache) -> None:
    class Tasked(StaticEmbedding):
        forward_kwargs = {"task"}  # noqa: RUF012

        def forward(self, features: Any, task: str | None = None, **_: Any) -> Any:
            features = super().forward(features)
            if task == "query":
                features["sentence_embedding"] = features["sentence_embedding"] * 3
            return features

    model = SentenceTransformer(modules=[Tasked(tokenizer(), embedding_weights=word_vectors(16))], device="cpu")
    assert as_encoder(model, "tasked").identity("query") != as_encoder(model, "tasked").identity("document")
    cached = CachedSentenceTransformer(model, cache, model_name="tasked")
    assert_same(cached.encode_document(TEXTS), model.encode_document(TEXTS))
    assert_same(cached.encode_query(TEXTS), model.encode_query(TEXTS))
    assert_same(cached.encode(TEXTS, task="another"), model.encode(TEXTS, task="another"))


def test_the_models_settings_are_read_at_each_call(plain: Any, cached: Any) -> None:
    cached.encode_query(TEXTS)
    for wrapped in (plain, cached):
        wrapped.prompts["query"] = "dog "
        wrapped.default_prompt_name = "other"
        wrapped.truncate_dim = 4
    assert_same(cached.encode_query(TEXTS), plain.encode_query(TEXTS))
    assert_same(cached.encode(TEXTS), plain.encode(TEXTS))
    with plain.truncate_embeddings(2), cached.truncate_embeddings(2):
        assert_same(cached.encode(TEXTS), plain.encode(TEXTS))
    assert cached.encode(TEXTS).shape == (4, 4)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_vectors_that_depend_on_their_batch_are_refused(cached: Any, model: Any, precision: str) -> None:
    with pytest.raises(PrecisionError, match=precision):
        cached.encode(TEXTS, precision=precision)
    assert model.calls == []


@pytest.mark.parametrize("options", [{"output_value": "token_embeddings"}, {"output_value": None}, {"odd": 1}])
def test_what_is_no_vector_of_a_text_alone_is_refused_with_what_to_call(cached: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"\.model\.encode"):
        cached.encode(TEXTS, **options)


def test_inputs_that_are_no_texts_are_refused(cached: Any) -> None:
    with pytest.raises(InvalidTypeError, match="position 1 is dict"):
        cached.encode(["the cat", {"text": "the dog"}])


def test_an_unknown_prompt_name_is_refused_with_those_that_are_known(cached: Any) -> None:
    with pytest.raises(InvalidInputError, match="'other', 'query'"):
        cached.encode(TEXTS, prompt_name="passage")


def test_the_older_name_of_inputs_is_understood(plain: Any, cached: Any) -> None:
    assert_same(cached.encode_query(sentences=TEXTS), plain.encode_query(TEXTS))


def test_everything_else_is_the_models_own(cached: Any, model: Any) -> None:
    assert cached.get_embedding_dimension() == 16
    assert cached.to("cpu") is cached
    assert cached.eval() is cached
    assert (cached[0], len(cached)) == (model[0], 1)
    assert cached.tokenizer is model.tokenizer
    torch.testing.assert_close(cached.similarity(cached.encode(TEXTS), cached.encode(TEXTS)).diag(), torch.ones(4))
    cached.default_prompt_name = "other"
    assert model.default_prompt_name == "other"
    assert copy.copy(cached).model is model
    with pytest.raises(AttributeError, match="no_such_thing"):
        cached.no_such_thing  # noqa: B018


def test_a_path_is_opened_and_closed_and_a_cache_is_left_open(
    plain: Any, cache_path: Path, tmp_path: Path, cache: EmbeddingCache
) -> None:
    with CachedSentenceTransformer(plain, tmp_path / "another.db", model_name="tiny") as cached:
        first = cached.encode(TEXTS)
    with CachedSentenceTransformer(plain, tmp_path / "another.db", model_name="tiny") as cached:
        assert np.array_equal(cached.encode(TEXTS), first)
    with CachedSentenceTransformer(plain, cache, model_name="tiny"):
        pass
    assert len(cache) == 0


def test_what_is_no_sentence_transformer_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidTypeError, match="CountingEncoder, not a SentenceTransformer"):
        CachedSentenceTransformer(CountingEncoder(), cache)
