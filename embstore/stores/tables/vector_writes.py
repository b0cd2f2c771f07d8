"""Writing rows of the table vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from sqlite3 import Connection, OperationalError

import numpy as np
import numpy.typing as npt

from embstore.checksums import vector_checksums
from embstore.codec import HASH_BYTES, Vectors, little_endian, vectors_to_blobs
from embstore.formats import STORED_DTYPES, as_stored
from embstore.stores.base import StoredModel
from embstore.stores.sqlite_errors import CANTOPEN, ERROR, result_code
from embstore.stores.tables import CACHE_KIB, LONGEST_VALUE_BYTES

# What one statement is given.
BYTES_TOGETHER = LONGEST_VALUE_BYTES // 2
ROWS_TOGETHER = 100_000

# A statement of many rows first copies every page that the transaction has changed before it, so that its rows can be
# taken back without the rest. With fewer rows than a hundredth of the table's, there are hardly two for such a page.
LEAST_SHARE_TOGETHER = 1 / 100

LAST_ID = """
SELECT max(vector_id)
FROM vectors
"""

# Rows come in any order of their hashes, so that a group touches most pages of the index on them once it is large.
# With room for less than that index, pages are written and read again within one transaction.
CACHE_SIZE = """
PRAGMA cache_size = -{kib}
"""

_INDEX_BYTES_A_ROW = 80  # of the index on hashes, as full as random keys leave it

INSERT = """
INSERT INTO vectors (model_id, content_hash, dim, standalone, checksum, vector)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (model_id, content_hash) DO NOTHING
"""

# Many rows, cut out of what is bound once: between two of them nothing of Python's happens, whose objects take as long
# as SQLite does, and whose lock another thread may have.
INSERT_TOGETHER = """
INSERT INTO vectors (model_id, content_hash, dim, standalone, checksum, vector)
SELECT ?1, substr(?2, ?3 * key + 1, ?3), ?4, ?5, value, substr(?6, ?7 * key + 1, ?7)
FROM json_each(?8)
WHERE TRUE
ON CONFLICT (model_id, content_hash) DO NOTHING
"""

# A table that somebody has added would be read in the place of a function of its name.
NAMED_LIKE = """
SELECT 1
FROM sqlite_master
WHERE name = ? COLLATE NOCASE
"""

UPSERT = """
INSERT INTO vectors (model_id, content_hash, dim, standalone, checksum, vector)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (model_id, content_hash) DO UPDATE
SET dim = excluded.dim, standalone = excluded.standalone, checksum = excluded.checksum, vector = excluded.vector
"""


def last_id(connection: Connection) -> int:
    """Give the highest vector_id: no fewer than there are vectors, and read without counting them."""
    return int(connection.execute(LAST_ID).fetchone()[0] or 0)


def insert(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> int:
    """Store vectors whose contents have none, and count them; ids ascend in the order given."""
    before = connection.total_changes
    n_there = last_id(connection)
    _make_room(connection, n_there)
    for at in _pieces(len(content_hashes), model):
        keys = content_hashes[at]
        is_few = at.start and len(keys) < LEAST_SHARE_TOGETHER * n_there
        if is_few or not _insert_together(connection, model, keys, vectors[at], standalone=standalone):
            flags = np.full(len(keys), standalone)
            connection.executemany(INSERT, _rows(model, keys, vectors[at], flags))
    return connection.total_changes - before


def _insert_together(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> bool:
    """Do what `insert` does by one statement; False where the function is not SQLite's own, or this SQLite has none."""
    if connection.execute(NAMED_LIKE, ("json_each",)).fetchone() is not None:
        return False
    try:
        connection.execute(INSERT_TOGETHER, _columns(model, content_hashes, vectors, standalone=standalone))
    except OperationalError as error:
        # The latter: there is no folder for the temporary file that a statement of many rows can need.
        if result_code(error) not in (ERROR, CANTOPEN) or not connection.in_transaction:
            raise
        return False
    return True


def upsert(
    connection: Connection,
    model: StoredModel,
    content_hashes: Sequence[bytes],
    vectors: Vectors,
    standalone: npt.NDArray[np.bool_],
) -> None:
    """Store vectors whether their contents have some or not: three times the cost of `insert` where they have none.

    It copies every page that it touches.
    """
    connection.executemany(UPSERT, _rows(model, content_hashes, vectors, standalone))


def _pieces(n: int, model: StoredModel) -> Iterator[slice]:
    row_bytes = model.dim * STORED_DTYPES[model.dtype].itemsize
    n_rows = min(ROWS_TOGETHER, max(1, BYTES_TOGETHER // row_bytes))
    return (slice(start, start + n_rows) for start in range(0, n, n_rows))


def _columns(
    model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> tuple[object, ...]:
    """Give what `INSERT_TOGETHER` is given; raises as `_rows`."""
    values = as_stored(vectors, model.dtype)
    checksums = vector_checksums(model.model_id, content_hashes, standalone, values)
    hashes = (b"".join(content_hashes), HASH_BYTES)
    blobs = (little_endian(values), values.shape[1] * values.itemsize)
    return (model.model_id, *hashes, model.dim, int(standalone), *blobs, str(checksums.tolist()))


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


def _make_room(connection: Connection, n_rows: int) -> None:
    """Let the connection keep the whole index on hashes in memory, however large it has become."""
    kib = CACHE_KIB + n_rows * _INDEX_BYTES_A_ROW // 1024
    connection.execute(CACHE_SIZE.format(kib=int(kib)))
