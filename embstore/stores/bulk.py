"""Reading the vectors of many documents: all in one matrix, or in pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors, document_checksums
from embstore.errors import DamagedStoreError, InvalidInputError, UnknownDocumentError
from embstore.stores.base import StoredModel
from embstore.stores.tables import documents, vectors


@dataclass(frozen=True)
class Listing:
    """Rows of the table documents of one model: parallel columns."""

    collections: list[str]
    doc_ids: list[str]
    vector_ids: npt.NDArray[np.int64]
    checksums: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, int, int]]) -> Listing:
        """Turn rows (collection, doc_id, vector_id, checksum) into columns."""
        collections, doc_ids, vector_ids, checksums = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(
            list(collections),
            list(doc_ids),
            np.array(vector_ids, dtype=np.int64),
            np.array(checksums, dtype=np.int64),
        )

    def take(self, at: npt.NDArray[np.intp]) -> Listing:
        """Give some rows, in this order."""
        order = at.tolist()
        return Listing(
            [self.collections[i] for i in order],
            [self.doc_ids[i] for i in order],
            self.vector_ids[at],
            self.checksums[at],
        )


def list_all(connection: Connection, model: StoredModel, collection: str | None) -> Listing:
    """List a model's documents in the order in which their vectors are stored."""
    rows: list[tuple[str, str, int, int]] = []
    for model_id, name in documents.scopes(connection, [model.model_id], collection):
        there = documents.find(connection, model_id, name, None)
        rows += zip([name] * len(there.doc_ids), there.doc_ids, there.vector_ids, there.checksums, strict=True)
    listing = Listing.of(rows)
    return listing.take(np.argsort(listing.vector_ids, kind="stable"))


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
        there = documents.find(connection, model_id, name, list(dict.fromkeys(doc_ids)))
        for doc_id, vector_id, checksum in zip(there.doc_ids, there.vector_ids, there.checksums, strict=True):
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


def read_vectors(connection: Connection, model: StoredModel, listing: Listing) -> Vectors:
    """Read the vectors of listed documents: (n, dim) float32, row i for the i-th document.

    Raises
    ------
    DamagedStoreError
        A row is not what was written; the message names its doc_id.
    """
    vector_ids, row_of = np.unique(listing.vector_ids, return_inverse=True)
    rows = vectors.read(connection, vector_ids, model.dim)
    sound = rows.sound(model.model_id, rows.content_hashes)[row_of]
    sound &= _pointers_sound(model, listing, rows.content_hashes[row_of])
    if not sound.all():
        damaged = [listing.doc_ids[i] for i in np.flatnonzero(~sound)]
        raise DamagedStoreError(
            f"the stored vector of doc_id {damaged[0]!r:.80} (and {len(damaged) - 1} more) of model "
            f"{str(model.identity)!r} is damaged; get_many with its text mends it, verify() lists all",
            doc_ids=damaged,
        )
    each_its_own = len(vector_ids) == len(row_of) and bool((np.diff(row_of) > 0).all())
    return rows.vectors if each_its_own else rows.vectors[row_of]


def _pointers_sound(
    model: StoredModel, listing: Listing, content_hashes: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Tell which documents were written for the contents that they point at."""
    names = np.array(listing.collections, dtype=object)
    sound = np.zeros(len(names), dtype=np.bool_)
    for name in dict.fromkeys(listing.collections):
        at = np.flatnonzero(names == name)
        doc_ids = [listing.doc_ids[i] for i in at.tolist()]
        expected = document_checksums(model.model_id, name, doc_ids, content_hashes[at])
        sound[at] = listing.checksums[at] == np.array(expected, dtype=np.int64)
    return sound


def read_range(
    connection: Connection, model: StoredModel, collection: str | None, vector_ids: npt.NDArray[np.int64]
) -> Listing:
    """List the documents that point into the range of some ascending vector_ids, in that order."""
    rows = documents.of_vectors(connection, model.model_id, int(vector_ids[0]), int(vector_ids[-1]))
    return Listing.of([row for row in rows if collection in (None, row[0])])


def cut(doc_ids: list[str], matrix: Vectors, batch_rows: int) -> Iterator[tuple[list[str], Vectors]]:
    """Cut a page that several documents a vector made too long."""
    for start in range(0, len(doc_ids), batch_rows):
        yield doc_ids[start : start + batch_rows], matrix[start : start + batch_rows]
