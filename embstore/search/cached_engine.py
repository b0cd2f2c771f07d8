"""The engine with a cache before the model."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from embstore.cache import EmbeddingCache
from embstore.encoders import NamedEncoder
from embstore.errors import InvalidTypeError
from embstore.search.base import VectorSource
from embstore.search.engine import DEFAULT_COLLECTION, DEFAULT_PATH, SemanticSearchEngine
from embstore.search.sources import CachedSource

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

CACHE_NAME = "embeddings.db"  # in the library folder, beside Chroma's own files


class CachedSemanticSearchEngine(SemanticSearchEngine):
    """Semantic search over documents whose vectors are computed once and kept.

    The same as `SemanticSearchEngine`, with a cache before the model: a text that was encoded once, under any id and
    in any run, is not encoded again.

    Parameters
    ----------
    model, model_name, path, client, collection_name
        See `SemanticSearchEngine`. The cache is the file ``embeddings.db`` in the folder `path`, with `client` too.
    cache : EmbeddingCache, optional
        Used in place of that file, and never closed. Collections with the same ids can share it.

    Raises
    ------
    EmbstoreError
        As `SemanticSearchEngine`, and StoreError where the cache cannot be opened.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        model_name: str | None = None,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        client: ClientAPI | None = None,
        collection_name: str = DEFAULT_COLLECTION,
        cache: EmbeddingCache | None = None,
    ) -> None:
        if cache is not None and not isinstance(cache, EmbeddingCache):
            raise InvalidTypeError(f"cache is {type(cache).__name__}, not an EmbeddingCache: {cache!r:.80}")
        self._given_cache = cache
        super().__init__(model, model_name=model_name, path=path, client=client, collection_name=collection_name)

    def _open_source(self, encoder: NamedEncoder, collection_name: str, opened: ExitStack) -> VectorSource:
        cache = self._given_cache
        if cache is None:
            cache = EmbeddingCache(self._folder / CACHE_NAME)
            opened.callback(cache.close)
        self._cache = cache
        return CachedSource(encoder, cache, collection_name)

    @property
    def cache(self) -> EmbeddingCache:
        """The cache."""
        return self._cache
