"""fastembed's TextEmbeddings through a cache: the real class on ONNX files of a few numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, ModelIdentity
from embstore.encoders import as_encoder
from tests.tiny_models import onnx_folder, word_vectors

fastembed = pytest.importorskip("fastembed", reason="needs the extra fastembed")

TEXTS = ["the cat sat", "the dog ran", "the cat sat", "question"]
_numbers = itertools.count()  # the library's list of custom models is one a process


def text_embedding(folder: Path, *, pooling: str = "MEAN", normalization: bool = True) -> Any:
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"tests/tiny-{next(_numbers)}"
    fastembed.TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType[pooling],
        normalization=normalization,
        sources=ModelSource(hf=name),
        dim=4,
        model_file="model.onnx",
    )
    return fastembed.TextEmbedding(name, specific_model_path=str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return onnx_folder(tmp_path / "tiny", word_vectors())


def identity(model: Any, role: Any = "document") -> ModelIdentity:
    return as_encoder(model, "fast").identity(role)


def asking(model: Any) -> Any:
    """Let a model put a word before its queries, as some of the library's do."""

    class Asking(type(model.model)):  # type: ignore[misc]
        def query_embed(self, query: Any, **options: Any) -> Iterator[np.ndarray]:
            yield from self.embed([f"question {text}" for text in query], **options)

    model.model.__class__ = Asking
    return model


def test_a_text_embedding_encodes_each_text_once(
    cache: EmbeddingCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = text_embedding(folder)
    expected = np.stack(list(model.embed(TEXTS)))
    first = cache.embed(TEXTS, model)
    monkeypatch.setattr(model, "passage_embed", None)  # whatever calls it now fails
    again = cache.embed(TEXTS, model)
    np.testing.assert_allclose(first, expected, atol=1e-6)
    assert np.array_equal(again, first)
    assert [info.model_name for info in cache.models()] == [model.model_name]


def test_queries_share_the_documents_vectors_unless_the_model_encodes_them_otherwise(
    cache: EmbeddingCache, folder: Path
) -> None:
    model = text_embedding(folder)
    assert identity(model, "query") == identity(model)
    assert np.array_equal(cache.embed_query("the cat", model), cache.embed(["the cat"], model)[0])
    asking(model)
    assert identity(model, "query") == ModelIdentity.of("fast", {**identity(model).settings, "role": "query"})
    np.testing.assert_allclose(
        cache.embed_query("the cat", model), next(iter(model.embed(["question the cat"]))), atol=1e-6
    )
    assert not np.array_equal(cache.embed_query("the cat", model), cache.embed(["the cat"], model)[0])


def test_what_changes_the_vectors_is_in_the_identity(folder: Path, tmp_path: Path) -> None:
    models = [
        text_embedding(folder),
        text_embedding(folder, pooling="CLS"),
        text_embedding(folder, normalization=False),
        text_embedding(onnx_folder(tmp_path / "other", word_vectors(seed=1))),
    ]
    assert len({identity(model) for model in models}) == len(models)
    assert identity(text_embedding(onnx_folder(tmp_path / "copy", word_vectors()))) == identity(models[0])


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    model = text_embedding(onnx_folder(tmp_path / "models--tests--tiny" / "snapshots" / commit, word_vectors()))
    assert identity(model) == ModelIdentity.of("fast", {"normalization": True, "pooling": "MEAN", "revision": commit})


def test_lone_surrogates_are_encoded_as_replacement_characters(cache: EmbeddingCache, folder: Path) -> None:
    model = text_embedding(folder)
    assert np.array_equal(cache.embed(["cat \ud800"], model), cache.embed(["cat \ufffd"], model))


def test_its_dimension_is_known_without_encoding(folder: Path) -> None:
    assert as_encoder(text_embedding(folder)).dim == 4
