"""AsyncEmbeddingCache: the cache for servers whose event loop must not wait."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from embstore.cache import EmbeddingCache
from embstore.errors import InvalidTypeError, StoreClosedError
from embstore.inputs import check_count
from embstore.stores.base import DocumentInfo

DOCUMENTS_AT_ONCE = 1000

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _twin(
    method: Callable[Concatenate[EmbeddingCache, P], R],
) -> Callable[Concatenate[AsyncEmbeddingCache, P], Coroutine[Any, Any, R]]:
    """Make a method that awaits one of the cache, with its parameters and what is said of them."""

    @functools.wraps(method)
    async def twin(self: AsyncEmbeddingCache, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.run(lambda cache: method(cache, *args, **kwargs))

    return twin


class AsyncEmbeddingCache:
    """An `EmbeddingCache` whose calls are awaited: each runs in one of a few threads, and the event loop goes on.

    The methods take and give what those of `EmbeddingCache` do. Requests that ask for the same new text at once have
    it encoded once: the first one's thread encodes, the others' wait for it.

    **Cancellation.** A call that has not begun does not begin. One that has begun goes on to its end in its thread, so
    that what the model encoded is stored, and nothing is done by halves; its result or error is dropped.

    Parameters
    ----------
    cache : EmbeddingCache, str or Path
        One that is open, which `close` leaves open; or the file, which is opened by the first call and closed by
        `close`.
    n_threads : int
        How many calls run at once; more wait for their turn. Each has a connection to the file.
    **options
        Those of `EmbeddingCache`, where `cache` is a file.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        `n_threads` is no int of at least 1, or there are options for a cache that is open.
    """

    def __init__(
        self, cache: EmbeddingCache | str | Path = "embeddings.db", *, n_threads: int = 4, **options: Any
    ) -> None:
        is_open = isinstance(cache, EmbeddingCache)
        if is_open and options:
            raise InvalidTypeError(f"{', '.join(options)}: of a cache that is open already; give its path with them")
        self._cache = cache if isinstance(cache, EmbeddingCache) else None
        self._open = functools.partial(EmbeddingCache, cache, **options)  # type: ignore[arg-type]
        self._is_theirs = is_open
        self._opening = threading.Lock()
        self._closed = False
        n_threads = check_count(n_threads, "n_threads")
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="embstore")

    async def __aenter__(self) -> Self:
        await self.run(lambda cache: None)  # a file that cannot be used says so here
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, work: Callable[[EmbeddingCache], T]) -> T:
        """Give what a function of the cache gives, called in one of the threads: for whatever has no method here.

        Raises
        ------
        StoreClosedError
            After `close`. What `work` raises comes through as it is.
        """
        context = contextvars.copy_context()
        try:
            future = self._threads.submit(lambda: context.run(work, self._opened()))
        except RuntimeError as error:
            if not self._closed:
                raise
            raise StoreClosedError("this AsyncEmbeddingCache is closed; open a new one") from error
        return await asyncio.wrap_future(future)

    def _opened(self) -> EmbeddingCache:
        with self._opening:
            if self._cache is None:
                self._cache = self._open()
            return self._cache

    async def close(self) -> None:
        """Wait for the calls that have begun, and close the cache, where it was opened here; the loop goes on."""
        self._closed = True
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._close))

    def _close(self) -> None:
        self._threads.shutdown()
        if self._cache is not None and not self._is_theirs:
            self._cache.close()

    get = _twin(EmbeddingCache.get)
    get_many = _twin(EmbeddingCache.get_many)
    fill = _twin(EmbeddingCache.fill)
    embed = _twin(EmbeddingCache.embed)
    embed_query = _twin(EmbeddingCache.embed_query)
    canary = _twin(EmbeddingCache.canary)
    put_many = _twin(EmbeddingCache.put_many)
    missing = _twin(EmbeddingCache.missing)
    estimate_s = _twin(EmbeddingCache.estimate_s)
    stored_vectors = _twin(EmbeddingCache.stored_vectors)
    stored_model = _twin(EmbeddingCache.stored_model)
    identity_of = _twin(EmbeddingCache.identity_of)
    matrix = _twin(EmbeddingCache.matrix)
    models = _twin(EmbeddingCache.models)
    stats = _twin(EmbeddingCache.stats)
    invalidate = _twin(EmbeddingCache.invalidate)
    clear = _twin(EmbeddingCache.clear)
    prune = _twin(EmbeddingCache.prune)
    rename_model = _twin(EmbeddingCache.rename_model)
    convert = _twin(EmbeddingCache.convert)
    verify = _twin(EmbeddingCache.verify)
    compact = _twin(EmbeddingCache.compact)
    backup = _twin(EmbeddingCache.backup)

    async def contains(self, doc_id: object) -> bool:
        """Tell whether a document is stored, of any model in any collection: ``doc_id in cache``."""
        return await self.run(lambda cache: doc_id in cache)

    async def count(self) -> int:
        """Count the documents, of all models and collections: ``len(cache)``."""
        return await self.run(len)

    def iter_matrix(self, model_name: str, **options: Any) -> AsyncIterator[tuple[list[str], Any]]:
        """Read the pages of `EmbeddingCache.iter_matrix`, with its parameters, by ``async for``."""
        return self._iterate(lambda cache: cache.iter_matrix(model_name, **options), 1)

    def documents(self, **options: Any) -> AsyncIterator[DocumentInfo]:
        """List what `EmbeddingCache.documents` lists, with its parameters, by ``async for``."""
        return self._iterate(lambda cache: cache.documents(**options), DOCUMENTS_AT_ONCE)

    async def _iterate(self, begin: Callable[[EmbeddingCache], Iterator[T]], n_at_once: int) -> AsyncIterator[T]:
        iterator = await self.run(begin)
        while some := await self.run(lambda cache: list(islice(iterator, n_at_once))):
            for one in some:
                yield one
