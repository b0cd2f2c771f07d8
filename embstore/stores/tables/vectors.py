"""The table vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from sqlite3 import Connection, DatabaseError
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.codec import (
    HASH_BYTES,
    Checksums,
    ContentHashes,
    StoredValues,
    Vectors,
    as_vectors,
    content_sums,
    content_sums_of_vectors,
    is_content,
    vector_checksums,
    vectors_to_blobs,
)
from embstore.formats import STORED_DTYPES, as_stored, rounded
from embstore.stores.base import StoredModel, VectorLookup
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import KEYS_AT_ONCE, SCAN_FROM_KEYS, SCAN_FROM_SHARE, chunks, integers, places

FIND_IDS = """
SELECT content_hash, vector_id
FROM vectors
WHERE model_id = ? AND content_hash IN ({places})
"""

ALL_IDS = """
SELECT content_hash, vector_id
FROM vectors
WHERE model_id = ?
"""

READ = """
SELECT vector_id, content_hash, checksum, standalone, vector
FROM vectors
WHERE vector_id IN ({places})
ORDER BY vector_id
"""

READ_RANGE = """
SELECT vector_id, content_hash, checksum, standalone, vector
FROM vectors
WHERE vector_id BETWEEN ? AND ?
ORDER BY vector_id
"""

# Of many rows one row of texts is read: what Python makes of a row takes several times what SQLite does.
TOGETHER = """
SELECT group_concat(checksum), CAST(group_concat(vector, ?) AS BLOB)
FROM vectors
WHERE vector_id IN ({places})
"""

TOGETHER_RANGE = """
SELECT group_concat(checksum), CAST(group_concat(vector, ?) AS BLOB)
FROM vectors
WHERE vector_id BETWEEN ? AND ?
"""

LAST_ID = """
SELECT max(vector_id)
FROM vectors
"""

INSERT = """
INSERT INTO vectors (model_id, content_hash, dim, standalone, checksum, vector)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (model_id, content_hash) DO NOTHING
"""

UPSERT = """
INSERT INTO vectors (model_id, content_hash, dim, standalone, checksum, vector)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (model_id, content_hash) DO UPDATE
SET dim = excluded.dim, standalone = excluded.standalone, checksum = excluded.checksum, vector = excluded.vector
"""

DELETE_UNUSED = """
DELETE FROM vectors
WHERE vector_id IN ({places})
    AND NOT EXISTS (SELECT 1 FROM documents WHERE documents.vector_id = vectors.vector_id)
"""

UNUSED = """
SELECT vector_id, model_id, standalone, length(vector)
FROM vectors
WHERE NOT EXISTS (SELECT 1 FROM documents WHERE documents.vector_id = vectors.vector_id)
"""

DELETE_ALL = """
DELETE FROM vectors
"""

DELETE_OF_MODEL = """
DELETE FROM vectors
WHERE model_id = ?
"""


@dataclass
class Rows:
    """Rows of one model as they are stored, unchecked; row i for the i-th that was asked for.

    Attributes
    ----------
    values : ndarray of shape (n, dim), float32 or float16
        In the format of the model.
    present : ndarray of shape (n,), bool
        There is such a row, and it could be read.
    content_hashes : ndarray of shape (n, 32), uint8
    checksums : ndarray of shape (n,), int64
    standalone : ndarray of shape (n,), uint64
    """

    values: StoredValues
    present: npt.NDArray[np.bool_]
    content_hashes: npt.NDArray[np.uint8]
    checksums: npt.NDArray[np.int64]
    standalone: npt.NDArray[np.uint64]

    @classmethod
    def empty(cls, n: int, model: StoredModel) -> Rows:
        """Make room for n rows."""
        return cls(
            values=np.zeros((n, model.dim), dtype=STORED_DTYPES[model.dtype]),
            present=np.zeros(n, dtype=np.bool_),
            content_hashes=np.zeros((n, HASH_BYTES), dtype=np.uint8),
            checksums=np.zeros(n, dtype=np.int64),
            standalone=np.zeros(n, dtype=np.uint64),
        )

    @property
    def vectors(self) -> Vectors:
        """The values as float32: (n, dim)."""
        return as_vectors(self.values)

    def sound(self, model_id: int, content_hashes: ContentHashes) -> npt.NDArray[np.bool_]:
        """Tell which rows are what was written for these contents: (n,) bool."""
        expected = vector_checksums(model_id, content_hashes, self.standalone, self.values)
        sound: npt.NDArray[np.bool_] = self.present & (self.checksums == expected)
        return sound


def last_id(connection: Connection) -> int:
    """Give the highest vector_id: no fewer than there are vectors, and read without counting them."""
    return int(connection.execute(LAST_ID).fetchone()[0] or 0)


def find_ids(connection: Connection, model_id: int, content_hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Find the vector_ids of those contents that are stored, perhaps among others."""
    found: dict[bytes, int] = {}
    if len(content_hashes) >= max(SCAN_FROM_KEYS, SCAN_FROM_SHARE * last_id(connection)):
        found.update(connection.execute(ALL_IDS, (model_id,)))
        return found
    for keys in chunks(content_hashes):
        found.update(connection.execute(FIND_IDS.format(places=places(keys)), (model_id, *keys)))
    return found


def read(
    connection: Connection,
    vector_ids: npt.NDArray[np.int64],
    model: StoredModel,
    targets: npt.NDArray[np.intp] | None = None,
) -> Rows:
    """Read rows in the order in which the file holds them.

    Parameters
    ----------
    vector_ids : ndarray of shape (n,), int64
        Distinct and ascending.
    model : StoredModel
    targets : ndarray of shape (n,), int, optional
        The place of each row in the result, a permutation; by default that of its id.
    """
    rows = Rows.empty(len(vector_ids), model)
    if targets is None:
        targets = np.arange(len(vector_ids))
    for start in range(0, len(vector_ids), KEYS_AT_ONCE):
        stop = start + KEYS_AT_ONCE
        _read_into(rows, connection, vector_ids[start:stop], targets[start:stop])
    return rows


def _read_into(
    rows: Rows, connection: Connection, vector_ids: npt.NDArray[np.int64], targets: npt.NDArray[np.intp]
) -> None:
    """Read one chunk; where a row of it cannot be read, search for that row by halving."""
    try:
        fetched = _fetch(connection, vector_ids.tolist())
        if not fetched:
            return
        ids, content_hashes, checksums, standalone, blobs = zip(*fetched, strict=True)
        rank = np.minimum(np.searchsorted(vector_ids, ids), len(vector_ids) - 1)
        if not np.array_equal(vector_ids[rank], ids):
            raise ValueError("rows that were not asked for")
        at = targets[rank]
        hash_matrix = _as_matrix(content_hashes, np.dtype(np.uint8))
        values = _as_matrix(blobs, rows.values.dtype)
        rows.checksums[at] = np.array(checksums, dtype=np.int64)
        rows.standalone[at] = np.array(standalone, dtype=np.uint64)
        rows.content_hashes[at] = hash_matrix
        rows.values[at] = values
        rows.present[at] = True
    except (DatabaseError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DatabaseError) and not is_damage(error):
            raise
        if len(vector_ids) > 1:
            middle = len(vector_ids) // 2
            _read_into(rows, connection, vector_ids[:middle], targets[:middle])
            _read_into(rows, connection, vector_ids[middle:], targets[middle:])


def _fetch(connection: Connection, vector_ids: list[int]) -> list[tuple[int, bytes, int, int, bytes]]:
    return _select(connection, READ, READ_RANGE, vector_ids)


def _select(connection: Connection, statement: str, of_range: str, vector_ids: list[int], *first: str) -> list[Any]:
    """Read rows of distinct ascending ids, the quicker way where none is left out between them."""
    if vector_ids[-1] - vector_ids[0] + 1 == len(vector_ids):
        return connection.execute(of_range, (*first, vector_ids[0], vector_ids[-1])).fetchall()
    return connection.execute(statement.format(places=places(vector_ids)), (*first, *vector_ids)).fetchall()


def _as_matrix(blobs: Sequence[bytes], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Lay blobs of one length under each other; TypeError or ValueError where they are not."""
    if len(set(map(len, blobs))) > 1:
        raise ValueError("rows of several lengths")
    return np.frombuffer(b"".join(blobs), dtype=dtype).reshape(len(blobs), -1)


def look_up(connection: Connection, model: StoredModel, content_hashes: Sequence[bytes]) -> VectorLookup:
    """Read the vectors of distinct contents, and check each against the content that was asked for."""
    id_of = find_ids(connection, model.model_id, content_hashes)
    vector_ids = np.fromiter((id_of.get(key, 0) for key in content_hashes), dtype=np.int64, count=len(content_hashes))
    stored = np.flatnonzero(vector_ids)
    order = np.argsort(vector_ids[stored])
    rows = read(connection, vector_ids[stored][order], model, targets=order)
    sound = rows.sound(model.model_id, [content_hashes[i] for i in stored.tolist()])
    if len(stored) == len(content_hashes):
        return VectorLookup(rows.vectors, sound, ~sound, rows.standalone == 1, vector_ids)
    lookup = VectorLookup.empty(len(content_hashes), model.dim)
    lookup.vectors[stored] = rows.vectors
    lookup.found[stored] = sound
    lookup.damaged[stored] = ~sound
    lookup.standalone[stored] = rows.standalone == 1
    lookup.vector_ids[stored] = vector_ids[stored]
    return lookup


def read_sound(
    connection: Connection, model: StoredModel, vector_ids: npt.NDArray[np.int64], content_hashes: Sequence[bytes]
) -> Vectors | None:
    """Read vectors where there is nothing the matter with any of them.

    Parameters
    ----------
    vector_ids : ndarray of shape (n,), int64
    content_hashes : sequence of n bytes
        What each is asked for.

    Returns
    -------
    ndarray of shape (n, dim), float32, or None
        None where one is missing, or not what was written for its content.
    """
    distinct, first, row_of = np.unique(vector_ids, return_index=True, return_inverse=True)
    hashes = [content_hashes[i] for i in first.tolist()]
    is_shared = len(distinct) < len(vector_ids)
    if is_shared and any(hashes[row] != key for row, key in zip(row_of.tolist(), content_hashes, strict=True)):
        return None
    read = read_together(connection, distinct, model, None if is_shared else first)
    if read is None:
        return None
    checksums, values = read
    of_vectors = content_sums_of_vectors(model.model_id, checksums, values)
    if not is_content(of_vectors, content_sums(hashes if is_shared else content_hashes)).all():
        return None
    return as_vectors(values[row_of] if is_shared else values)


def read_together(
    connection: Connection,
    vector_ids: npt.NDArray[np.int64],
    model: StoredModel,
    targets: npt.NDArray[np.intp] | None = None,
) -> tuple[Checksums, StoredValues] | None:
    """Read the checksums and values of rows, unchecked, where all are there; in half the time that `read` takes.

    SQLite puts rows together in the order in which it finds them, that of their ids: should it ever be another, then
    no checksum fits.

    Parameters
    ----------
    vector_ids, model, targets
        As of `read`.

    Returns
    -------
    checksums : ndarray of shape (n,), int64
    values : ndarray of shape (n, dim), float32 or float16
        In the format of the model. None in place of both where a row is missing or is not of these types.
    """
    checksums = np.empty(len(vector_ids), dtype=np.int64)
    values = np.empty((len(vector_ids), model.dim), dtype=STORED_DTYPES[model.dtype])
    for start in range(0, len(vector_ids), KEYS_AT_ONCE):
        some = slice(start, start + KEYS_AT_ONCE)
        ids = vector_ids[some].tolist()
        try:
            ((texts, blob),) = _select(connection, TOGETHER, TOGETHER_RANGE, ids, "")
            at = some if targets is None else targets[some]
            checksums[at] = np.array(integers(texts), dtype=np.int64)
            values[at] = np.frombuffer(blob or b"", dtype=values.dtype).reshape(len(ids), model.dim)
        except (DatabaseError, ValueError) as error:
            if isinstance(error, DatabaseError) and not is_damage(error):
                raise
            return None
    return checksums, values


def insert(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> int:
    """Store vectors whose contents have none, and count them."""
    before = connection.total_changes
    flags = np.full(len(content_hashes), standalone)
    connection.executemany(INSERT, _rows(model, content_hashes, vectors, flags))
    return connection.total_changes - before


def replace(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> tuple[int, int]:
    """Store vectors in place of any there, and count the contents that had none, and those that had others."""
    there = look_up(connection, model, content_hashes)
    flags = there.standalone | standalone
    connection.executemany(UPSERT, _rows(model, content_hashes, vectors, flags))
    is_new = there.vector_ids == 0
    is_as_it_was = there.found & (there.vectors == rounded(vectors, model.dtype)).all(axis=1)
    return int(np.count_nonzero(is_new)), int(np.count_nonzero(~is_new & ~is_as_it_was))


def mark_standalone(connection: Connection, model: StoredModel, content_hashes: Sequence[bytes]) -> None:
    """Note, at those contents that are stored soundly, that the text was cached without an id."""
    there = look_up(connection, model, content_hashes)
    unmarked = np.flatnonzero(there.found & ~there.standalone)
    keys = [content_hashes[i] for i in unmarked.tolist()]
    flags = np.ones(len(keys), dtype=np.bool_)
    connection.executemany(UPSERT, _rows(model, keys, there.vectors[unmarked], flags))


def _rows(
    model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, standalone: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, bytes, int, int, int, bytes]]:
    """Give the rows to be written, checksums included; OutOfRangeError where the model's format has no such value."""
    values = as_stored(vectors, model.dtype)
    checksums = vector_checksums(model.model_id, content_hashes, standalone, values)
    blobs = vectors_to_blobs(values)
    return zip(
        repeat(model.model_id),
        content_hashes,
        repeat(model.dim),
        standalone.astype(np.int64).tolist(),
        checksums.tolist(),
        blobs,
        strict=False,  # the repeats have no end
    )


def delete_unused(connection: Connection, vector_ids: Sequence[int]) -> int:
    """Remove those of the vectors that no document points at, and count them."""
    return sum(connection.execute(DELETE_UNUSED.format(places=places(ids)), ids).rowcount for ids in chunks(vector_ids))


def delete_of_model(connection: Connection, model_id: int) -> None:
    """Remove all vectors of a model, once its documents are gone."""
    connection.execute(DELETE_OF_MODEL, (model_id,))


def delete_all(connection: Connection) -> None:
    """Remove all vectors, once all documents are gone."""
    connection.execute(DELETE_ALL)


def unused(connection: Connection) -> list[tuple[int, int, int, int | None]]:
    """List the vectors that no document points at: (vector_id, model_id, standalone, bytes, None where damaged)."""
    return connection.execute(UNUSED).fetchall()
