"""Incoming: takes pages of contents into a cache, each in one transaction, and changes nothing that is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from embstore.codec import Vectors
from embstore.errors import EmbstoreError
from embstore.formats import check_range, rounded
from embstore.stores.base import Store, StoredModel
from embstore.stores.contents import ContentPage
from embstore.transfer.report import Conflict, Skipped, TransferReport

Found = Callable[[], StoredModel | None]
Ensured = Callable[[int], StoredModel]


class Incoming:
    """What comes into a store from one source, and the account of it.

    Parameters
    ----------
    store : Store
    source : str
        What to call it in the report.
    """

    def __init__(self, store: Store, source: str) -> None:
        self.store = store
        self.skipped: list[Skipped] = []
        self.conflicts: list[Conflict] = []
        self.n_texts = self.n_values = 0
        self._source = source
        self._n_stored = self._n_present = self._n_documents = 0

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Let an error of ours say what of the source is in the store by now, and whatever else ends it by a note."""
        try:
            yield
        except EmbstoreError as error:
            error.message = f"{error.message}; {self._so_far()}"
            raise
        except BaseException as error:
            error.add_note(self._so_far())
            raise

    def _so_far(self) -> str:
        if not (self._n_stored or self._n_documents or self.n_texts or self.n_values):
            return "nothing was stored"
        return (
            f"{self._n_stored:,} vectors, {self._n_documents:,} documents and {self.n_texts:,} texts that came "
            f"before it are stored, and running it again stores the rest"
        )

    def report(self) -> TransferReport:
        """Give the account."""
        return TransferReport(
            self._source,
            self._n_stored,
            self._n_present,
            self._n_documents,
            self.n_texts,
            tuple(self.skipped),
            tuple(self.conflicts),
            self.n_values,
        )

    def take(
        self, page: ContentPage, find: Found, ensure: Ensured, name_of: Callable[[int], str] = "row {}".format
    ) -> None:
        """Store what is new of a page, in one transaction; a page that brings nothing new takes no write lock.

        Parameters
        ----------
        page : ContentPage
            The same content, and the same document, may stand in it several times: the first counts.
        find, ensure : callable
            Give the model; the latter for so many values a vector, stored now where it was not.
        name_of : callable
            What to call the i-th row in an error.

        Raises
        ------
        DimensionError, OutOfRangeError, ReadOnlyError, StoreError
            Nothing of the page was stored.
        """
        wanted = _Wanted(page)
        with self.store.reading():
            model = find()
            if model is not None and model.dim == page.vectors.shape[1]:
                known = wanted.compared(self.store, model, name_of)
                if known.is_complete:
                    self._count(wanted, known, 0, 0)
                    return

        def write() -> tuple[_Compared, int, int]:
            model = ensure(page.vectors.shape[1])
            n_stored, n_documents = wanted.write(self.store, model, name_of)
            is_new = (n_stored, n_documents) == (wanted.n_vectors, wanted.n_documents)  # nothing is there to differ
            known = _Compared(True, []) if is_new else wanted.compared(self.store, model, name_of)
            return known, n_stored, n_documents

        self._count(wanted, *self.store.write(write))  # not before the transaction has ended

    def _count(self, wanted: _Wanted, known: _Compared, n_stored: int, n_documents: int) -> None:
        self._n_stored += n_stored
        self._n_present += len(wanted.row_of) - n_stored
        self._n_documents += n_documents
        self.conflicts += known.conflicts


@dataclass(frozen=True)
class _Compared:
    """What a store has of a page: whether there is nothing to write, and what it has otherwise."""

    is_complete: bool
    conflicts: list[Conflict]


class _Wanted:
    """The distinct contents and documents of a page; `n_vectors` and `n_documents` count those that are not, too."""

    def __init__(self, page: ContentPage) -> None:
        self._page = page
        self.n_vectors, self.n_documents = len(page.content_hashes), len(page.documents)
        self.row_of: dict[bytes, int] = {}
        for row, content_hash in enumerate(page.content_hashes):
            self.row_of.setdefault(content_hash, row)
        self._keys = list(self.row_of)
        place_of = {key: place for place, key in enumerate(self._keys)}
        self._places = np.array([place_of[key] for key in page.content_hashes], dtype=np.intp)
        self._standalone = np.zeros(len(self._keys), dtype=np.bool_)
        self._standalone[self._places[page.standalone]] = True
        self._documents = defaultdict[str, list[tuple[str, int]]](list)
        for collection, doc_id, row in page.documents:
            self._documents[collection].append((doc_id, row))

    def write(self, store: Store, model: StoredModel, name_of: Callable[[int], str]) -> tuple[int, int]:
        """Store what is not there, or damaged, and count the vectors and the documents."""
        there = store.look_up(model, self._keys)
        rows = np.array(list(self.row_of.values()), dtype=np.intp)
        check_range(self._page.vectors[rows], model.dtype, lambda i: name_of(int(rows[i])))
        for write, places in (
            (store.insert_vectors, np.flatnonzero(there.vector_ids == 0)),
            (store.replace_vectors, np.flatnonzero(there.damaged)),
        ):
            if len(places):
                keys = [self._keys[place] for place in places.tolist()]
                write(model, keys, self._page.vectors[rows[places]], standalone=False)
        unmarked = np.flatnonzero(self._standalone & ~(there.found & there.standalone)).tolist()
        if unmarked:
            store.mark_standalone(model, [self._keys[place] for place in unmarked])
        n_documents = 0
        for collection, documents in self._documents.items():
            content_of: dict[str, bytes] = {}
            for doc_id, row in documents:
                content_of.setdefault(doc_id, self._page.content_hashes[row])
            n_documents += store.insert_documents(model, collection, list(content_of), list(content_of.values()))
        return int(np.count_nonzero(~there.found)), n_documents

    def compared(self, store: Store, model: StoredModel, name_of: Callable[[int], str]) -> _Compared:
        """Compare the page with what is stored of it, bit for bit."""
        there = store.look_up(model, self._keys)
        is_complete = bool(there.found.all() and (there.standalone >= self._standalone).all())
        stored = there.vectors[self._places]
        given = rounded(self._page.vectors, model.dtype, name_of)
        differ = (stored.view(np.uint32) != given.view(np.uint32)).any(axis=1) & there.found[self._places]
        name = str(model.identity)
        conflicts = [
            Conflict("vector", name, self._page.content_hashes[row].hex(), difference=_difference(stored, given, row))
            for row in np.flatnonzero(differ).tolist()
        ]
        for collection, documents in self._documents.items():
            doc_ids, rows = [doc_id for doc_id, _ in documents], [row for _, row in documents]
            hashes = [self._page.content_hashes[row] for row in rows]
            recorded = store.recorded(model, collection, doc_ids, hashes, there.vector_ids[self._places[rows]])
            is_complete &= bool(recorded.all())
            conflicts += [
                Conflict("document", name, hashes[i].hex(), collection, doc_ids[i])
                for i in np.flatnonzero(~recorded).tolist()
            ]
        return _Compared(is_complete, conflicts)


def _difference(stored: Vectors, given: Vectors, row: int) -> float:
    """Tell how far two vectors are from each other, relative to the longer one."""
    a, b = stored[row].astype(np.float64), given[row].astype(np.float64)
    longer = max(np.linalg.norm(a), np.linalg.norm(b))
    return float(np.linalg.norm(a - b) / longer) if longer else 0.0
