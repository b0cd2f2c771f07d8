"""LlamaIndex: an embedding model that asks a cache first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from embstore.cache import EmbeddingCache
from embstore.errors import InvalidTypeError, MissingExtraError
from embstore.identity import Setting
from embstore.integrations._llama_index_encoder import LlamaIndexEncoder, refuse
from embstore.integrations._owning import OwnsCache, opened

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr, SerializeAsAny
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index", "an adapter for LlamaIndex") from error


class EmbstoreEmbedding(OwnsCache, BaseEmbedding):
    """An embedding model that embeds no text twice.

    Queries and texts have vectors of their own, also where they are the same string. The asynchronous methods do their
    work in threads and call the synchronous ones of `underlying` there. Another process that it is sent to opens the
    file anew, with the defaults of `EmbeddingCache`.

    Parameters
    ----------
    underlying : BaseEmbedding
        What embeds the texts that are not stored, in batches of its own `embed_batch_size`.
    cache : EmbeddingCache, str or Path
        A path is opened, and closed by `close`.
    model_name : str, optional
        The name to store vectors under; by default the `model_name` of `underlying`.
    model_settings : mapping of str to str, int, float or bool, optional
        What changes the vectors beside the class of `underlying` and those of its attributes that are known to.
    same_queries : bool
        `underlying` embeds queries as it embeds texts: one vector a string.
    **options
        What else a BaseEmbedding takes; `embed_batch_size` is how many texts are looked up at once, 1,000 by default.

    Raises
    ------
    InvalidTypeError, InvalidInputError, ModelNameError
        `underlying` is no BaseEmbedding or says no name, a setting cannot be used, or there is an `embeddings_cache`.
    StoreError
        Of the file.
    """

    underlying: SerializeAsAny[BaseEmbedding]
    _cache: EmbeddingCache = PrivateAttr()
    _opened: EmbeddingCache | None = PrivateAttr()
    _encoder: LlamaIndexEncoder = PrivateAttr()
    _given: dict[str, Any] = PrivateAttr()

    def __init__(
        self,
        underlying: BaseEmbedding,
        cache: EmbeddingCache | str | Path,
        *,
        model_name: str | None = None,
        model_settings: Mapping[str, Setting] | None = None,
        same_queries: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(underlying, BaseEmbedding):
            raise InvalidTypeError(f"underlying is {type(underlying).__name__}, not a BaseEmbedding of LlamaIndex")
        encoder = LlamaIndexEncoder(underlying, model_name, model_settings, same_queries=same_queries)
        for other in (underlying.embeddings_cache, options.get("embeddings_cache")):
            refuse(other)
        fields = {"embed_batch_size": 1000, **options, "underlying": underlying, "model_name": encoder.model_name}
        super().__init__(**fields)
        given = {"model_name": model_name, "model_settings": model_settings, "same_queries": same_queries}
        self._encoder, self._given = encoder, {**given, **options}
        self._cache, self._opened = opened(cache)

    @property
    def cache(self) -> EmbeddingCache:
        """The cache that is asked first."""
        return self._cache

    @classmethod
    def class_name(cls) -> str:  # noqa: D102
        return "EmbstoreEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        batch_size = self.underlying.embed_batch_size
        vectors: list[list[float]] = self._cache.embed(
            texts, self._encoder, batch_size=batch_size, progress=False
        ).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._cache.embed_query(query, self._encoder).tolist()
        return vector

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "embeddings_cache":
            refuse(value)
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.underlying, self._cache.location, **self._given), ()
