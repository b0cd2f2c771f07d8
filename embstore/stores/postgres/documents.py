"""The table documents of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.checksums import content_sums, content_sums_of_documents, document_checksums
from embstore.codec import Vectors
from embstore.errors import StoreError
from embstore.stores.base import StoredModel
from embstore.stores.postgres import vectors
from embstore.stores.postgres.arrays import ByteaArray, Int8Array, TextArray
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import check_keys, given, stored

KEYS_AT_ONCE = 4096

FIND = """
SELECT doc_id, vector_id, checksum
FROM documents
WHERE model_id = %s AND collection = %s AND doc_id = ANY(%b)
"""

FIND_WITH_VECTORS = """
SELECT documents.doc_id, documents.checksum, vectors.checksum, vectors.vector
FROM documents
JOIN vectors ON vectors.vector_id = documents.vector_id
WHERE documents.model_id = %s AND documents.collection = %s AND documents.doc_id = ANY(%b)
"""

# A document with its vector and the checksum of its model.
FIND_ONE = """
SELECT models.checksum, documents.checksum, vectors.checksum, vectors.vector
FROM documents
JOIN vectors ON vectors.vector_id = documents.vector_id
JOIN models ON models.model_id = documents.model_id
WHERE documents.model_id = %s AND documents.collection = %s AND documents.doc_id = %s
"""

# In the order of the key, so that two who write the same documents meet in no deadlock.
INSERT = """
INSERT INTO documents (model_id, collection, doc_id, vector_id, checksum)
SELECT %s, %s, given.doc_id, vectors.vector_id, given.checksum
FROM unnest(%b, %b, %b) AS given (doc_id, content_hash, checksum)
JOIN vectors ON vectors.model_id = %s AND vectors.content_hash = given.content_hash
ORDER BY given.doc_id COLLATE "C"
ON CONFLICT (model_id, collection, doc_id)
"""

PUT = f"{INSERT} DO UPDATE SET vector_id = excluded.vector_id, checksum = excluded.checksum"

ADD = f"{INSERT} DO NOTHING"

# One search of the key for each, not a scan.
SCOPES = """
WITH RECURSIVE scope (model_id, collection) AS (
    (SELECT model_id, collection FROM documents ORDER BY model_id, collection LIMIT 1)
    UNION ALL
    SELECT later.model_id, later.collection
    FROM scope
    CROSS JOIN LATERAL (
        SELECT model_id, collection
        FROM documents
        WHERE (documents.model_id, documents.collection) > (scope.model_id, scope.collection)
        ORDER BY model_id, collection
        LIMIT 1
    ) AS later
)
SELECT model_id, collection
FROM scope
"""


def scopes(
    connection: Connection, model_ids: Sequence[int] | None = None, collection: str | None = None
) -> list[tuple[int, str]]:
    """List the (model_id, collection) that have documents."""
    rows = connection.execute(SCOPES, binary=True).fetchall()
    return [
        (model_id, given(name))
        for model_id, name in rows
        if (model_ids is None or model_id in model_ids) and collection in (None, given(name))
    ]


def pointers(
    connection: Connection,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> npt.NDArray[np.int64]:
    """Give the vector that each of n doc_ids points at, 0 where it is not stored, soundly, with this content: (n,)."""
    rows = _find(connection, FIND, model, collection, doc_ids)
    there = np.array([rows.get(doc_id, (0, 0)) for doc_id in doc_ids], dtype=np.int64).reshape(-1, 2)
    expected = document_checksums(model.model_id, collection, doc_ids, content_hashes)
    return np.where(there[:, 1] == expected, there[:, 0], 0)


def read_sound(
    connection: Connection,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> Vectors | None:
    """Read the vectors of n documents that are stored with these contents, all of them and soundly; else None."""
    rows = _find(connection, FIND_WITH_VECTORS, model, collection, doc_ids)
    try:
        columns = [rows[doc_id] for doc_id in doc_ids]
    except KeyError:
        return None
    of_documents, of_vectors, blobs = zip(*columns, strict=True) if columns else ((), (), ())
    checksums = np.array(of_documents, dtype=np.int64)
    sums = content_sums_of_documents(model.model_id, collection, doc_ids, checksums)
    if not np.array_equal(sums, content_sums(content_hashes)):
        return None
    return vectors.sound_vectors(model, of_vectors, blobs, content_hashes)


def put(
    connection: Connection, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
) -> None:
    """Point distinct doc_ids at the vectors of contents, which are stored.

    Raises
    ------
    InvalidInputError
        One is longer than what a server can find again.
    StoreError
        The vector of one is not stored.
    """
    n_written = _write(connection, PUT, model, collection, doc_ids, content_hashes)
    if n_written != len(doc_ids):
        raise StoreError(f"of {len(doc_ids)} documents {len(doc_ids) - n_written} have contents without a vector")


def insert(
    connection: Connection, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
) -> int:
    """Point those of distinct doc_ids that are not there at vectors of contents, which are; count them."""
    return _write(connection, ADD, model, collection, doc_ids, content_hashes)


def _find(
    connection: Connection, statement: str, model: StoredModel, collection: str, doc_ids: Sequence[str]
) -> dict[str, tuple[Any, ...]]:
    """Read the other columns of those documents that are there."""
    found: dict[str, tuple[Any, ...]] = {}
    scope = (model.model_id, stored(collection))
    for some in vectors.chunks(doc_ids, model):
        keys = TextArray([stored(doc_id).encode() for doc_id in some])
        for doc_id, *columns in connection.execute(statement, (*scope, keys), binary=True).fetchall():
            found[given(doc_id)] = tuple(columns)
    return found


def _write(
    connection: Connection,
    statement: str,
    model: StoredModel,
    collection: str,
    doc_ids: Sequence[str],
    content_hashes: Sequence[bytes],
) -> int:
    n_written = 0
    order = sorted(range(len(doc_ids)), key=doc_ids.__getitem__)  # over the pieces too
    doc_ids, content_hashes = [doc_ids[i] for i in order], [content_hashes[i] for i in order]
    checksums = document_checksums(model.model_id, collection, doc_ids, content_hashes)
    for start in range(0, len(doc_ids), KEYS_AT_ONCE):
        some = slice(start, start + KEYS_AT_ONCE)
        keys = [stored(doc_id).encode() for doc_id in doc_ids[some]]
        check_keys(collection, keys)
        arrays = TextArray(keys), ByteaArray(content_hashes[some]), Int8Array(checksums[some])
        values = (model.model_id, stored(collection), *arrays, model.model_id)
        n_written += connection.execute(statement, values).rowcount
    return n_written
