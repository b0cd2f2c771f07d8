"""model2vec's StaticModels through a cache: real ones, put together from arrays."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, ModelIdentity, ModelNameError
from embstore.encoders import as_encoder
from tests.tiny_models import WORDS, tokenizer, word_vectors

model2vec = pytest.importorskip("model2vec", reason="needs the extra model2vec")


def static_model(vectors: np.ndarray | None = None, **options: Any) -> Any:
    return model2vec.StaticModel(word_vectors() if vectors is None else vectors, tokenizer(), **options)


def identity(model: Any) -> ModelIdentity:
    return as_encoder(model, "static").identity("document")


def test_a_static_model_encodes_each_text_once(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    model = static_model(normalize=True)
    texts = ["the cat sat", "the dog ran", "the cat sat", "nothing that it knows", ""]
    expected = model.encode(texts)
    first = cache.embed(texts, model, model_name="static")
    monkeypatch.setattr(model, "encode", pytest.fail)
    again = cache.embed(texts, model, model_name="static")
    np.testing.assert_allclose(first, expected, atol=1e-6)
    assert np.array_equal(again, first)
    assert cache.stats().n_vectors == 4


def test_queries_and_documents_share_their_vectors() -> None:
    encoder = as_encoder(static_model(), "static")
    assert encoder.identity("query") == encoder.identity("document")
    assert encoder.dim == 4


def test_a_static_model_needs_a_name() -> None:
    with pytest.raises(ModelNameError, match=r"StaticModel.*model_name="):
        as_encoder(static_model(base_model_name="the model that it was distilled from")).identity("document")


def test_what_changes_the_vectors_is_in_the_identity() -> None:
    other_order = tokenizer()
    other_order.model = type(other_order.model)({word: i for i, word in enumerate(reversed(WORDS))}, unk_token="[UNK]")
    rows = np.arange(len(WORDS))
    models = [
        static_model(),
        static_model(normalize=True),
        static_model(max_length=2),
        static_model(word_vectors(seed=1)),
        static_model(word_vectors(dim=3)),
        static_model(word_vectors().astype(np.float16)),
        static_model(weights=np.ones(len(WORDS), np.float32)),
        static_model(token_mapping=rows),
        static_model(token_mapping=rows[::-1].copy()),
        model2vec.StaticModel(word_vectors(), other_order),
    ]
    assert len({identity(model) for model in models}) == len(models)
    assert identity(copy.deepcopy(models[0])) == identity(models[0])


def test_settings_are_read_from_the_live_model(cache: EmbeddingCache) -> None:
    model = static_model()
    plain = cache.embed(["the cat sat"], model, model_name="static")
    model.normalize = True
    (unit,) = cache.embed(["the cat sat"], model, model_name="static")
    assert not np.array_equal(plain[0], unit)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)


def test_lone_surrogates_are_encoded_as_replacement_characters(cache: EmbeddingCache) -> None:
    model = static_model()
    assert np.array_equal(
        cache.embed(["cat \ud800"], model, model_name="static"), cache.embed(["cat \ufffd"], model, model_name="static")
    )
