"""The engine with a cache before the model."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from embstore.cache import EmbeddingCache
from embstore.encoders import NamedEncoder
from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.identity import Dtype, ModelIdentity, check_dtype
from embstore.search.base import VectorSource
from embstore.search.defaults import CACHE_NAME, DEFAULT_COLLECTION, DEFAULT_PATH
from embstore.search.engine import SemanticSearchEngine
from embstore.search.inputs import IndexKind
from embstore.search.sources import CachedSource
from embstore.stores.base import Store, StoredModel

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


class CachedSemanticSearchEngine(SemanticSearchEngine):
    """Semantic search over documents whose vectors are computed once and kept.

    The same as `SemanticSearchEngine`, with a cache before the model: a text that was encoded once, under any id and
    in any run, is not encoded again.

    Parameters
    ----------
    model, model_name, path, client, collection_name, index, truncate_dim, check_canary
        See `SemanticSearchEngine`. The cache is the file ``embeddings.db`` in the folder `path`, with `client` too.
    cache : EmbeddingCache, optional
        Used in place of that file, and never closed. Collections with the same ids can share it. An exact index is
        in its file too.
    dtype : "float32" or "float16"
        The format in which a model is stored that is new in that file; see `EmbeddingCache`. Searches are in float32.

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
        index: IndexKind = "chroma",
        truncate_dim: int | None = None,
        check_canary: bool = True,
        cache: EmbeddingCache | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        if cache is not None and not isinstance(cache, EmbeddingCache):
            raise InvalidTypeError(f"cache is {type(cache).__name__}, not an EmbeddingCache: {cache!r:.80}")
        if cache is not None and cache.check_canary and not check_canary:
            raise InvalidInputError("check_canary is the cache's: EmbeddingCache(..., check_canary=False)")
        self._dtype = check_dtype(dtype)
        if cache is not None and dtype != "float32" and cache.dtype != dtype:
            raise InvalidInputError(f"dtype is the cache's: EmbeddingCache(..., dtype={dtype!r})")
        self._cache = cache
        super().__init__(
            model,
            model_name=model_name,
            path=path,
            client=client,
            collection_name=collection_name,
            index=index,
            truncate_dim=truncate_dim,
            check_canary=check_canary,
        )

    def _open_store(self, opened: ExitStack) -> Store:
        return self._open_cache(opened).store

    def _open_source(self, encoder: NamedEncoder, collection_name: str, opened: ExitStack) -> VectorSource:
        return CachedSource(encoder, self._open_cache(opened), collection_name)

    def _open_cache(self, opened: ExitStack) -> EmbeddingCache:
        if self._cache is None:
            self._cache = EmbeddingCache(self._folder / CACHE_NAME, check_canary=self._check_canary, dtype=self._dtype)
            opened.callback(self._cache.close)
        return self._cache

    def _stored_model(self, identity: ModelIdentity) -> StoredModel | None:
        return self.cache.store.find_variant(identity)

    @property
    def cache(self) -> EmbeddingCache:
        """The cache."""
        return cast(EmbeddingCache, self._cache)
