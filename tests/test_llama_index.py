"""LlamaIndex's embedding models through a cache."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

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

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from embstore.integrations.llama_index import EmbstoreEmbedding


class FakeEmbedding(BaseEmbedding):
    """An embedding model with the vectors and the counts of an encoder of the tests."""

    dimensions: int | None = None
    query_instruction: str | None = None
    api_key: str = "secret"
    _encoder: CountingEncoder = PrivateAttr()

    def __init__(self, encoder: CountingEncoder | None = None, **fields: Any) -> None:
        super().__init__(**{"model_name": "fake", **fields})
        self._encoder = QueryEncoder() if encoder is None else encoder

    @property
    def encoder(self) -> CountingEncoder:
        return self._encoder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return getattr(self._encoder, "encode_query", self._encoder.encode)([query])[0].tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        raise AssertionError("the synchronous method is called in a thread")


@pytest.fixture
def underlying() -> FakeEmbedding:
    return FakeEmbedding()


@pytest.fixture
def embedding(underlying: FakeEmbedding, cache: EmbeddingCache) -> EmbstoreEmbedding:
    return EmbstoreEmbedding(underlying=underlying, cache=cache)


def test_a_text_is_embedded_once(embedding: EmbstoreEmbedding, underlying: FakeEmbedding) -> None:
    texts = ["b", "a", "b", ""]
    first = embedding.get_text_embedding_batch(texts)
    assert first == embedding.get_text_embedding_batch(texts) == QueryEncoder().vectors(texts).tolist()
    assert embedding.get_text_embedding("a") == first[1]
    assert sorted(underlying.encoder.texts) == ["", "a", "b"]


def test_a_query_and_a_text_share_no_vector(embedding: EmbstoreEmbedding, underlying: FakeEmbedding) -> None:
    text, query = embedding.get_text_embedding("a"), embedding.get_query_embedding("a")
    assert text == underlying.encoder.vector("a").tolist()
    assert query == embedding.get_query_embedding("a") == underlying.encoder.vector("query: a").tolist()
    assert underlying.encoder.texts == ["a", "a"]


def test_queries_that_are_texts_share_their_vectors_where_that_is_said(cache: EmbeddingCache) -> None:
    underlying = FakeEmbedding(CountingEncoder())
    embedding = EmbstoreEmbedding(underlying, cache, same_queries=True)
    assert embedding.get_query_embedding("a") == embedding.get_text_embedding("a")
    assert underlying.encoder.texts == ["a"]


def test_the_underlying_is_given_batches_of_its_own_size(cache: EmbeddingCache) -> None:
    underlying = FakeEmbedding(embed_batch_size=2)
    EmbstoreEmbedding(underlying, cache, embed_batch_size=3).get_text_embedding_batch([*"abcdefg"])
    assert sorted(map(len, underlying.encoder.calls)) == [1, 1, 1, 2, 2]


def test_an_index_is_built_and_asked(cache: EmbeddingCache) -> None:
    nodes = [TextNode(text=text, id_=text) for text in ("cat", "dog", "fish")]
    for expected in (["cat", "dog", "fish"], []):
        underlying = FakeEmbedding(CountingEncoder())
        embedding = EmbstoreEmbedding(underlying, cache, same_queries=True)
        index = VectorStoreIndex([node.model_copy() for node in nodes], embed_model=embedding)
        (hit,) = index.as_retriever(similarity_top_k=1).retrieve("dog")
        assert (hit.node_id, hit.score) == ("dog", pytest.approx(1))
        assert sorted(underlying.encoder.texts) == expected


def test_a_pipeline_embeds_nodes(embedding: EmbstoreEmbedding, underlying: FakeEmbedding) -> None:
    nodes = IngestionPipeline(transformations=[embedding], disable_cache=True).run(
        nodes=[TextNode(text="a"), TextNode(text="b"), TextNode(text="a")]
    )
    assert [node.embedding for node in nodes] == QueryEncoder().vectors(["a", "b", "a"]).tolist()
    assert sorted(underlying.encoder.texts) == ["a", "b"]


def test_the_event_loop_goes_on_while_a_text_is_embedded(cache: EmbeddingCache) -> None:
    loop_went_on = threading.Event()

    class Waiting(FakeEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            assert loop_went_on.wait(30)
            return super()._get_text_embeddings(texts)

        def _get_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embeddings([query])[0]

    async def go_on() -> None:
        loop_went_on.set()

    async def ask(embedding: EmbstoreEmbedding) -> list[Any]:
        answers = []
        for question in (
            embedding.aget_text_embedding_batch(["a", "b"]),
            embedding.aget_text_embedding("c"),
            embedding.aget_query_embedding("a"),
        ):
            loop_went_on.clear()
            answers.append((await asyncio.gather(question, go_on()))[0])
        return answers

    a, b, c = QueryEncoder().vectors(["a", "b", "c"]).tolist()
    assert asyncio.run(ask(EmbstoreEmbedding(Waiting(), cache))) == [[a, b], c, a]


def test_what_changes_the_vectors_is_in_the_identity(cache: EmbeddingCache) -> None:
    underlying = FakeEmbedding(dimensions=256, query_instruction="query: ")
    encoder = EmbstoreEmbedding(underlying, cache, model_settings={"layers": 6})._encoder
    of_texts = {"class": "FakeEmbedding", "dimensions": 256, "layers": 6}
    assert encoder.identity("document").settings == of_texts
    assert encoder.identity("query").settings == {**of_texts, "query_instruction": "query: ", "role": "query"}
    assert encoder.model_name == EmbstoreEmbedding(underlying, cache).model_name == "fake"


def test_a_cache_that_knows_texts_alone_is_refused_wherever_it_is(
    cache: EmbeddingCache, embedding: EmbstoreEmbedding, underlying: FakeEmbedding
) -> None:
    for make in (
        lambda: EmbstoreEmbedding(FakeEmbedding(), cache, embeddings_cache=SimpleKVStore()),
        lambda: EmbstoreEmbedding(FakeEmbedding(embeddings_cache=SimpleKVStore()), cache),
        lambda: setattr(embedding, "embeddings_cache", SimpleKVStore()),
    ):
        with pytest.raises(InvalidInputError, match="embeddings_cache"):
            make()
    underlying.embeddings_cache = SimpleKVStore()
    with pytest.raises(InvalidInputError, match="embeddings_cache"):
        embedding.get_text_embedding("a")
    assert (cache.stats().n_vectors, underlying.encoder.n_texts) == (0, 0)


def test_another_process_opens_the_file_anew(embedding: EmbstoreEmbedding) -> None:
    vector = embedding.get_text_embedding("a")
    with pickle.loads(pickle.dumps(embedding)).cache as cache:
        assert cache is not embedding.cache
        assert (cache.path, cache.stats().n_vectors) == (embedding.cache.path, 1)
    assert embedding.get_text_embedding("a") == vector


def test_what_it_says_of_itself_names_the_model(embedding: EmbstoreEmbedding) -> None:
    said = embedding.to_dict()
    assert (said["class_name"], said["model_name"], said["underlying"]["dimensions"]) == (
        "EmbstoreEmbedding",
        "fake",
        None,
    )


def test_a_path_is_opened_and_closed(cache_path: Path, underlying: FakeEmbedding) -> None:
    with EmbstoreEmbedding(underlying, cache_path) as embedding:
        embedding.get_text_embedding("a")
    with pytest.raises(StoreClosedError):
        embedding.get_text_embedding("a")
    with EmbeddingCache(cache_path) as cache:
        with EmbstoreEmbedding(underlying, cache) as embedding:
            embedding.get_text_embedding("a")
        assert cache.stats().n_vectors == 1
    assert underlying.encoder.texts == ["a"]


def test_another_model_behind_a_name_is_found_out(cache: EmbeddingCache, embedding: EmbstoreEmbedding) -> None:
    embedding.get_text_embedding("a")
    embedding.get_query_embedding("a")
    other = EmbstoreEmbedding(FakeEmbedding(QueryEncoder(seed=1)), cache)
    for ask in (other.get_text_embedding, other.get_query_embedding):
        with pytest.raises(ModelChangedError):
            ask("a")


def test_an_answer_that_is_not_whole_stores_nothing(cache: EmbeddingCache) -> None:
    class Broken(FakeEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return super()._get_text_embeddings(texts[:1])

    with pytest.raises(EncoderOutputError, match="'fake'"):
        EmbstoreEmbedding(Broken(), cache).get_text_embedding_batch(["a", "b"])
    assert cache.stats().n_vectors == 0


def test_what_cannot_be_used_is_refused_before_a_file_is_made(cache_path: Path) -> None:
    for underlying, options, error, offender in (
        (CountingEncoder(), {}, InvalidTypeError, "CountingEncoder"),
        (FakeEmbedding(model_name="unknown"), {}, ModelNameError, r"FakeEmbedding.*model_name="),
        (FakeEmbedding(), {"model_settings": {"role": "query"}}, InvalidInputError, "'role'"),
        (FakeEmbedding(), {"embed_batch_size": 0}, ValueError, "embed_batch_size"),
    ):
        with pytest.raises(error, match=offender):
            EmbstoreEmbedding(underlying, cache_path, **options)  # type: ignore[arg-type]
    assert not cache_path.exists()


def test_without_the_package_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "embstore.integrations.llama_index")
    monkeypatch.setitem(sys.modules, "llama_index.core.base.embeddings.base", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[llama-index\]"'):
        import embstore.integrations.llama_index  # noqa: F401
