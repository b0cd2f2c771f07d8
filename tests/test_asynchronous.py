"""The cache for event loops: what is awaited is what a call gives, the loop goes on, nothing is done by halves."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from embstore import (
    AsyncEmbeddingCache,
    EmbeddingCache,
    InvalidInputError,
    InvalidTypeError,
    StoreClosedError,
    StorePathError,
    UnknownModelError,
)
from tests.fakes import CountingEncoder, HookedEncoder

PATIENCE_S = 30

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; one whose event loop is blocked fails."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


class Gate:
    """Holds up the encoder in its thread until the event loop opens it."""

    def __init__(self) -> None:
        self.began, self._opened = threading.Event(), threading.Event()

    def __call__(self, texts: list[str]) -> None:
        self.began.set()
        assert self._opened.wait(PATIENCE_S)

    async def reached(self) -> None:
        while not self.began.is_set():
            await asyncio.sleep(0.001)

    def open(self) -> None:
        self._opened.set()


def test_each_call_gives_what_that_of_the_cache_gives(cache_path: Path, encoder: CountingEncoder) -> None:
    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path) as cache:
            assert np.array_equal(await cache.get("a", "one", encoder), encoder.vector("one"))
            vectors = await cache.get_many(["a", "b"], ["one", "two"], encoder, progress=False)
            assert np.array_equal(vectors, encoder.vectors(["one", "two"]))
            assert np.array_equal(await cache.embed(["one"], encoder), encoder.vectors(["one"]))
            assert np.array_equal(await cache.embed_query("two", encoder), encoder.vector("two"))
            assert await cache.put_many(["c"], ["three"], encoder.vectors(["three"]), model_name="fake") == 1
            doc_ids, matrix = await cache.matrix("fake", doc_ids=["c", "a"])
            assert (doc_ids, matrix.tolist()) == (["c", "a"], encoder.vectors(["three", "one"]).tolist())
            assert await cache.missing(["one", "four"], encoder) == ["four"]
            assert (await cache.count(), await cache.contains("c"), await cache.contains("d")) == (3, True, False)
            assert await cache.invalidate("c") == 1
            assert ((await cache.stats()).n_documents, len(await cache.models())) == (2, 1)
            assert (await cache.prune(dry_run=True)).n_vectors == 0
            assert await cache.verify() == []
        assert encoder.texts == ["one", "two"]

    run(main())


def test_every_method_of_the_cache_has_a_twin() -> None:
    public = {name for name, value in inspect.getmembers(EmbeddingCache) if name[0] != "_" and callable(value)}
    assert public <= set(dir(AsyncEmbeddingCache))
    for name in public - {"close", "iter_matrix", "documents"}:
        assert inspect.iscoroutinefunction(getattr(AsyncEmbeddingCache, name)), name
        assert inspect.signature(getattr(AsyncEmbeddingCache, name)) == inspect.signature(getattr(EmbeddingCache, name))


def test_the_event_loop_goes_on_while_the_model_works(cache_path: Path) -> None:
    gate = Gate()

    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path) as cache:
            slow = asyncio.create_task(cache.embed(["new"], HookedEncoder(gate)))
            await gate.reached()
            assert await cache.count() == 0  # another call does not wait either
            gate.open()
            assert (await slow).shape == (1, 8)

    run(main())


def test_requests_for_one_new_text_encode_it_once(cache_path: Path) -> None:
    gate = Gate()
    encoder = HookedEncoder(gate)

    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path, n_threads=3) as cache:
            requests = [asyncio.create_task(cache.embed(["new"], encoder)) for _ in range(9)]
            await gate.reached()
            gate.open()
            assert all(np.array_equal(got, encoder.vectors(["new"])) for got in await asyncio.gather(*requests))

    run(main())
    assert encoder.calls == [["new"]]


def test_a_call_that_is_cancelled_ends_and_what_was_encoded_is_stored(cache_path: Path) -> None:
    gate = Gate()
    encoder = HookedEncoder(gate)

    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path) as cache:
            request = asyncio.create_task(cache.get_many(["a", "b"], ["one", "two"], encoder))
            await gate.reached()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            gate.open()

    run(main())
    with EmbeddingCache(cache_path) as cache:
        assert cache.missing(["one", "two"], encoder) == []
        assert (len(cache), cache.verify()) == (2, [])


def test_a_call_that_is_cancelled_before_its_turn_does_not_begin(cache_path: Path) -> None:
    gate = Gate()
    encoder = HookedEncoder(gate)

    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path, n_threads=1) as cache:
            first = asyncio.create_task(cache.embed(["one"], encoder))
            await gate.reached()
            second = asyncio.create_task(cache.embed(["two"], encoder))
            await asyncio.sleep(0)
            second.cancel()
            gate.open()
            await first
            assert await cache.missing(["one", "two"], encoder) == ["two"]

    run(main())


def test_pages_and_documents_come_by_async_for(cache_path: Path, encoder: CountingEncoder) -> None:
    texts = {f"doc {i:04}": f"text {i}" for i in range(2500)}

    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path) as cache:
            await cache.get_many(texts, texts.values(), encoder, progress=False)
            pages = [page async for page in cache.iter_matrix("fake", batch_rows=1000)]
            assert [len(doc_ids) for doc_ids, _ in pages] == [1000, 1000, 500]
            for doc_ids, vectors in pages:
                assert np.array_equal(vectors, encoder.vectors([texts[doc_id] for doc_id in doc_ids]))
            assert [document.doc_id async for document in cache.documents(model_name="fake")] == list(texts)
            async for _ in cache.iter_matrix("fake", batch_rows=10):
                break  # whoever has enough holds nobody up
            assert await cache.invalidate("doc 0000") == 1

    run(main())


def test_errors_come_through_as_they_are(cache_path: Path) -> None:
    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path) as cache:
            with pytest.raises(UnknownModelError):
                await cache.matrix("none")
            with pytest.raises(UnknownModelError):
                [page async for page in cache.iter_matrix("none")]
        with pytest.raises(StoreClosedError, match="open a new one"):
            await cache.stats()

    run(main())


def test_a_file_that_cannot_be_used_says_so_when_it_is_entered(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(StorePathError, match="is not a file"):
            await AsyncEmbeddingCache(tmp_path).__aenter__()

    run(main())


def test_a_cache_that_is_open_stays_open(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    async def main() -> None:
        async with AsyncEmbeddingCache(cache) as awaited:
            await awaited.get("a", "one", encoder)

    run(main())
    assert "a" in cache


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_threads": 0}, InvalidInputError),
        ({"n_threads": "4"}, InvalidTypeError),
        ({"timeout_s": 1}, InvalidTypeError),
    ],
)
def test_what_it_cannot_be_opened_with_is_named(
    options: dict[str, Any], error: type[Exception], cache: EmbeddingCache
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        AsyncEmbeddingCache(cache, **options)


def test_variables_of_the_context_are_seen_by_the_encoder(cache_path: Path) -> None:
    request = contextvars.ContextVar("request", default="none")
    seen = []

    async def main() -> None:
        async with AsyncEmbeddingCache(cache_path) as cache:
            request.set("mine")
            await cache.embed(["new"], HookedEncoder(lambda texts: seen.append(request.get())))

    run(main())
    assert seen == ["mine"]
