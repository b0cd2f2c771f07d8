from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from benchmarks.competitors.base import BATCH, Competitor
from benchmarks.corpus import Documents, Vectors


class ChromaCollection(Competitor):
    """A record's id is the SHA-256 of its text. `get` promises no order, so the reply is put into the caller's.

    Space "l2", since "cosine" gives vectors back normalised.
    """

    name = "Chroma get"
    requires = ("chromadb",)
    durable = "survives kill"
    most_documents = 2_000

    def open(self) -> None:
        import chromadb

        settings = chromadb.config.Settings(anonymized_telemetry=False)
        self.client: Any = chromadb.PersistentClient(self.folder, settings=settings)
        self.collection: Any = self.client.get_or_create_collection(
            "documents", embedding_function=None, configuration={"hnsw": {"space": "l2"}}
        )

    def fill(self) -> None:
        for batch in self.documents.batches(BATCH):
            self.collection.add(ids=_keys(batch.texts), embeddings=batch.vectors)

    def read(self, documents: Documents) -> Vectors:
        keys = _keys(documents.texts)
        reply = self.collection.get(ids=keys, include=["embeddings"])
        if reply["ids"] == keys:
            return np.asarray(reply["embeddings"])
        row_of = {key: row for row, key in enumerate(reply["ids"])}
        return np.asarray(reply["embeddings"])[[row_of[key] for key in keys]]

    def read_all(self) -> Any:
        return self.collection.get(include=["embeddings"])

    def close(self) -> None:
        self.client.close()


def _keys(texts: list[str]) -> list[str]:
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]
