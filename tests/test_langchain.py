"""LangChain's embeddings through a cache: its own tests, and what they leave out."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    MissingExtraError,
    ModelChangedError,
    ModelNameError,
    StoreClosedError,
)
from tests.fakes import CountingEncoder, QueryEncoder

pytest.importorskip("langchain_tests", reason="needs langchain-tests")
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from embstore.integrations.langchain import EmbstoreEmbeddings


class FakeEmbeddings(Embeddings):
    """Embeddings with the vectors and the counts of an encoder of the tests."""

    def __init__(self, encoder: CountingEncoder | None = None, **attributes: Any) -> None:
        self.encoder = QueryEncoder() if encoder is None else encoder
        vars(self).update({"model": "fake", **attributes})

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.encoder.encode(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return getattr(self.encoder, "encode_query", self.encoder.encode)([text])[0].tolist()


@pytest.fixture
def underlying() -> FakeEmbeddings:
    return FakeEmbeddings()


@pytest.fixture
def embeddings(underlying: FakeEmbeddings, cache: EmbeddingCache) -> EmbstoreEmbeddings:
    return EmbstoreEmbeddings(underlying, cache)


def settings_of(cache: EmbeddingCache, underlying: Embeddings, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings under which a document and a query are stored."""
    encoder = EmbstoreEmbeddings(underlying, cache, **options)._encoder
    return encoder.identity("document").settings, encoder.identity("query").settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class OnACache:
    """What both of LangChain's test classes ask for."""

    @pytest.fixture(autouse=True)
    def _with(self, cache: EmbeddingCache) -> None:
        self.cache = cache

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return EmbstoreEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"underlying": DeterministicFakeEmbedding(size=8), "cache": self.cache, "model_name": "fake"}


class TestLangChainsUnitTests(OnACache, EmbeddingsUnitTests):
    pass


@pytest.mark.anyio
class TestLangChainsIntegrationTests(OnACache, EmbeddingsIntegrationTests):
    pass


def test_a_text_is_embedded_once(embeddings: EmbstoreEmbeddings, underlying: FakeEmbeddings) -> None:
    texts = ["b", "a", "b", ""]
    first = embeddings.embed_documents(texts)
    again = embeddings.embed_documents(texts)
    assert first == again == QueryEncoder().vectors(texts).tolist()
    assert sorted(underlying.encoder.texts) == ["", "a", "b"]


def test_nothing_is_asked_for_no_texts(embeddings: EmbstoreEmbeddings, underlying: FakeEmbeddings) -> None:
    assert embeddings.embed_documents([]) == []
    assert (underlying.encoder.n_texts, underlying.encoder.n_canaries) == (0, 0)


def test_a_query_and_a_document_share_no_vector(embeddings: EmbstoreEmbeddings, underlying: FakeEmbeddings) -> None:
    (document,) = embeddings.embed_documents(["a"])
    query = embeddings.embed_query("a")
    assert document == underlying.encoder.vector("a").tolist()
    assert query == embeddings.embed_query("a") == underlying.encoder.vector("query: a").tolist()
    assert underlying.encoder.texts == ["a", "a"]


def test_queries_that_are_documents_share_their_vectors_where_that_is_said(cache: EmbeddingCache) -> None:
    underlying = FakeEmbeddings(CountingEncoder())
    embeddings = EmbstoreEmbeddings(underlying, cache, same_queries=True)
    assert [embeddings.embed_query("a")] == embeddings.embed_documents(["a"])
    assert underlying.encoder.texts == ["a"]


def test_a_path_is_opened_and_closed(cache_path: Path, underlying: FakeEmbeddings) -> None:
    with EmbstoreEmbeddings(underlying, cache_path) as embeddings:
        embeddings.embed_documents(["a"])
    with pytest.raises(StoreClosedError):
        embeddings.embed_documents(["a"])
    with EmbeddingCache(cache_path) as cache, EmbstoreEmbeddings(FakeEmbeddings(), cache) as embeddings:
        embeddings.embed_documents(["a"])
        assert embeddings.underlying.encoder.texts == []  # type: ignore[attr-defined]
    with pytest.raises(StoreClosedError):
        cache.stats()


def test_a_cache_that_was_open_stays_open(cache: EmbeddingCache, underlying: FakeEmbeddings) -> None:
    with EmbstoreEmbeddings(underlying, cache) as embeddings:
        embeddings.embed_documents(["a"])
    assert cache.stats().n_vectors == 1


def test_the_event_loop_goes_on_while_a_text_is_embedded(cache: EmbeddingCache) -> None:
    loop_went_on = threading.Event()

    class Waiting(FakeEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            assert loop_went_on.wait(30)
            return super().embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    async def go_on() -> None:
        loop_went_on.set()

    async def ask(embeddings: EmbstoreEmbeddings) -> tuple[list[list[float]], list[float]]:
        documents, _ = await asyncio.gather(embeddings.aembed_documents(["a", "b"]), go_on())
        loop_went_on.clear()
        query, _ = await asyncio.gather(embeddings.aembed_query("a"), go_on())
        return documents, query

    documents, query = asyncio.run(ask(EmbstoreEmbeddings(Waiting(), cache)))
    assert documents == QueryEncoder().vectors(["a", "b"]).tolist()
    assert query == documents[0]


def test_calls_at_once_embed_a_text_once(embeddings: EmbstoreEmbeddings, underlying: FakeEmbeddings) -> None:
    async def ask() -> list[list[list[float]]]:
        return await asyncio.gather(*(embeddings.aembed_documents(["a", "b"]) for _ in range(8)))

    assert asyncio.run(ask()) == [QueryEncoder().vectors(["a", "b"]).tolist()] * 8
    assert sorted(underlying.encoder.texts) == ["a", "b"]


def test_what_changes_the_vectors_is_in_the_identity(cache: EmbeddingCache) -> None:
    class Task(Enum):
        CLUSTERING = "clustering"

    assert settings_of(
        cache,
        FakeEmbeddings(
            dimensions=256,
            normalize=True,
            task_type=Task.CLUSTERING,
            base_url="https://user:secret@models.example.org:8080/v1/?key=secret",
            encode_kwargs={"normalize_embeddings": True, "batch_size": 32, "prompt": "passage: "},
            model_kwargs={"revision": "abc", "token": "secret"},
            query_encode_kwargs={"prompt": "query: "},
            api_key="secret",
            timeout=3,
            revision=None,
        ),
        model_settings={"prompts": 3},
    )[1] == {
        "role": "query",
        "class": "FakeEmbeddings",
        "dimensions": 256,
        "normalize": True,
        "task_type": "clustering",
        "base_url": "https://models.example.org:8080/v1",
        "encode_kwargs.normalize_embeddings": True,
        "encode_kwargs.prompt": "passage: ",
        "model_kwargs.revision": "abc",
        "query_encode_kwargs.prompt": "query: ",
        "prompts": 3,
    }


def test_another_query_prompt_leaves_documents_as_they_are(cache: EmbeddingCache) -> None:
    documents, queries = zip(
        *(
            settings_of(cache, FakeEmbeddings(query_instruction=prompt, query_encode_kwargs={"prompt": prompt}))
            for prompt in ("one", "two")
        ),
        strict=True,
    )
    assert documents[0] == documents[1] == {"class": "FakeEmbeddings"}
    assert queries[0] != queries[1]


def test_settings_are_read_from_the_live_object(cache: EmbeddingCache, underlying: FakeEmbeddings) -> None:
    embeddings = EmbstoreEmbeddings(underlying, cache)
    embeddings.embed_documents(["a"])
    underlying.dimensions = 5  # type: ignore[attr-defined]
    underlying.encoder = QueryEncoder(dim=5)
    assert [len(vector) for vector in embeddings.embed_documents(["a"])] == [5]


def test_another_model_behind_a_name_is_found_out(cache: EmbeddingCache, embeddings: EmbstoreEmbeddings) -> None:
    embeddings.embed_documents(["a"])
    embeddings.embed_query("a")
    other = EmbstoreEmbeddings(FakeEmbeddings(QueryEncoder(seed=1)), cache)
    for ask in (lambda: other.embed_documents(["a"]), lambda: other.embed_query("a")):
        with pytest.raises(ModelChangedError):
            ask()


@pytest.mark.parametrize("answer", [[[1.0]], [[1.0, 2.0], [float("nan"), 1.0]], [[1.0, 2.0], [1.0]], None])
def test_an_answer_that_is_not_whole_stores_nothing(cache: EmbeddingCache, answer: Any) -> None:
    class Broken(FakeEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return answer if len(texts) > 1 else super().embed_documents(texts)

    with pytest.raises(EncoderOutputError, match="'fake'"):
        EmbstoreEmbeddings(Broken(), cache).embed_documents(["a", "b"])
    assert cache.stats().n_vectors == 0


def test_the_underlying_is_given_no_more_texts_than_a_batch(cache: EmbeddingCache, underlying: FakeEmbeddings) -> None:
    EmbstoreEmbeddings(underlying, cache, batch_size=2).embed_documents(["a", "b", "c", "d", "e"])
    assert sorted(map(len, underlying.encoder.calls)) == [1, 2, 2]


@pytest.mark.parametrize(
    ("options", "offender"),
    [
        ({"model_name": ""}, "model_name"),
        ({"model_settings": {"role": "query"}}, "'role'"),
        ({"model_settings": {"dtype": "float16"}}, "'dtype'"),
        ({"model_settings": {"prompts": ["query: "]}}, "'prompts'"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_used_is_refused_before_a_file_is_made(
    cache_path: Path, options: dict[str, Any], offender: str
) -> None:
    with pytest.raises(InvalidInputError, match=offender):
        EmbstoreEmbeddings(FakeEmbeddings(), cache_path, **options)
    assert not cache_path.exists()


def test_a_name_is_needed(cache: EmbeddingCache) -> None:
    with pytest.raises(ModelNameError, match=r"DeterministicFakeEmbedding.*model_name="):
        EmbstoreEmbeddings(DeterministicFakeEmbedding(size=8), cache)


def test_only_embeddings_are_taken(cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidTypeError, match="CountingEncoder"):
        EmbstoreEmbeddings(CountingEncoder(), cache)  # type: ignore[arg-type]


def test_without_the_package_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "embstore.integrations.langchain")
    monkeypatch.setitem(sys.modules, "langchain_core.embeddings", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[langchain\]"'):
        import embstore.integrations.langchain  # noqa: F401


def test_vectors_are_the_stored_ones_on_a_miss_and_on_a_hit(cache: EmbeddingCache) -> None:
    """float64 in, float32 out, both times."""
    embeddings = EmbstoreEmbeddings(DeterministicFakeEmbedding(size=8), cache, model_name="fake")
    miss, hit = embeddings.embed_documents(["a"]), embeddings.embed_documents(["a"])
    assert miss == hit == np.float32(DeterministicFakeEmbedding(size=8).embed_documents(["a"])).tolist()


def test_another_process_opens_the_file_anew(cache_path: Path) -> None:
    options = {"model_name": "size 8", "model_settings": {"layers": 6}, "same_queries": True, "batch_size": 7}
    with EmbstoreEmbeddings(DeterministicFakeEmbedding(size=8), cache_path, **options) as embeddings:
        vectors = embeddings.embed_documents(["one", "two"])
        sent = pickle.dumps(embeddings)
    with pickle.loads(sent) as arrived:
        assert arrived.embed_query("two") == vectors[1]
        assert (arrived.batch_size, len(arrived.cache.models()), arrived.cache.stats().n_vectors) == (7, 1, 2)
