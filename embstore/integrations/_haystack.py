"""Haystack's embedders as encoders, and what embedders that ask a cache first have in common."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import Document, default_to_dict

from embstore.cache import EmbeddingCache
from embstore.codec import Vectors
from embstore.errors import InvalidTypeError
from embstore.identity import Role, Setting
from embstore.integrations._owning import OwnsCache, opened
from embstore.integrations._underlying import UnderlyingEncoder
from embstore.stores.locations import without_secrets


class EmbedderEncoder(UnderlyingEncoder):
    """An embedder whose `run` takes one thing."""

    takes = ""

    def __init__(self, embedder: Any, *given: Any) -> None:
        run = getattr(embedder, "run", None)
        if not callable(run) or self.takes not in inspect.signature(run).parameters:
            raise InvalidTypeError(
                f"embedder is {type(embedder).__name__}, which has no run({self.takes}) as Haystack's have"
            )
        super().__init__(embedder, *given)

    def _run(self, given: Any) -> Any:
        if callable(getattr(self.model, "warm_up", None)):
            self.model.warm_up()  # loads the model: not before something is to be embedded
        return self.model.run(**{self.takes: given})


class TextEncoder(EmbedderEncoder):
    """Asks a text embedder, one text a run."""

    takes = "text"

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        return [self._run(text)["embedding"] for text in texts]


class DocumentEncoder(EmbedderEncoder):
    """Asks a document embedder for documents that are the texts and nothing else."""

    takes = "documents"

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        documents = [Document(id=str(i), content=text) for i, text in enumerate(texts)]
        answered = {document.id: document.embedding for document in self._run(documents)["documents"]}
        # By id: a document that the embedder left out, or could not embed, is then None, and an error.
        return [answered.get(document.id) for document in documents]


class CachedEmbedder(OwnsCache):
    """What the embedders of texts and of documents have in common."""

    def _set_up(
        self,
        kind: type[EmbedderEncoder],
        embedder: Any,
        cache: EmbeddingCache | str | Path,
        model_name: str | None,
        model_settings: dict[str, Setting] | None,
        **options: Any,
    ) -> None:
        self.embedder, self._encoder = embedder, kind(embedder, model_name, model_settings)
        self.cache, self._opened = opened(cache)
        path = self.cache.location if isinstance(cache, EmbeddingCache) else without_secrets(cache)
        self._given = {"cache": path, "model_name": model_name, "model_settings": model_settings, **options}

    def to_dict(self) -> dict[str, Any]:
        """Give what a pipeline is saved as: with the path of the file, and nothing of what is in it."""
        return default_to_dict(self, embedder=self.embedder, **self._given)


def texts_of(documents: list[Document], embedder: Any) -> list[str]:
    """Give the texts that a document embedder makes of documents, without its prefix and suffix."""
    fields = getattr(embedder, "meta_fields_to_embed", None) or []
    separator = str(getattr(embedder, "embedding_separator", "\n"))
    texts = []
    check_is(documents, list, "documents")
    for document in documents:
        check_is(document, Document, "a document")
        values = [str(document.meta[field]) for field in fields if document.meta.get(field) is not None]
        texts.append(separator.join([*values, document.content or ""]))
    return texts


def with_vectors(documents: list[Document], vectors: Vectors) -> list[Document]:
    """Give copies of documents that have their vectors."""
    return [replace(document, embedding=vector) for document, vector in zip(documents, vectors.tolist(), strict=True)]


def check_is(value: object, kind: type, what: str) -> None:
    """Raise InvalidTypeError where a value is of another type."""
    if not isinstance(value, kind):
        raise InvalidTypeError(f"{what} is {type(value).__name__}, not {kind.__name__}: {value!r:.80}")
