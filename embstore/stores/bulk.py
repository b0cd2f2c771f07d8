"""Reading the vectors of many documents: all in one matrix, or in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.checksums import Words, content_sums, content_sums_of_documents, is_content
from embstore.codec import VECTOR_DTYPE, Vectors, as_vectors
from embstore.errors import DamagedStoreError, InvalidInputError, UnknownDocumentError
from embstore.stores.base import StoredModel
from embstore.stores.tables import document_rows, documents, vector_rows, whole_numbers
from embstore.truncation import truncated

_ROWS_TRUNCATED_AT_ONCE = 2048


@dataclass(frozen=True)
class Listing:
    """Rows of the table documents of one model: parallel columns."""

    collections: list[str]
    doc_ids: list[str]
    vector_ids: npt.NDArray[np.int64]
    checksums: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, int, int]]) -> Listing:
        """Turn rows (collection, doc_id, vector_id, checksum) into columns.

        Raises
        ------
        DamagedStoreError
            A text is none. Numbers that are none become 0, which fits no row.
        """
        collections, doc_ids, vector_ids, checksums = zip(*rows, strict=True) if rows else ((), (), (), ())
        _check_texts(collections, doc_ids)
        return cls(list(collections), list(doc_ids), whole_numbers(vector_ids), whole_numbers(checksums))

    @classmethod
    def joined(cls, parts: Sequence[document_rows.Documents]) -> Listing:
        """Put the documents of collections one after another, as `of`."""
        for part in parts:
            _check_texts([part.collection], part.doc_ids)
        none = document_rows.NO_IDS
        return cls(
            list(chain.from_iterable([part.collection] * len(part.doc_ids) for part in parts)),
            parts[0].doc_ids if len(parts) == 1 else [doc_id for part in parts for doc_id in part.doc_ids],
            np.concatenate([none, *(part.vector_ids for part in parts)]),
            np.concatenate([none, *(part.checksums for part in parts)]),
        )

    def take(self, at: npt.NDArray[np.intp]) -> Listing:
        """Give some rows, in this order."""
        order = at.tolist()
        names = self.collections
        is_one = not names or names.count(names[0]) == len(names)
        return Listing(
            names[:1] * len(order) if is_one else [names[i] for i in order],
            [self.doc_ids[i] for i in order],
            self.vector_ids[at],
            self.checksums[at],
        )


def _check_texts(*columns: Sequence[str]) -> None:
    if not {*map(type, chain(*columns))} <= {str}:
        raise rows_missing("ids that are no texts")


def list_all(connection: Connection, model: StoredModel, collection: str | None) -> Listing:
    """List a model's documents in the order in which their vectors are stored.

    Raises
    ------
    DamagedStoreError
        A key is damaged: searches that it leads astray would leave documents out.
    """
    scopes = documents.scopes(connection, [model.model_id], collection)
    there = [document_rows.by_vector(connection, model_id, name) for model_id, name in scopes]
    listing = Listing.joined(there)
    n_documents = documents.count_of_model(connection, model.model_id, collection)
    if len(there) > 1:
        listing = listing.take(np.argsort(listing.vector_ids, kind="stable"))
    if len(listing.doc_ids) != n_documents or not _are_distinct(listing):
        raise rows_missing("damaged keys")
    return listing


def _are_distinct(listing: Listing) -> bool:
    """Tell whether each document comes once: one in the place of another leaves their number as it was.

    Documents are listed by their vectors, and those that share one have different checksums.
    """
    if (np.diff(listing.vector_ids) > 0).all():
        return True
    order = np.lexsort((listing.checksums, listing.vector_ids))
    is_again = (np.diff(listing.vector_ids[order]) == 0) & (np.diff(listing.checksums[order]) == 0)
    return not is_again.any()


def list_some(connection: Connection, model: StoredModel, collection: str | None, doc_ids: Sequence[str]) -> Listing:
    """List the documents of these doc_ids, in this order.

    Raises
    ------
    UnknownDocumentError
        One is not stored for the model.
    InvalidInputError
        One stands for different texts in several collections.
    """
    row_of: dict[str, tuple[str, str, int, int]] = {}
    for model_id, name in documents.scopes(connection, [model.model_id], collection):
        there = document_rows.find(connection, model_id, name, list(dict.fromkeys(doc_ids)))
        numbers = there.vector_ids.tolist(), there.checksums.tolist()
        for doc_id, vector_id, checksum in zip(there.doc_ids, *numbers, strict=True):
            other = row_of.setdefault(doc_id, (name, doc_id, vector_id, checksum))
            if other[2] != vector_id:
                raise InvalidInputError(
                    f"doc_id {doc_id!r:.80} has different texts in the collections {other[0]!r} and {name!r}; "
                    f"say which with collection=",
                    doc_id=doc_id,
                )
    unknown = [doc_id for doc_id in doc_ids if doc_id not in row_of]
    if unknown:
        raise UnknownDocumentError(
            f"doc_id {unknown[0]!r:.80} and {len(unknown) - 1} more of {len(doc_ids)} are not stored for model "
            f"{str(model.identity)!r}"
            + ("" if collection is None else f" in collection {collection!r}")
            + "; cache them with get_many",
            doc_ids=unknown,
        )
    return Listing.of([row_of[doc_id] for doc_id in doc_ids])


def read_distinct(connection: Connection, model: StoredModel, listing: Listing) -> tuple[Vectors, npt.NDArray[np.intp]]:
    """Read the vectors of n listed documents, each once.

    Returns
    -------
    vectors : ndarray of shape (n_distinct, dim), float32
    row_of : ndarray of shape (n,), int
        The vector of the i-th document is vectors[row_of[i]].

    Raises
    ------
    DamagedStoreError
        A row is not what was written; the message names its doc_id.
    """
    if (np.diff(listing.vector_ids) > 0).all():
        vector_ids, row_of = listing.vector_ids, np.arange(len(listing.vector_ids))
    else:
        vector_ids, row_of = np.unique(listing.vector_ids, return_inverse=True)
    read = vector_rows.read_together(connection, vector_ids, model)
    if read is not None:
        sums, values = read
        if is_content(sums[row_of], content_sums_of_listing(model, listing)).all():
            return as_vectors(values), row_of
    rows = vector_rows.read(connection, vector_ids, model)
    sound = rows.sound(model.model_id, rows.content_hashes)[row_of]
    sound &= content_sums(rows.content_hashes)[row_of] == content_sums_of_listing(model, listing)
    if not sound.all():
        damaged = [listing.doc_ids[i] for i in np.flatnonzero(~sound).tolist()]
        raise DamagedStoreError(
            f"the stored vector of doc_id {damaged[0]!r:.80} (and {len(damaged) - 1} more) of model "
            f"{str(model.identity)!r} is damaged; get_many with its text mends it, verify() lists all",
            doc_ids=damaged,
        )
    return rows.vectors, row_of


def gather(distinct: Vectors, row_of: npt.NDArray[np.intp]) -> Vectors:
    """Give each document its vector; without a copy where they are in order already."""
    in_order = len(distinct) == len(row_of) and bool((np.diff(row_of) > 0).all())
    return distinct if in_order else distinct[row_of]


def read_truncated(connection: Connection, model: StoredModel, listing: Listing, dim: int) -> Vectors:
    """Read the vectors of n listed documents, check them whole, and keep their leading values: see `truncated`.

    Besides the result, (n, dim), a bounded number of whole vectors is in memory.

    Raises
    ------
    DamagedStoreError
        As `read_distinct`; it names documents of the rows that were read together.
    """
    shorter = np.empty((len(listing.doc_ids), dim), dtype=VECTOR_DTYPE)
    for start in range(0, len(shorter), _ROWS_TRUNCATED_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_TRUNCATED_AT_ONCE, len(shorter)))
        whole = gather(*read_distinct(connection, model, listing.take(rows)))
        shorter[start : start + len(rows)] = truncated(whole, dim)
    return shorter


def content_sums_of_listing(model: StoredModel, listing: Listing) -> Words:
    """Give what the contents that the documents were written for make up of their checksums: (n,)."""
    names = dict.fromkeys(listing.collections)
    if len(names) == 1:
        return content_sums_of_documents(model.model_id, next(iter(names)), listing.doc_ids, listing.checksums)
    sums = np.empty(len(listing.doc_ids), dtype=np.uint64)
    for name in names:
        at = np.array([i for i, other in enumerate(listing.collections) if other == name], dtype=np.intp)
        doc_ids = [listing.doc_ids[i] for i in at.tolist()]
        sums[at] = content_sums_of_documents(model.model_id, name, doc_ids, listing.checksums[at])
    return sums


def list_vector_ids(
    connection: Connection, model: StoredModel, collection: str | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """List the vectors that a model's documents point at.

    Returns
    -------
    vector_ids : ndarray of shape (n,), int64
        Distinct, ascending.
    n_documents : ndarray of shape (n,), uint32
        How many documents point at each.

    Raises
    ------
    DamagedStoreError
        A key is damaged.
    """
    ids = documents.vector_ids(connection, model.model_id, collection)
    if len(ids) != documents.count_of_model(connection, model.model_id, collection):
        raise rows_missing("damaged keys")
    vector_ids, n_documents = np.unique(ids, return_counts=True)
    return vector_ids, n_documents.astype(np.uint32)  # as long as there are pages to come, both are kept


def list_range(
    connection: Connection,
    model: StoredModel,
    collection: str | None,
    vector_ids: npt.NDArray[np.int64],
    n_expected: int,
) -> Listing:
    """List the documents that point into the range of some ascending vector_ids, in that order.

    Parameters
    ----------
    n_expected : int
        How many there were a moment ago. Where there are others now, somebody wrote, or the index on vectors is
        damaged and would leave some out; then they are listed by their keys.

    Raises
    ------
    DamagedStoreError
        A key is damaged.
    """
    first_id, last_id = int(vector_ids[0]), int(vector_ids[-1])
    rows = documents.of_vectors(connection, model.model_id, first_id, last_id)
    listing = Listing.of([row for row in rows if collection in (None, row[0])])
    if len(listing.doc_ids) == n_expected and _comes_once(listing):
        return listing
    listing = list_all(connection, model, collection)
    return listing.take(np.flatnonzero((listing.vector_ids >= first_id) & (listing.vector_ids <= last_id)))


def _comes_once(listing: Listing) -> bool:
    """Tell whether no document of a listing by the index on vectors comes twice: it is in the order of its keys."""
    steps = np.diff(listing.vector_ids)
    names, doc_ids = listing.collections, listing.doc_ids
    shared = np.flatnonzero(steps == 0).tolist()
    return bool((steps >= 0).all()) and all((names[i], doc_ids[i]) < (names[i + 1], doc_ids[i + 1]) for i in shared)


def rows_missing(why: str) -> DamagedStoreError:
    """Give the error for a table of documents that would not be read whole."""
    return DamagedStoreError(f"the table documents has {why}, and reading it would leave documents out; see verify()")
