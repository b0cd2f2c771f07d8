"""LangChain's ByteStore in the file of a cache: its own tests, and a CacheBackedEmbeddings on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embstore import EmbeddingCache, InvalidInputError, InvalidTypeError, StoreClosedError
from tests.files import change

pytest.importorskip("langchain_tests", reason="needs langchain-tests")
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests

from embstore.integrations.langchain import EmbstoreByteStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(cache: EmbeddingCache) -> EmbstoreByteStore:
    return EmbstoreByteStore(cache)


class InACache:
    """What both of LangChain's test classes ask for."""

    @pytest.fixture
    def kv_store(self, store: EmbstoreByteStore) -> EmbstoreByteStore:
        return store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"", bytes(range(256))


class TestLangChainsTests(InACache, BaseStoreSyncTests[bytes]):
    pass


@pytest.mark.anyio
class TestLangChainsAsynchronousTests(InACache, BaseStoreAsyncTests[bytes]):
    pass


class CountingEmbeddings(DeterministicFakeEmbedding):
    texts: list[str] = []  # noqa: RUF012 (a field, which pydantic copies)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts.extend(texts)
        return super().embed_documents(texts)


def backed(store: EmbstoreByteStore, namespace: str = "fake") -> tuple[Any, CountingEmbeddings]:
    embeddings = pytest.importorskip("langchain_classic.embeddings", reason="needs langchain-classic")
    underlying = CountingEmbeddings(size=8)
    cached: Embeddings = embeddings.CacheBackedEmbeddings.from_bytes_store(
        underlying, store, namespace=namespace, key_encoder="sha256"
    )
    return cached, underlying


def test_a_cache_backed_embeddings_finds_its_vectors_again(cache_path: Path) -> None:
    texts = ["a", "größer 🙂", ""]
    for expected in (texts, []):
        with EmbstoreByteStore(cache_path) as store:
            embeddings, underlying = backed(store)
            assert embeddings.embed_documents(texts) == DeterministicFakeEmbedding(size=8).embed_documents(texts)
            assert underlying.texts == expected
            assert [key[:4] for key in store.yield_keys(prefix="fake")] == ["fake"] * 3
            assert store.cache.verify() == []


def test_a_vector_that_was_damaged_is_embedded_again(cache_path: Path) -> None:
    with EmbstoreByteStore(cache_path) as store:
        embeddings, underlying = backed(store)
        first = embeddings.embed_documents(["a", "b"])
        change(cache_path, "UPDATE byte_values SET value = CAST(replace(value, '0', '1') AS BLOB) WHERE rowid = 2")
        assert embeddings.embed_documents(["a", "b"]) == first
        assert len(underlying.texts) == 3
        assert store.cache.verify() == []


def test_one_bad_pair_leaves_all_as_it_was(store: EmbstoreByteStore) -> None:
    store.mset([("a", b"1")])
    for bad, error in (("text", InvalidTypeError), (None, InvalidTypeError)):
        with pytest.raises(error, match="'c'"):
            store.mset([("a", b"2"), ("b", b"2"), ("c", bad)])  # type: ignore[list-item]
    for ask in (store.mget, store.mdelete):
        with pytest.raises(InvalidInputError, match="surrogate"):
            ask(["a", "\ud800"])
    assert store.mget(["a", "b"]) == [b"1", None]


def test_the_last_of_equal_keys_is_kept(store: EmbstoreByteStore) -> None:
    store.mset([("a", b"1"), ("a", b"2")])
    assert store.mget(["a", "a"]) == [b"2", b"2"]


def test_vectors_and_bytes_share_a_file(cache: EmbeddingCache, store: EmbstoreByteStore) -> None:
    store.mset([("a", b"1")])
    cache.put_many(["a"], ["a"], [[1.0, 2.0]], model_name="fake")
    assert (cache.stats().n_vectors, list(store.yield_keys())) == (1, ["a"])


def test_a_path_is_opened_and_closed(cache_path: Path) -> None:
    with EmbstoreByteStore(cache_path) as store:
        store.mset([("a", b"1")])
    with pytest.raises(StoreClosedError):
        store.mget(["a"])
    with EmbeddingCache(cache_path) as cache:
        with EmbstoreByteStore(cache) as store:
            assert store.mget(["a"]) == [b"1"]
        assert cache.stats().n_vectors == 0
