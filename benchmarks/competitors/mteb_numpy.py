from __future__ import annotations

import numpy as np

from benchmarks.competitors.base import Competitor
from benchmarks.corpus import Documents, Vectors


class MTEBNumpyCache(Competitor):
    """A memory map, and a JSON file that is written by save(); read as mteb's own wrapper reads it."""

    name = "mteb NumpyCache"
    requires = ("mteb.models.cache_wrappers.cache_backends",)

    def open(self) -> None:
        from mteb.models.cache_wrappers.cache_backends import NumpyCache

        self.cache = NumpyCache(self.folder)
        if self.cache.index_file.exists():
            self.cache.load()

    def fill(self) -> None:
        self.cache.add([{"text": text} for text in self.documents.texts], self.documents.vectors)
        self.cache.save()

    def read(self, documents: Documents) -> Vectors:
        return np.array([self.cache.get_vector({"text": text}) for text in documents.texts])

    def get(self, doc_id: str, text: str) -> Vectors:
        return np.array(self.cache.get_vector({"text": text}))

    def close(self) -> None:
        self.cache.close()
