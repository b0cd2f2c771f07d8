from __future__ import annotations

import hashlib

import numpy as np

from benchmarks.competitors.base import Competitor
from benchmarks.corpus import Documents, Vectors


class Limit(Competitor):
    """The least that is possible: one contiguous matrix, and the SHA-256 of every text, compared with nothing."""

    name = "limit: SHA-256 + np.load"

    def open(self) -> None:
        self.file = self.folder / "matrix.npy"

    def fill(self) -> None:
        np.save(self.file, self.documents.vectors)

    def read(self, documents: Documents) -> Vectors:
        for text in documents.texts:
            hashlib.sha256(text.encode()).digest()
        vectors: Vectors = np.load(self.file)
        return vectors
