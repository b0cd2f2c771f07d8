"""Adapters on a server: what they write down of its URL has no password."""

from __future__ import annotations

import json
import pickle
from urllib.parse import urlsplit

import pytest

from tests.fakes import CountingEncoder


@pytest.fixture
def password(postgres_url: str) -> str:
    secret = urlsplit(postgres_url).password
    if secret is None:
        pytest.skip("the server is asked without a password")
    return secret


def test_a_collection_of_chroma_notes_no_password(postgres_url: str, password: str) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    from embstore.integrations.chroma import EmbstoreEmbeddingFunction
    from tests.test_chroma_function import Fake

    function = EmbstoreEmbeddingFunction(Fake(), postgres_url)
    assert len(function(["one", "two"])) == 2
    assert password not in json.dumps(function.get_config())
    assert EmbstoreEmbeddingFunction.build_from_config(function.get_config()) is function
    function.close()


def test_a_pipeline_of_haystack_is_saved_without_a_password(postgres_url: str, password: str) -> None:
    pytest.importorskip("haystack", reason="needs the extra haystack")
    from haystack import Document
    from haystack.components.embedders import MockDocumentEmbedder

    from embstore.integrations.haystack import EmbstoreDocumentEmbedder

    with EmbstoreDocumentEmbedder(MockDocumentEmbedder(dimension=4), postgres_url) as embedder:
        assert embedder.run(documents=[Document(content="one")])["meta"]["n_encoded"] == 1
        assert password not in json.dumps(embedder.to_dict())
        assert embedder.to_dict()["init_parameters"]["cache"] == embedder.cache.location


def test_embeddings_of_langchain_are_sent_without_a_password(
    postgres_url: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from embstore.integrations.langchain import EmbstoreEmbeddings

    with EmbstoreEmbeddings(DeterministicFakeEmbedding(size=4), postgres_url, model_name="size 4") as embeddings:
        vectors = embeddings.embed_documents(["one"])
        sent = pickle.dumps(embeddings)
    assert password.encode() not in sent
    monkeypatch.setenv("PGPASSWORD", password)
    with pickle.loads(sent) as arrived:
        assert arrived.embed_documents(["one"]) == vectors


def test_a_function_of_texts_asks_a_server_first(postgres_url: str) -> None:
    from embstore.integrations.dspy import CachedEmbedder

    encoder = CountingEncoder()
    for _ in range(2):
        with CachedEmbedder(encoder.encode, postgres_url, model_name="function") as embedder:
            embedder(["one", "two", "one"])
    assert encoder.n_texts == 2
