"""The table documents."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as count_up
from itertools import repeat
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.checksums import content_sums, content_sums_of_documents, document_checksums
from embstore.stores.base import StoredModel
from embstore.stores.tables import (
    SCAN_FROM_KEYS,
    SCAN_FROM_SHARE,
    all_rows,
    check_rows,
    chunks,
    document_pages,
    places,
    vectors,
)
from embstore.stores.tables.document_rows import NO_IDS, by_vector, find

IDS_AT_ONCE = 10_000  # as Python's integers, which take four times the memory

VECTOR_IDS = """
SELECT vector_id
FROM documents
WHERE model_id = ? AND collection = ?
"""

# +model_id: with a bare equality the planner forgets that the index is in the order asked for, and sorts.
BY_VECTOR = """
SELECT collection, doc_id, vector_id, checksum
FROM documents INDEXED BY documents_by_vector
WHERE vector_id BETWEEN ? AND ? AND +model_id = ?
ORDER BY vector_id, model_id, collection, doc_id
"""

# An upsert, ON CONFLICT DO UPDATE, copies every page that it touches before it touches it: 13 us a row, of 16.
INSERT = """
INSERT INTO documents (model_id, collection, doc_id, vector_id, checksum)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (model_id, collection, doc_id) DO NOTHING
"""

UPDATE = """
UPDATE documents
SET vector_id = ?4, checksum = ?5
WHERE model_id = ?1 AND collection = ?2 AND doc_id = ?3
"""

COUNT_OF_MODEL = """
SELECT count(*)
FROM documents INDEXED BY documents_by_vector
WHERE model_id = ?1 AND (collection = ?2 OR ?2 IS NULL)
"""

DELETE_ALL = """
DELETE FROM documents
"""

DELETE = """
DELETE FROM documents
WHERE model_id = ? AND collection = ? AND doc_id IN ({places})
"""

DELETE_SCOPE = """
DELETE FROM documents
WHERE model_id = ? AND collection = ?
"""

# Not count(*), which follows pages that lead back to themselves for ever, and cannot be stopped.
COUNT = """
SELECT count(vector_id)
FROM documents
"""

COUNT_UP_TO = """
SELECT count(*)
FROM (SELECT 1 FROM documents WHERE model_id = ? AND collection = ? LIMIT ?)
"""

COUNT_DISTINCT = """
SELECT count(DISTINCT doc_id)
FROM documents
"""

NEXT_COLLECTION = """
SELECT model_id, collection
FROM documents
WHERE model_id = ? AND collection > ?
ORDER BY collection
LIMIT 1
"""

NEXT_MODEL = """
SELECT model_id, collection
FROM documents
WHERE model_id > ?
ORDER BY model_id, collection
LIMIT 1
"""

FIRST_SCOPE = """
SELECT model_id, collection
FROM documents
ORDER BY model_id, collection
LIMIT 1
"""


def scopes(
    connection: Connection, model_ids: Sequence[int] | None = None, collection: str | None = None
) -> list[tuple[int, str]]:
    """List the (model_id, collection) that have documents; one search of the key for each, not a scan."""
    found: dict[tuple[int, str], None] = {}
    row = connection.execute(FIRST_SCOPE).fetchone()
    while row is not None and row not in found:  # damaged keys can lead back
        found[row] = None
        # One comparison of rows for both, (model_id, collection) > (?, ?), reads all documents of the first.
        row = connection.execute(NEXT_COLLECTION, row).fetchone() or connection.execute(NEXT_MODEL, row[:1]).fetchone()
    return [
        (model_id, name)
        for model_id, name in found
        if (model_ids is None or model_id in model_ids) and collection in (None, name)
    ]


def vector_ids(connection: Connection, model_id: int, collection: str | None) -> npt.NDArray[np.int64]:
    """List the vector that each of n documents points at: (n,); those left out that are no integers."""
    pages = [NO_IDS]
    for scope in scopes(connection, [model_id], collection):
        read_off = document_pages.read_vector_ids(connection, *scope)
        if read_off is not None:
            pages.append(read_off)
            continue
        cursor = connection.execute(VECTOR_IDS, scope)
        while rows := cursor.fetchmany(IDS_AT_ONCE):
            check_rows(connection, sum(map(len, pages)))
            pages.append(np.array([row[0] for row in rows if type(row[0]) is int], dtype=np.int64))
    return np.concatenate(pages)


def _most_of(connection: Connection, model_id: int, collection: str, n_keys: int) -> bool:
    """Tell whether so many keys are better read by one scan of the collection than searched one by one."""
    if n_keys < SCAN_FROM_KEYS:
        return False
    limit = int(n_keys / SCAN_FROM_SHARE)
    (counted,) = connection.execute(COUNT_UP_TO, (model_id, collection, limit)).fetchone()
    return bool(counted < limit)


def of_vectors(connection: Connection, model_id: int, first_id: int, last_id: int) -> list[tuple[str, str, int, int]]:
    """Read the rows that point into a range of vector_ids, ordered by it: (collection, doc_id, vector_id, checksum)."""
    return all_rows(connection, BY_VECTOR, (first_id, last_id, model_id))


def count_of_model(connection: Connection, model_id: int, collection: str | None) -> int:
    """Count the documents of a model by the other index: what a search that lost its way would leave out is in it."""
    return int(connection.execute(COUNT_OF_MODEL, (model_id, collection)).fetchone()[0])


def pointers(
    connection: Connection,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> npt.NDArray[np.int64]:
    """Give the vector that each of n doc_ids points at, 0 where it is not stored, soundly, with this content: (n,)."""
    if _most_of(connection, model.model_id, collection, len(doc_ids)):
        there = by_vector(connection, model.model_id, collection)
    else:
        there = find(connection, model.model_id, collection, doc_ids)
    there = there.with_texts()
    rows = _rows_of(there.doc_ids, doc_ids)
    # The contents that those rows were written for: they are in an order that the processor's cache likes.
    sums = content_sums_of_documents(model.model_id, collection, there.doc_ids, there.checksums)
    vector_ids, sums = np.append(there.vector_ids, 0)[rows], np.append(sums, np.uint64(0))[rows]
    return np.where(sums == content_sums(content_hashes), vector_ids, 0)


def _rows_of(there: list[str], doc_ids: Sequence[str]) -> npt.NDArray[np.intp]:
    """Tell where each of n doc_ids is in a list, -1 where it is not: (n,)."""
    if there == doc_ids:  # most often the same are asked for as ever, in the order in which they were stored
        return np.arange(len(there))
    row_of = dict(zip(there, count_up(), strict=False))
    return np.fromiter(map(row_of.get, doc_ids, repeat(-1)), dtype=np.intp, count=len(doc_ids))


def put(
    connection: Connection,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> None:
    """Point distinct doc_ids at the vectors of contents, which are stored."""
    rows = _rows(connection, model, collection, doc_ids, content_hashes)
    if _insert(connection, rows) < len(rows):
        connection.executemany(UPDATE, rows)


def insert(
    connection: Connection,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> int:
    """Point those of distinct doc_ids that are not there at vectors of contents, which are; count them."""
    return _insert(connection, _rows(connection, model, collection, doc_ids, content_hashes))


def _rows(
    connection: Connection,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> list[tuple[int, str, str, int | None, int]]:
    """Give the rows to be written; NULL, which SQLite refuses, where there is no vector to point at."""
    id_of = vectors.find_new_ids(connection, model.model_id, content_hashes)
    vector_ids = map(id_of.get, content_hashes)
    checksums = document_checksums(model.model_id, collection, doc_ids, content_hashes).tolist()
    return list(zip(repeat(model.model_id), repeat(collection), doc_ids, vector_ids, checksums, strict=False))


def _insert(connection: Connection, rows: list[tuple[int, str, str, int | None, int]]) -> int:
    before = connection.total_changes
    connection.executemany(INSERT, rows)
    return connection.total_changes - before


def delete(connection: Connection, model_id: int, collection: str, doc_ids: Sequence[str] | None) -> int:
    """Remove some doc_ids, or all of a model and collection, and count them."""
    if doc_ids is None:
        return connection.execute(DELETE_SCOPE, (model_id, collection)).rowcount
    return sum(
        connection.execute(DELETE.format(places=places(keys)), (model_id, collection, *keys)).rowcount
        for keys in chunks(doc_ids)
    )


def delete_all(connection: Connection) -> None:
    """Remove all rows."""
    connection.execute(DELETE_ALL)


def count(connection: Connection) -> int:
    """Count all rows."""
    return int(connection.execute(COUNT).fetchone()[0])


def count_distinct_ids(connection: Connection) -> int:
    """Count distinct doc_ids; where there is one model and collection, all are."""
    if len(scopes(connection)) <= 1:
        return count(connection)
    return int(connection.execute(COUNT_DISTINCT).fetchone()[0])
