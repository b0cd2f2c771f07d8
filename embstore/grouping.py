"""The vectors of a call, and which of them wait to be stored together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from embstore.contents import Contents, Cost, Found
from embstore.formats import check_range, rounded
from embstore.inputs import check_dim

if TYPE_CHECKING:
    from embstore.filling import Filling


class Group:
    """The vectors of a call, and which of them were encoded and wait to be stored together."""

    def __init__(self, filling: Filling, contents: Contents, found: Found) -> None:
        self.filling = filling
        self.contents = contents
        self.damaged = found.lookup.damaged
        self.vectors = found.lookup.vectors
        self.dtype = filling.store.dtype if found.model is None else found.model.dtype
        self.lengths = list(map(len, contents.texts))
        self.rows: list[int] = []
        self.seconds = 0.0
        self.encode_s = 0.0
        self._doc_ids_of: dict[bytes, list[str]] = {}
        if not found.lookup.found.all():
            for doc_id, key in (filling.content_of or {}).items():
                self._doc_ids_of.setdefault(key, []).append(doc_id)

    def encode(self, rows: list[int], batch_size: int) -> float:
        """Encode some texts of the call, and tell how many seconds it took."""
        texts = [self.contents.texts[row] for row in rows]
        began = time.perf_counter()
        vectors = self.filling.encoder.encode(texts, role=self.filling.role, batch_size=batch_size)
        seconds = time.perf_counter() - began
        if not self.vectors.shape[1]:  # nothing is stored of the model yet
            dim = vectors.shape[1] if self.filling.canary is None else self.filling.canary.size
            self.vectors = np.zeros((len(self.contents.keys), dim), dtype=np.float32)
        check_dim(vectors, self.vectors.shape[1], self.filling.identity.model_name)
        check_range(vectors, self.dtype, lambda row: f"the vector of text {texts[row]!r:.60}")
        self.vectors[rows] = vectors
        self.rows += rows
        self.seconds += seconds
        self.encode_s += seconds
        return seconds

    def take(self) -> Callable[[], None]:
        """Give the work of storing what waits, and begin the next group.

        The rows are stored in the caller's order, in which they are most likely to be read.
        """
        rows = sorted(self.rows)
        cost = Cost(sum(map(self.lengths.__getitem__, rows)), self.seconds)
        self.rows, self.seconds = [], 0.0
        return lambda: self._store(rows, cost)

    def _store(self, rows: list[int], cost: Cost) -> None:
        if not rows:
            return
        keys = [self.contents.keys[row] for row in rows]
        documents = {doc_id: key for key in keys for doc_id in self._doc_ids_of.get(key, ())}
        damaged = [i for i, row in enumerate(rows) if self.damaged[row]]
        vectors = self.vectors[rows]
        model, n_new = self.filling.store_group(keys, vectors, documents, damaged, cost)
        if model.dtype != "float32":  # what a later call finds is what this one gives
            self.vectors[rows] = rounded(vectors, model.dtype)
        if n_new + len(damaged) < len(keys):
            # Another process stored some first: its vectors stay, and are what this call gives too.
            there = self.filling.store.look_up(model, keys)
            found = np.flatnonzero(there.found)
            self.vectors[np.array(rows)[found]] = there.vectors[found]
