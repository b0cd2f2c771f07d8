"""Reading rows of the table vectors by their ids: each by itself, or many as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from sqlite3 import Connection, DatabaseError
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.background import Background
from embstore.checksums import ContentHashes, Words, content_sums_of_vectors, vector_checksums
from embstore.codec import HASH_BYTES, StoredValues, Vectors, are_finite, as_vectors
from embstore.errors import DamagedStoreError
from embstore.formats import STORED_DTYPES
from embstore.stores.base import StoredModel
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import (
    KEYS_AT_ONCE,
    LONGEST_VALUE_BYTES,
    PAGE_COUNT,
    PAGE_SIZE,
    integers,
    places,
    vector_pages,
)

BYTES_TOGETHER = LONGEST_VALUE_BYTES // 2

ROWS_ALONE = 2000  # fewer are not worth a thread

_ROOM_UNASKED = 2**24  # bytes that are made room for without a look at the size of the file

# A vector of another length, which is none of the model, is not read.
READ = """
SELECT vector_id, content_hash, checksum, standalone, vector
FROM vectors
WHERE length(vector) = ? AND vector_id IN ({places})
ORDER BY vector_id
"""

READ_RANGE = """
SELECT vector_id, content_hash, checksum, standalone, vector
FROM vectors
WHERE length(vector) = ? AND vector_id BETWEEN ? AND ?
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
        return sound if are_finite(self.values) else sound & np.isfinite(self.values).all(axis=1)


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
    check_room(connection, len(vector_ids), model)
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
        fetched = _fetch(connection, rows.values[0].nbytes, vector_ids.tolist())
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


def _fetch(connection: Connection, n_bytes: int, vector_ids: list[int]) -> list[tuple[int, bytes, int, int, bytes]]:
    return _select(connection, READ, READ_RANGE, vector_ids, n_bytes)


def _select(
    connection: Connection, statement: str, of_range: str, vector_ids: list[int], first: str | int
) -> list[Any]:
    """Read rows of distinct ascending ids, the quicker way where none is left out between them."""
    if vector_ids[-1] - vector_ids[0] + 1 == len(vector_ids):
        cursor = connection.execute(of_range, (first, vector_ids[0], vector_ids[-1]))
    else:
        cursor = connection.execute(statement.format(places=places(vector_ids)), (first, *vector_ids))
    return cursor.fetchmany(len(vector_ids) + 1)  # there are more where pages lead back to themselves


def _as_matrix(blobs: Sequence[bytes], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Lay blobs of one length under each other; TypeError or ValueError where they are not."""
    if len(set(map(len, blobs))) > 1:
        raise ValueError("rows of several lengths")
    return np.frombuffer(b"".join(blobs), dtype=dtype).reshape(len(blobs), -1)


def check_room(connection: Connection, n: int, model: StoredModel) -> None:
    """Refuse to make room for more distinct vectors than a file of its size holds.

    Raises
    ------
    DamagedStoreError
        The pointers at vectors are more, or the model's dim is larger, than can be true.
    """
    n_bytes = n * model.dim * STORED_DTYPES[model.dtype].itemsize
    if n_bytes < _ROOM_UNASKED:
        return
    (n_pages,), (page_bytes,) = (connection.execute(pragma).fetchone() for pragma in (PAGE_COUNT, PAGE_SIZE))
    if n_bytes > n_pages * page_bytes:
        raise DamagedStoreError(
            f"{n} vectors of model {str(model.identity)!r:.80} with {model.dim} values each are more than the file "
            f"holds; see verify(), and restore the file from a copy",
            model_name=model.identity.model_name,
        )


def read_together(
    connection: Connection,
    vector_ids: npt.NDArray[np.int64],
    model: StoredModel,
    targets: npt.NDArray[np.intp] | None = None,
) -> tuple[Words, StoredValues] | None:
    """Read rows where all are there, in a third of the time that `read` takes.

    SQLite puts rows together in the order in which it finds them, that of their ids: should it ever be another, then
    no checksum fits.

    Parameters
    ----------
    vector_ids, model, targets
        As of `read`.

    Returns
    -------
    content_sums : ndarray of shape (n,), uint64
        What the contents that they were written for make up of their checksums, to be compared: `is_content`.
    values : ndarray of shape (n, dim), float32 or float16
        In the format of the model. None in place of both where a row is missing or is not of these types.
    """
    check_room(connection, len(vector_ids), model)
    read_off = vector_pages.read(connection, vector_ids, model, targets)
    if read_off is not None:
        return read_off
    sums = np.empty(len(vector_ids), dtype=np.uint64)
    stored_dtype = STORED_DTYPES[model.dtype]
    values = np.empty((len(vector_ids), model.dim), dtype=stored_dtype)
    n_rows = min(KEYS_AT_ONCE, max(1, BYTES_TOGETHER // (model.dim * values.itemsize)))

    def take_apart(n: int, at: slice | npt.NDArray[np.intp], checksums: str | None, blob: bytes | None) -> None:
        some: StoredValues = np.frombuffer(blob or b"", dtype=stored_dtype).reshape(n, -1)
        if not are_finite(some):
            raise ValueError("NaN or infinite values, which are never written")
        sums[at] = content_sums_of_vectors(model.model_id, integers(checksums), some)
        values[at] = some

    try:
        with Background() as background:  # while SQLite reads the next rows
            for start in range(0, len(vector_ids), n_rows):
                some = slice(start, start + n_rows)
                ids = vector_ids[some].tolist()
                ((checksums, blob),) = _select(connection, TOGETHER, TOGETHER_RANGE, ids, "")
                work = partial(take_apart, len(ids), some if targets is None else targets[some], checksums, blob)
                if len(vector_ids) > ROWS_ALONE:
                    background.submit(work)
                else:
                    work()
            background.wait()
    except (DatabaseError, ValueError) as error:
        if isinstance(error, DatabaseError) and not is_damage(error):
            raise
        return None
    return sums, values
