from __future__ import annotations

import hashlib

import numpy as np

from benchmarks.competitors.base import BATCH, Competitor
from benchmarks.corpus import Documents, Vectors

MOST_BYTES = 2**40


class DiskCache(Competitor):
    """SHA-256 of the text to bytes; transactions around batches, which makes reading faster too."""

    name = "diskcache"
    requires = ("diskcache",)
    durable = "survives kill"  # WAL with synchronous=NORMAL

    def open(self) -> None:
        import diskcache  # type: ignore[import-untyped]

        self.cache = diskcache.Cache(self.folder, eviction_policy="none", size_limit=MOST_BYTES)

    def fill(self) -> None:
        for batch in self.documents.batches(BATCH):
            with self.cache.transact():
                for text, vector in zip(batch.texts, batch.vectors, strict=True):
                    self.cache.set(hashlib.sha256(text.encode()).digest(), vector.tobytes())

    def read(self, documents: Documents) -> Vectors:
        get = self.cache.get
        with self.cache.transact():
            blobs = [get(hashlib.sha256(text.encode()).digest()) for text in documents.texts]
        return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1)

    def get(self, doc_id: str, text: str) -> Vectors:
        return np.frombuffer(self.cache.get(hashlib.sha256(text.encode()).digest()), dtype="<f4")

    def close(self) -> None:
        self.cache.close()
