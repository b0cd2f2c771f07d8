"""Haystack: embedders of texts and of documents that ask a cache first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from embstore.cache import EmbeddingCache
from embstore.errors import MissingExtraError
from embstore.identity import Setting
from embstore.inputs import check_count

try:
    from haystack import Document, component
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack", "an adapter for Haystack") from error
from embstore.integrations._haystack import (
    CachedEmbedder,
    DocumentEncoder,
    TextEncoder,
    check_is,
    texts_of,
    with_vectors,
)


@component
class EmbstoreTextEmbedder(CachedEmbedder):
    """A text embedder for queries that embeds none twice; its vectors are never those of documents.

    Parameters
    ----------
    embedder : component
        The text embedder that embeds what is not stored; its model is loaded when it is first needed.
    cache : EmbeddingCache, str or Path
        A path is opened, and closed by `close`. A pipeline is saved with the path, or a URL without its password.
    model_name : str, optional
        The name to store vectors under; by default what `embedder` says in `model_name`, `model` or `model_id`.
    model_settings : dict of str to str, int, float or bool, optional
        What changes the vectors beside the class of `embedder` and those of its attributes that are known to.

    Raises
    ------
    InvalidTypeError, InvalidInputError, ModelNameError, StoreError
        `embedder` is no text embedder or says no name, or a setting or the file cannot be used.
    """

    def __init__(
        self,
        embedder: Any,
        cache: EmbeddingCache | str | Path,
        model_name: str | None = None,
        model_settings: dict[str, Setting] | None = None,
    ) -> None:
        self._set_up(TextEncoder, embedder, cache, model_name, model_settings)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Give the vector of a text in "embedding", and the name of the model in "meta"."""
        check_is(text, str, "text")
        vector = self.cache.embed_query(text, self._encoder).tolist()
        return {"embedding": vector, "meta": {"model": self._encoder.model_name}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Do what `run` does in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class EmbstoreDocumentEmbedder(CachedEmbedder):
    """A document embedder that embeds no text twice, and records documents under their ids.

    Parameters
    ----------
    embedder : component
        The document embedder that embeds what is not stored. Its `meta_fields_to_embed` and `embedding_separator` make
        the text of a document; its `prefix` and `suffix` are part of the identity of the model.
    cache, model_name, model_settings
        As of `EmbstoreTextEmbedder`.
    collection : str
        Keeps the ids of several collections apart.
    batch_size : int
        The most documents that `embedder` is given at once.

    Raises
    ------
    InvalidTypeError, InvalidInputError, ModelNameError, StoreError
        As of `EmbstoreTextEmbedder`.
    """

    def __init__(
        self,
        embedder: Any,
        cache: EmbeddingCache | str | Path,
        model_name: str | None = None,
        model_settings: dict[str, Setting] | None = None,
        collection: str = "",
        batch_size: int = 128,
    ) -> None:
        self._options: dict[str, Any] = {"collection": collection, "batch_size": check_count(batch_size, "batch_size")}
        self._set_up(DocumentEncoder, embedder, cache, model_name, model_settings, **self._options)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Give the documents with their vectors in "documents", and what it cost in "meta", in distinct texts."""
        texts, ids = texts_of(documents, self.embedder), [document.id for document in documents]
        report = self.cache.fill(ids, texts, self._encoder, progress=False, **self._options)
        meta = {"model": self._encoder.model_name, "n_encoded": report.n_encoded, "n_hits": report.n_hits}
        return {"documents": with_vectors(documents, report.vectors), "meta": meta}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Do what `run` does in a thread."""
        return await asyncio.to_thread(self.run, documents)
