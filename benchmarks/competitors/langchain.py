"""What the two stores of LangChain have in common."""

from __future__ import annotations

import warnings
from typing import Any

from benchmarks.competitors.base import BATCH, Competitor
from benchmarks.corpus import Documents, InstantEncoder, as_lists


class LangChain(Competitor):
    """CacheBackedEmbeddings with its default key encoder, SHA-1, which is its fastest."""

    most_documents = 2_000

    def open(self) -> None:
        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_core.embeddings import Embeddings

        encoder = InstantEncoder(self.documents)

        class Instant(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return as_lists(encoder.encode(texts))

            def embed_query(self, text: str) -> list[float]:
                return self.embed_documents([text])[0]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that texts with one SHA-1 can be made on purpose
            self.cache = CacheBackedEmbeddings.from_bytes_store(
                Instant(), self.store(), namespace=encoder.model_name, batch_size=BATCH
            )

    def store(self) -> Any:
        raise NotImplementedError

    def fill(self) -> None:
        self.cache.embed_documents(self.documents.texts)

    def read(self, documents: Documents) -> list[list[float]]:
        return self.cache.embed_documents(documents.texts)
