"""The vectors of a call, and which of them wait to be stored together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embstore.canary import ModelGuard
from embstore.codec import Vectors
from embstore.contents import Contents, Cost, Found
from embstore.encoders import NamedEncoder
from embstore.formats import check_range, rounded
from embstore.identity import ModelIdentity, Role
from embstore.inputs import check_dim
from embstore.leasing import Leases
from embstore.stores.base import Store, StoredModel


@dataclass
class GroupStore:
    """Where the groups of a call are stored, and under which model.

    Attributes
    ----------
    has_ids : bool
        Whether the texts are documents of the collection; otherwise they are marked as texts without an id.
    canary : ndarray of shape (dim,), float32, or None
        Of the encoder, once it was compared with what is stored; stored with a model that is new.
    leases : Leases or None
        Those on the texts that are encoded, which end when these are stored.
    """

    backend: Store
    guard: ModelGuard
    encoder: NamedEncoder
    role: Role
    identity: ModelIdentity
    collection: str
    has_ids: bool
    canary: Vectors | None = None
    leases: Leases | None = None

    def store(
        self,
        keys: Sequence[bytes],
        vectors: Vectors,
        documents: Mapping[str, bytes],
        damaged: Sequence[int] = (),
        cost: Cost | None = None,
    ) -> tuple[StoredModel, int]:
        """Store vectors and the documents that point at them, in one transaction.

        Parameters
        ----------
        keys : sequence of n bytes
            Distinct content hashes.
        vectors : ndarray of shape (n, dim), float32
        documents : mapping of doc_id to content hash
        damaged : sequence of int
            The rows that replace what is stored; any other leaves it as it is.
        cost : Cost, optional
            What the model took for them.

        Returns
        -------
        StoredModel
        int
            How many of the vectors are new.
        """
        standalone = not self.has_ids

        def store() -> tuple[StoredModel, int]:
            model = self.backend.ensure_variant(self.identity, vectors.shape[1], self.canary)
            self.guard.compare(self.encoder, model, self.canary)
            n_new = self.backend.insert_vectors(model, keys, vectors, standalone=standalone)
            if damaged:
                damaged_keys = [keys[i] for i in damaged]
                self.backend.replace_vectors(model, damaged_keys, vectors[list(damaged)], standalone=standalone)
            if documents:
                self.backend.put_documents(model, self.collection, list(documents), list(documents.values()))
            if cost is not None:
                self.backend.note_encoding(model, n_texts=len(keys), n_chars=cost.n_chars, seconds=cost.seconds)
                if self.leases is not None:
                    self.leases.release(keys)
            return model, n_new

        stored = self.backend.write(store, again=True)
        if self.leases is not None and cost is not None:
            self.leases.forget(keys)
        return stored


class Group:
    """The vectors of a call, and which of them were encoded and wait to be stored together.

    Attributes
    ----------
    rows : list of int
        What waits.
    encoded : list of int
        All that was encoded.
    """

    def __init__(self, groups: GroupStore, contents: Contents, found: Found, content_of: Mapping[str, bytes]) -> None:
        self.groups = groups
        self.contents = contents
        self.damaged = found.lookup.damaged
        self.vectors = found.lookup.vectors
        self.dtype = groups.backend.dtype if found.model is None else found.model.dtype
        self.lengths = list(map(len, contents.texts))
        self.rows: list[int] = []
        self.encoded: list[int] = []
        self.seconds = 0.0
        self.encode_s = 0.0
        self._content_of = content_of

    def encode(self, rows: list[int], batch_size: int) -> float:
        """Encode some texts of the call, and tell how many seconds it took."""
        texts = [self.contents.texts[row] for row in rows]
        began = time.perf_counter()
        vectors = self.groups.encoder.encode(texts, role=self.groups.role, batch_size=batch_size)
        seconds = time.perf_counter() - began
        if not self.vectors.shape[1]:  # nothing is stored of the model yet
            dim = vectors.shape[1] if self.groups.canary is None else self.groups.canary.size
            self.vectors = np.zeros((len(self.contents.keys), dim), dtype=np.float32)
        check_dim(vectors, self.vectors.shape[1], self.groups.identity.model_name)
        check_range(vectors, self.dtype, lambda row: f"the vector of text {texts[row]!r:.60}")
        self.vectors[rows] = vectors
        self.rows += rows
        self.encoded += rows
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

    @cached_property
    def _doc_ids(self) -> Sequence[Sequence[str]]:
        """The documents of each content."""
        if len(self._content_of) == len(self.contents.keys):  # one each, and so in the same order
            return [(doc_id,) for doc_id in self._content_of]
        doc_ids: dict[bytes, list[str]] = {key: [] for key in self.contents.keys}
        for doc_id, key in self._content_of.items():
            doc_ids[key].append(doc_id)
        return list(doc_ids.values())

    def _store(self, rows: list[int], cost: Cost) -> None:
        if not rows:
            return
        keys = [self.contents.keys[row] for row in rows]
        documents = {doc_id: keys[i] for i, row in enumerate(rows) for doc_id in self._doc_ids[row]}
        damaged = [i for i, row in enumerate(rows) if self.damaged[row]]
        vectors = self.vectors[rows]
        model, n_new = self.groups.store(keys, vectors, documents, damaged, cost)
        if model.dtype != "float32":  # what a later call finds is what this one gives
            self.vectors[rows] = rounded(vectors, model.dtype)
        if n_new + len(damaged) < len(keys):
            # Another process stored some first: its vectors stay, and are what this call gives too.
            there = self.groups.backend.look_up(model, keys)
            found = np.flatnonzero(there.found)
            self.vectors[np.array(rows)[found]] = there.vectors[found]
