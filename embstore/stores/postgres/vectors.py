"""The table vectors of a server.

Whoever writes several rows does so in the order of their content hashes: of transactions that lock the same rows in
other orders most end in a deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.checksums import content_sums, content_sums_of_vectors, is_content, vector_checksums
from embstore.codec import HASH_BYTES, StoredValues, Vectors, are_finite, as_vectors
from embstore.formats import STORED_DTYPES, as_stored, rounded
from embstore.stores.base import StoredModel, VectorLookup
from embstore.stores.postgres.arrays import Array, BoolArray, ByteaArray, Int8Array
from embstore.stores.postgres.pool import Connection
from embstore.stores.tables.vector_rows import Rows

KEYS_AT_ONCE = 4096
BYTES_AT_ONCE = 2**24  # of vectors, in one answer
BYTES_WRITTEN_AT_ONCE = 2**21  # half of a server's usual work_mem, beyond which it unnests and sorts them on its disk

FIND = """
SELECT content_hash, vector_id, checksum, standalone, vector
FROM vectors
WHERE model_id = %s AND content_hash = ANY(%b)
"""

READ = """
SELECT vector_id, content_hash, checksum, standalone, vector
FROM vectors
WHERE vector_id = ANY(%b)
"""

# Ids ascend in the order in which vectors are given, whatever the order in which they are written. The sequence is
# asked for in a query of its own, which is run once: for each row anew it took an eighth of all the time.
NEXT_ID = "nextval((SELECT pg_get_serial_sequence('vectors', 'vector_id')::regclass))"

NEW_IDS = f"""
SELECT {NEXT_ID}
FROM generate_series(1, %s)
"""

_INSERT = """
INSERT INTO vectors (vector_id, model_id, content_hash, dim, standalone, checksum, vector)
SELECT vector_id, %s, content_hash, %s, standalone, checksum, vector
FROM {given}
ORDER BY content_hash
ON CONFLICT (model_id, content_hash) DO NOTHING
"""

INSERT = _INSERT.format(
    given=f"""(
    SELECT {NEXT_ID} AS vector_id, content_hash, standalone, checksum, vector
    FROM unnest(%b, %b, %b, %b) AS given (content_hash, standalone, checksum, vector)
) AS given"""
)

INSERT_WITH_IDS = _INSERT.format(
    given="unnest(%b, %b, %b, %b, %b) AS given (content_hash, standalone, checksum, vector, vector_id)"
)

UPSERT = """
INSERT INTO vectors (model_id, content_hash, dim, standalone, checksum, vector)
SELECT %s, content_hash, %s, standalone, checksum, vector
FROM unnest(%b, %b, %b, %b) AS given (content_hash, standalone, checksum, vector)
ORDER BY content_hash
ON CONFLICT (model_id, content_hash) DO UPDATE
SET dim = excluded.dim, standalone = excluded.standalone, checksum = excluded.checksum, vector = excluded.vector
"""

# Of rows that this transaction has locked.
MARK = """
UPDATE vectors
SET standalone = TRUE, checksum = given.checksum
FROM unnest(%b, %b) AS given (content_hash, checksum)
WHERE vectors.model_id = %s AND vectors.content_hash = given.content_hash
"""

FIND_TO_CHANGE = f"{FIND}ORDER BY content_hash\nFOR NO KEY UPDATE\n"

LAST_ID = """
SELECT max(vector_id)
FROM vectors
"""


def look_up(connection: Connection, model: StoredModel, content_hashes: Sequence[bytes]) -> VectorLookup:
    """Read the vectors of distinct contents, and check each against the content that was asked for."""
    return _look_up(connection, FIND, model, content_hashes, content_hashes)


def _look_up(
    connection: Connection,
    statement: str,
    model: StoredModel,
    content_hashes: Sequence[bytes],
    in_this_order: Sequence[bytes],
) -> VectorLookup:
    fetched: list[Any] = []
    for keys in chunks(in_this_order, model):
        fetched += connection.execute(statement, (model.model_id, ByteaArray(keys)), binary=True).fetchall()
    row_of = {key: row for row, key in enumerate(content_hashes)}
    lookup = VectorLookup.empty(len(content_hashes), model.dim)
    if not fetched:
        return lookup
    hashes, vector_ids, checksums, standalone, blobs = zip(*fetched, strict=True)
    at = np.array([row_of[key] for key in hashes], dtype=np.intp)
    rows = as_rows(model, hashes, checksums, standalone, blobs)
    sound = rows.sound(model.model_id, rows.content_hashes)
    lookup.vectors[at] = rows.vectors
    lookup.found[at] = sound
    lookup.damaged[at] = ~sound
    lookup.standalone[at] = rows.standalone == 1
    lookup.vector_ids[at] = vector_ids
    return lookup


def read(connection: Connection, model: StoredModel, vector_ids: npt.NDArray[np.int64]) -> Rows:
    """Read rows of distinct, ascending ids, unchecked, in this order; `present` tells which are there."""
    rows = Rows.empty(len(vector_ids), model)
    for some in chunks(vector_ids, model):
        fetched = connection.execute(READ, (Int8Array(some),), binary=True).fetchall()
        if not fetched:
            continue
        ids, *columns = zip(*fetched, strict=True)
        at = np.searchsorted(vector_ids, ids)
        read = as_rows(model, *columns)
        rows.values[at], rows.present[at] = read.values, read.present
        rows.content_hashes[at], rows.checksums[at], rows.standalone[at] = (
            read.content_hashes,
            read.checksums,
            read.standalone,
        )
    return rows


def as_rows(
    model: StoredModel,
    content_hashes: Sequence[bytes],
    checksums: Sequence[int],
    standalone: Sequence[bool],
    blobs: Sequence[bytes],
) -> Rows:
    """Lay rows under each other; one whose vector has another length than the model's is not present."""
    values, is_whole = as_values(model, blobs)
    return Rows(
        values=values,
        present=is_whole,
        content_hashes=np.frombuffer(b"".join(content_hashes), dtype=np.uint8).reshape(-1, HASH_BYTES),
        checksums=np.array(checksums, dtype=np.int64),
        standalone=np.array(standalone, dtype=np.uint64),
    )


def as_values(model: StoredModel, blobs: Sequence[bytes]) -> tuple[StoredValues, npt.NDArray[np.bool_]]:
    """Give the values of n vectors, (n, dim), and which have the length of the model's: (n,)."""
    dtype = STORED_DTYPES[model.dtype]
    n_bytes = model.dim * dtype.itemsize
    is_whole = np.fromiter((len(blob) == n_bytes for blob in blobs), dtype=np.bool_, count=len(blobs))
    if not is_whole.all():
        blobs = [blob if len(blob) == n_bytes else bytes(n_bytes) for blob in blobs]
    return np.frombuffer(b"".join(blobs), dtype=dtype).reshape(len(blobs), model.dim), is_whole


def sound_vectors(
    model: StoredModel, checksums: Sequence[int], blobs: Sequence[bytes], content_hashes: Sequence[bytes]
) -> Vectors | None:
    """Give the vectors of n rows, (n, dim), where each is what was written for its content; else None."""
    values, is_whole = as_values(model, blobs)
    if not is_whole.all() or not are_finite(values):
        return None
    sums = content_sums_of_vectors(model.model_id, np.array(checksums, dtype=np.int64), values)
    return as_vectors(values) if is_content(sums, content_sums(content_hashes)).all() else None


def insert(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> int:
    """Store vectors whose contents have none, and count them."""
    flags = np.full(len(content_hashes), standalone)
    return _insert(connection, model, content_hashes, vectors, flags)


def replace(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> tuple[int, int]:
    """Store vectors in place of any there, and count the contents that had none, and those that had others."""
    there = _look_up(connection, FIND_TO_CHANGE, model, content_hashes, sorted(content_hashes))
    is_new = there.vector_ids == 0
    is_as_it_was = there.found & (there.vectors == rounded(vectors, model.dtype)).all(axis=1)
    is_as_marked = there.standalone >= standalone
    flags = there.standalone | standalone
    new = np.flatnonzero(is_new)
    keys = [content_hashes[i] for i in new.tolist()]
    n_new = _insert(connection, model, keys, vectors[new], flags[new])
    n_changed = int(np.count_nonzero(~is_new & ~is_as_it_was))
    if n_new < len(keys):  # another process was first, and the next look sees what it wrote
        _, n_more = replace(connection, model, keys, vectors[new], standalone=standalone)
        n_changed += n_more
    there_already = np.flatnonzero(~is_new & ~(is_as_it_was & is_as_marked))
    keys = [content_hashes[i] for i in there_already.tolist()]
    _upsert(connection, model, keys, vectors[there_already], flags[there_already])
    return n_new, n_changed


def mark_standalone(connection: Connection, model: StoredModel, content_hashes: Sequence[bytes]) -> None:
    """Note, at those contents that are stored soundly, that the text was cached without an id."""
    there = _look_up(connection, FIND_TO_CHANGE, model, content_hashes, sorted(content_hashes))
    unmarked = np.flatnonzero(there.found & ~there.standalone)
    keys = [content_hashes[i] for i in unmarked.tolist()]
    if keys:
        values = as_stored(there.vectors[unmarked], model.dtype)
        checksums = vector_checksums(model.model_id, keys, np.ones(len(keys), dtype=np.bool_), values)
        connection.execute(MARK, (ByteaArray(keys), Int8Array(checksums), model.model_id))


def last_id(connection: Connection) -> int:
    """Give the highest vector_id: no fewer than there are vectors, and read without counting them."""
    return int(connection.execute(LAST_ID, binary=True).fetchall()[0][0] or 0)


def _insert(
    connection: Connection,
    model: StoredModel,
    content_hashes: Sequence[bytes],
    vectors: Vectors,
    standalone: npt.NDArray[np.bool_],
) -> int:
    """Write rows whose contents have none, and count them; OutOfRangeError where the format has no such value."""
    if not content_hashes:
        return 0
    pieces = list(_slices(len(content_hashes), model, BYTES_WRITTEN_AT_ONCE))
    if len(pieces) == 1:
        columns = _columns(model, content_hashes, vectors, standalone)
        return connection.execute(INSERT, (model.model_id, model.dim, *columns)).rowcount
    ids = np.array(connection.execute(NEW_IDS, (len(content_hashes),), binary=True).fetchall(), dtype=np.int64)
    order = np.array(sorted(range(len(content_hashes)), key=content_hashes.__getitem__), dtype=np.intp)
    n_written = 0
    for at in (order[some] for some in pieces):  # in one order over all pieces
        keys = [content_hashes[i] for i in at.tolist()]
        columns = _columns(model, keys, vectors[at], standalone[at])
        values = (model.model_id, model.dim, *columns, Int8Array(ids[at]))
        n_written += connection.execute(INSERT_WITH_IDS, values).rowcount
    return n_written


def _upsert(
    connection: Connection,
    model: StoredModel,
    content_hashes: Sequence[bytes],
    vectors: Vectors,
    standalone: npt.NDArray[np.bool_],
) -> None:
    """Write rows in place of those that this transaction has locked."""
    for some in _slices(len(content_hashes), model, BYTES_WRITTEN_AT_ONCE):
        columns = _columns(model, content_hashes[some], vectors[some], standalone[some])
        connection.execute(UPSERT, (model.model_id, model.dim, *columns))


def _columns(
    model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, standalone: npt.NDArray[np.bool_]
) -> tuple[Array, ...]:
    values = as_stored(vectors, model.dtype)
    checksums = vector_checksums(model.model_id, content_hashes, standalone, values)
    return ByteaArray(content_hashes), BoolArray(standalone), Int8Array(checksums), ByteaArray(values)


def chunks(keys: Any, model: StoredModel) -> Iterator[Any]:
    """Cut keys into pieces whose vectors fit one answer."""
    return (keys[some] for some in _slices(len(keys), model))


def _slices(n: int, model: StoredModel, n_bytes: int = BYTES_AT_ONCE) -> Iterator[slice]:
    n_rows = min(KEYS_AT_ONCE, max(1, n_bytes // (model.dim * STORED_DTYPES[model.dtype].itemsize)))
    return (slice(start, start + n_rows) for start in range(0, n, n_rows))
