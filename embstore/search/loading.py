"""A collection of texts as an index reads it: in pages, and as the matrix that is searched."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.errors import DamagedStoreError, SearchIndexError
from embstore.identity import ModelIdentity
from embstore.inputs import check_truncation
from embstore.search.matrix import DocumentMatrix
from embstore.stores.base import Store, VectorLookup
from embstore.stores.texts import StoredCollection, StoredText
from embstore.truncation import truncated

PAGE = 1024  # documents
_ATTEMPTS = 3  # to find a collection as it was read a moment before


@dataclass(frozen=True)
class Loaded:
    """What was read of a collection; one value, as other threads may search while it is read anew.

    Attributes
    ----------
    matrix : DocumentMatrix
        The documents that have vectors.
    of : StoredCollection, optional
        The collection as it was then.
    lost : tuple of str
        The doc_ids that have none, because of which no search can be answered.
    """

    matrix: DocumentMatrix = field(default_factory=DocumentMatrix.empty)
    of: StoredCollection | None = None
    lost: tuple[str, ...] = ()

    def answers_for(self, collection: StoredCollection) -> bool:
        """Tell whether this is all of a collection as it is now."""
        return self.of == collection and not self.lost

    def is_earlier_than(self, collection: StoredCollection) -> bool:
        """Tell whether this is right, except for texts that were written or removed since."""
        before = self.of
        if before is None or before.vectors_version != collection.vectors_version:
            return False
        return before.texts_version <= collection.texts_version


class LoadedCollection:
    """A collection in a store, and its matrix in memory.

    Parameters
    ----------
    store : Store
    name : str
    identity : ModelIdentity
        The model that it is of as long as it has no texts.
    truncate_dim : int, optional
        How many leading values of each vector the matrix has; by default all.
    """

    def __init__(self, store: Store, name: str, identity: ModelIdentity, truncate_dim: int | None = None) -> None:
        self.identity = identity
        self.truncate_dim = truncate_dim
        self._store = store
        self._name = name
        self._loaded = Loaded()
        self._locks: dict[int, threading.Lock] = {}  # by process: one that was held at a fork stays locked there

    def current(self) -> StoredCollection:
        """Read what the store has noted of the collection; as long as it is empty, it is of the model asked for."""
        found = self._store.texts.find_collection(self._name) or StoredCollection(self._name, self.identity)
        if found.n_texts:
            return found
        model = self._store.find_variant(self.identity)
        return replace(found, identity=self.identity if model is None else model.identity)

    def read(self, text_ids: npt.NDArray[np.int64]) -> dict[int, StoredText]:
        """Read the texts of ascending text_ids, all of which must be there.

        Raises
        ------
        DamagedStoreError
        """
        found = self._store.texts.read(self._name, text_ids)
        if list(found) != text_ids.tolist():
            raise self._damaged_keys("a text cannot be found")
        return found

    def pages(self) -> Iterator[list[StoredText]]:
        """Read all texts in pages, each of them one state of the store; what is written meanwhile can be left out.

        Raises
        ------
        DamagedStoreError
        """
        version, text_ids = self._list()
        for some in _pages(text_ids):
            yield list(self._page(some, version).values())

    def pages_with_vectors(self) -> Iterator[tuple[list[StoredText], VectorLookup]]:
        """Read all texts and their vectors in pages, as `pages`.

        Raises
        ------
        DamagedStoreError
        """
        for page, there in self._pages_with_vectors(*self._list()):
            yield list(page.values()), there

    def look_up(self, keys: Sequence[bytes]) -> VectorLookup:
        """Read the vectors of n contents, of which some may be the same."""
        row_of = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        with self._store.reading():
            model = self._store.find_model(self.current().identity)
            if model is None:
                return VectorLookup.empty(len(keys), 0)
            lookup = self._store.look_up(model, list(row_of))
        return lookup if len(row_of) == len(keys) else lookup.take([row_of[key] for key in keys])

    def whole(self, texts: Sequence[StoredText]) -> npt.NDArray[np.bool_]:
        """Tell which of n texts have a vector that is recorded as theirs, so that it is not pruned: (n,)."""
        keys = [text.content_hash for text in texts]
        with self._store.reading():
            there = self.look_up(keys)
            model = self._store.find_model(self.current().identity)
            if model is None:
                return there.found
            doc_ids = [text.doc_id for text in texts]
            return there.found & self._store.recorded(model, self._name, doc_ids, keys, there.vector_ids)

    def stored_dim(self) -> int | None:
        """Tell how many values the stored vectors of the model have; None where there are none."""
        model = self._store.find_model(self.current().identity)
        return None if model is None else model.dim

    def check_dim(self, dim: int) -> None:
        """Raise DimensionError where vectors have fewer values than they are to be truncated to."""
        if self.truncate_dim is not None:
            check_truncation(self.truncate_dim, dim, self.identity.model_name, "truncate_dim")

    def cut(self, vectors: Vectors) -> Vectors:
        """Give as many values of vectors (n, dim) as the matrix has; their lengths mean nothing."""
        self.check_dim(vectors.shape[1])
        return vectors if self.truncate_dim is None else truncated(vectors, self.truncate_dim)

    @contextmanager
    def matrix(self) -> Iterator[DocumentMatrix]:
        """Give the matrix of one state of the store, which the block reads too.

        Only what was written since the last time is read. Nobody waits inside a transaction for another thread to
        read it: a fork waits for transactions, and lets that thread begin none meanwhile
        (tests/test_exact_index.py::test_no_search_waits_for_another_one_inside_a_transaction).

        Raises
        ------
        SearchIndexError
            A document has no vector.
        DamagedStoreError
            A text is damaged.
        """
        for _ in range(_ATTEMPTS):
            loaded = self._loaded
            with self._store.reading():
                if loaded.answers_for(self.current()):
                    yield loaded.matrix
                    return
            with self._lock():
                self._refresh()  # in short transactions: one that stays holds up every writer
        with ExitStack() as state:  # others write all the time: let them wait for once
            with self._lock():
                state.enter_context(self._store.reading())
                self._refresh()
                loaded = self._loaded
            yield loaded.matrix

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _refresh(self) -> None:
        """Read what was written since the last time.

        What is written meanwhile is left to the next time: what was read is noted to be of the state before.
        """
        with self._store.reading():
            collection = self.current()
            if self._loaded.answers_for(collection):
                return
            text_ids = self._store.texts.text_ids(self._name)
        if not self._loaded.is_earlier_than(collection):
            self._loaded = Loaded()  # makes room for what is read
        kept = self._loaded.matrix.keep(text_ids)
        others = text_ids[~np.isin(text_ids, kept.text_ids, assume_unique=True)]
        later, lost = self._read(collection.texts_version, others)
        matrix = kept.append(later)
        if len({*matrix.doc_ids, *lost}) != len(text_ids) and self.current() == collection:
            raise self._damaged_keys("a text cannot be found, or is there twice")
        self._loaded = Loaded(matrix, collection, tuple(lost))
        if lost:
            raise lost_vectors(self._name, lost)

    def _list(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Give the version of the texts, and their ids."""
        with self._store.reading():
            return self.current().texts_version, self._store.texts.text_ids(self._name)

    def _page(self, text_ids: npt.NDArray[np.int64], version: int) -> dict[int, StoredText]:
        """Read texts that were listed at a version: all must be there or, where it is a later one, those that are."""
        with self._store.reading():
            is_as_it_was = self.current().texts_version == version
            return self.read(text_ids) if is_as_it_was else self._store.texts.read(self._name, text_ids)

    def _pages_with_vectors(
        self, version: int, text_ids: npt.NDArray[np.int64]
    ) -> Iterator[tuple[dict[int, StoredText], VectorLookup]]:
        for some in _pages(text_ids):
            with self._store.reading():  # between the two reads, a document could be edited and its vector pruned
                page = self._page(some, version)
                there = self.look_up([text.content_hash for text in page.values()])
            yield page, there

    def _damaged_keys(self, what: str) -> DamagedStoreError:
        return DamagedStoreError(
            f"collection {self._name!r} of {self._store.location!r}: {what}, since keys are damaged; index its "
            f"documents into another collection, where no text is encoded again",
            path=self._store.location,
            collection=self._name,
        )

    def _read(self, version: int, text_ids: npt.NDArray[np.int64]) -> tuple[DocumentMatrix, list[str]]:
        """Read documents that were listed at a version: those with vectors, and the doc_ids of those without."""
        ids, doc_ids, metadata_texts, lost = list[int](), list[str](), list[str](), list[str]()
        vectors = np.empty((len(text_ids), 0), dtype=np.float32)
        for page, there in self._pages_with_vectors(version, text_ids):
            texts = list(compress(page.values(), there.found))
            lost += [text.doc_id for text in compress(page.values(), ~there.found)]
            if not texts:
                continue
            rows = self.cut(there.vectors[there.found])
            if rows.shape[1] != vectors.shape[1]:  # at first, and where the model became another meanwhile
                vectors = np.zeros((len(text_ids), rows.shape[1]), dtype=np.float32)
            vectors[len(ids) : len(ids) + len(texts)] = rows
            ids += compress(page, there.found)
            doc_ids += [text.doc_id for text in texts]
            metadata_texts += [text.metadata for text in texts]
        text_ids = np.array(ids, dtype=np.int64)
        return DocumentMatrix.of(text_ids, doc_ids, metadata_texts, vectors[: len(ids)]), lost


def _pages(text_ids: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(text_ids), PAGE):
        yield text_ids[start : start + PAGE]


def lost_vectors(collection_name: str, doc_ids: Sequence[str]) -> SearchIndexError:
    """Make the error of documents whose vectors were forgotten or damaged, and whom a search would leave out."""
    return SearchIndexError(
        f"the vectors of doc_id {doc_ids[0]!r:.80} (and {len(doc_ids) - 1} more) of collection {collection_name!r} are "
        f"no longer stored, or damaged; index these documents again, or delete them",
        collection_name=collection_name,
        doc_ids=list(doc_ids),
    )
