"""Reading rows of the table documents: each by itself, or many as one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection, DatabaseError

import numpy as np
import numpy.typing as npt

from embstore.stores.tables import all_rows, chunks, document_pages, integers, places, whole_numbers

ROWS_TOGETHER = 50_000  # as one, whose text stays far below the longest value
NO_IDS = np.empty(0, dtype=np.int64)

FIND = """
SELECT doc_id, vector_id, checksum
FROM documents
WHERE model_id = ? AND collection = ? AND doc_id IN ({places})
"""

ALL = """
SELECT doc_id, vector_id, checksum
FROM documents
WHERE model_id = ? AND collection = ?
ORDER BY doc_id
"""

# Of many rows one row of texts is read: what Python makes of a row takes several times what SQLite does.
TOGETHER = """
SELECT json_group_array(doc_id), group_concat(vector_id), group_concat(checksum)
FROM (
    SELECT doc_id, vector_id, checksum
    FROM documents
    WHERE model_id = ? AND collection = ? AND doc_id > ?
    ORDER BY doc_id
    LIMIT ?
)
"""


@dataclass(frozen=True)
class Documents:
    """Rows of one model and collection: parallel columns."""

    collection: str
    doc_ids: list[str]
    vector_ids: npt.NDArray[np.int64]  # (n,)
    checksums: npt.NDArray[np.int64]  # (n,)

    @classmethod
    def of(cls, collection: str, rows: Sequence[tuple[str, int, int]]) -> Documents:
        """Turn rows into columns; a value that is no integer becomes 0, which fits no row."""
        doc_ids, vector_ids, checksums = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(collection, list(doc_ids), whole_numbers(vector_ids), whole_numbers(checksums))

    def with_texts(self) -> Documents:
        """Give the rows whose doc_ids are texts: SQLite can come to others where a page is damaged."""
        if {*map(type, self.doc_ids)} <= {str}:
            return self
        at = [i for i, doc_id in enumerate(self.doc_ids) if type(doc_id) is str]
        return Documents(self.collection, [self.doc_ids[i] for i in at], self.vector_ids[at], self.checksums[at])


def by_vector(connection: Connection, model_id: int, collection: str) -> Documents:
    """Read all rows, by vector_id and then by doc_id."""
    read_off = document_pages.read(connection, model_id, collection, by_vector=True)
    if read_off is not None:
        return Documents(collection, *read_off)
    there = find(connection, model_id, collection, None)
    order = np.argsort(there.vector_ids, kind="stable")
    doc_ids = [there.doc_ids[i] for i in order.tolist()]
    return Documents(collection, doc_ids, there.vector_ids[order], there.checksums[order])


def find(connection: Connection, model_id: int, collection: str, doc_ids: Sequence[str] | None) -> Documents:
    """Read the rows of some doc_ids, in no order, or of all, by doc_id."""
    if doc_ids is None:
        return _all_together(connection, model_id, collection) or Documents.of(
            collection, all_rows(connection, ALL, (model_id, collection))
        )
    rows: list[tuple[str, int, int]] = []
    for keys in chunks(doc_ids):
        rows += connection.execute(FIND.format(places=places(keys)), (model_id, collection, *keys)).fetchall()
    return Documents.of(collection, rows)


def _all_together(connection: Connection, model_id: int, collection: str) -> Documents | None:
    """Read all rows, many as one; None where one cannot be read so, as where a value is of another type."""
    read_off = document_pages.read(connection, model_id, collection)
    if read_off is not None:
        return Documents(collection, *read_off)
    pages: list[Documents] = []
    last = ""  # comes before every doc_id, as none is empty
    while True:
        page = _page_together(connection, model_id, collection, last)
        if page is None:
            return None
        pages.append(page)
        if len(page.doc_ids) < ROWS_TOGETHER:
            break
        if page.doc_ids[-1] <= last:  # damaged keys
            return None
        last = page.doc_ids[-1]
    return Documents(
        collection,
        [doc_id for page in pages for doc_id in page.doc_ids],
        np.concatenate([page.vector_ids for page in pages]),
        np.concatenate([page.checksums for page in pages]),
    )


def _page_together(connection: Connection, model_id: int, collection: str, after: str) -> Documents | None:
    """Read the next rows as one; None where a value is of another type than its column, or SQLite has no JSON."""
    try:
        page = connection.execute(TOGETHER, (model_id, collection, after, ROWS_TOGETHER))
        ids, vector_ids_, checksums = page.fetchone()
        there = Documents(collection, json.loads(ids), integers(vector_ids_), integers(checksums))
    except (DatabaseError, ValueError):  # what cannot be read row by row either is an error there
        return None
    are_whole = len(there.doc_ids) == len(there.vector_ids) == len(there.checksums)  # NULLs are left out of a text
    return there if are_whole and {*map(type, there.doc_ids)} <= {str} else None
