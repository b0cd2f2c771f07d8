from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.competitors.base import Competitor
from benchmarks.corpus import Documents, InstantEncoder, Vectors


class HomeMadeCache:
    """The usual home-made cache: a JSON index of content hashes by doc_id, and a `.npy` file for each vector.

    The index is kept in memory and written anew after each document, as such caches do in order not to lose any.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index_file = folder / "index.json"
        self.index: dict[str, str] = {}
        if self.index_file.exists():
            self.index = json.loads(self.index_file.read_text(encoding="utf-8"))

    def get(self, doc_id: str, text: str, model: Any) -> Vectors:
        content_hash = hashlib.sha256(text.encode()).hexdigest()
        file = self.folder / f"{doc_id}.npy"
        if self.index.get(doc_id) == content_hash and file.exists():
            stored: Vectors = np.load(file)
            return stored
        vector: Vectors = model.encode([text])[0]
        np.save(file, vector)
        self.index[doc_id] = content_hash
        self.index_file.write_text(json.dumps(self.index), encoding="utf-8")
        return vector


class JsonNpy(Competitor):
    name = "JSON + npy"
    most_documents = 1_000

    def open(self) -> None:
        self.encoder = InstantEncoder(self.documents)
        self.cache = HomeMadeCache(self.folder)

    def fill(self) -> None:
        self.read(self.documents)

    def read(self, documents: Documents) -> list[Vectors]:
        return [
            self.cache.get(doc_id, text, self.encoder)
            for doc_id, text in zip(documents.ids, documents.texts, strict=True)
        ]

    def get(self, doc_id: str, text: str) -> Vectors:
        return self.cache.get(doc_id, text, self.encoder)
