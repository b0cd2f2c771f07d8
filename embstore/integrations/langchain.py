"""LangChain: embeddings that ask a cache first, and a ByteStore in its file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from embstore.cache import EmbeddingCache
from embstore.errors import InvalidTypeError, MissingExtraError
from embstore.identity import Role, Setting
from embstore.inputs import check_count
from embstore.integrations._owning import OwnsCache, opened
from embstore.integrations._underlying import UnderlyingEncoder

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise MissingExtraError("langchain-core", "langchain", "an adapter for LangChain") from error
from embstore.integrations._langchain_store import EmbstoreByteStore

__all__ = ["EmbstoreByteStore", "EmbstoreEmbeddings"]


class EmbstoreEmbeddings(OwnsCache, Embeddings):
    """Embeddings that embed no text twice.

    Queries and documents have vectors of their own, also where their texts are the same. The asynchronous methods do
    their work in LangChain's executor and call the synchronous ones of `underlying` there. Another process that it is
    sent to opens the file anew, with the defaults of `EmbeddingCache`.

    Parameters
    ----------
    underlying : Embeddings
        What embeds the texts that are not stored.
    cache : EmbeddingCache, str or Path
        A path is opened, and closed by `close`.
    model_name : str, optional
        The name to store vectors under; by default what `underlying` says in `model_name`, `model` or `model_id`.
    model_settings : mapping of str to str, int, float or bool, optional
        What changes the vectors beside the class of `underlying` and those of its attributes that are known to
        (`dimensions`, `normalize`, `encode_kwargs`, prompts, addresses ...).
    same_queries : bool
        `underlying` embeds queries as it embeds documents: one vector a text.
    batch_size : int
        The most texts that `underlying` is given at once.

    Raises
    ------
    InvalidTypeError, InvalidInputError, ModelNameError
        `underlying` is no Embeddings or says no name, or a setting cannot be used.
    StoreError
        Of the file.
    """

    def __init__(
        self,
        underlying: Embeddings,
        cache: EmbeddingCache | str | Path,
        *,
        model_name: str | None = None,
        model_settings: Mapping[str, Setting] | None = None,
        same_queries: bool = False,
        batch_size: int = 128,
    ) -> None:
        if not isinstance(underlying, Embeddings):
            raise InvalidTypeError(f"underlying is {type(underlying).__name__}, not Embeddings of LangChain")
        self.underlying = underlying
        self.batch_size = check_count(batch_size, "batch_size")
        self._encoder = _Encoder(underlying, model_name, model_settings, same_queries=same_queries)
        self._given: dict[str, Any] = {
            "model_name": model_name,
            "model_settings": model_settings,
            "same_queries": same_queries,
            "batch_size": batch_size,
        }
        self.cache, self._opened = opened(cache)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Give the vectors of documents, in order; those that are new are embedded once each and stored.

        Returns
        -------
        list of n lists of dim floats
            What is stored, float32: the same on a miss as on a hit.

        Raises
        ------
        EmbstoreError
            As of `EmbeddingCache.embed`.
        """
        vectors: list[list[float]] = self.cache.embed(texts, self._encoder, batch_size=self.batch_size).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Give the vector of a query; as `embed_documents` otherwise.

        Returns
        -------
        list of dim floats
        """
        vector: list[float] = self.cache.embed_query(text, self._encoder).tolist()
        return vector

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.underlying, self.cache.location, **self._given), ()


class _Encoder(UnderlyingEncoder):
    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        if self._distinct(role) == "query":
            return [self.model.embed_query(text) for text in texts]
        return self.model.embed_documents(texts)
