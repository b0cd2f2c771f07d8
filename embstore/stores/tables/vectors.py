"""The table vectors."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.checksums import content_sums, is_content
from embstore.codec import Vectors, as_vectors
from embstore.formats import rounded
from embstore.stores.base import StoredModel, VectorLookup
from embstore.stores.tables import SCAN_FROM_KEYS, SCAN_FROM_SHARE, all_rows, chunks, places
from embstore.stores.tables.vector_rows import read, read_together
from embstore.stores.tables.vector_writes import insert, last_id, upsert

NEWEST_AT_MOST = 100_000  # contents, whose hashes are read as one

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

LAST = """
SELECT vector_id, content_hash
FROM vectors
WHERE vector_id = (SELECT max(vector_id) FROM vectors)
"""

# +model_id: with a bare equality the planner takes the index on hashes, and reads all of the model's.
NEWEST = """
SELECT min(vector_id), max(vector_id), CAST(group_concat(content_hash, ?1) AS BLOB)
FROM vectors
WHERE vector_id > ?2 AND +model_id = ?3
"""

IDS = """
SELECT vector_id
FROM vectors
WHERE model_id = ?
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


def ids(connection: Connection, model_id: int) -> npt.NDArray[np.int64]:
    """List the vectors of a model, ascending: (n,)."""
    found = connection.execute(IDS, (model_id,)).fetchall()
    return np.unique(np.array([row[0] for row in found], dtype=np.int64))


def find_ids(connection: Connection, model_id: int, content_hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Find the vector_ids of those contents that are stored, perhaps among others."""
    found: dict[bytes, int] = {}
    if len(content_hashes) >= max(SCAN_FROM_KEYS, SCAN_FROM_SHARE * last_id(connection)):
        found.update(connection.execute(ALL_IDS, (model_id,)))
        return found
    for keys in chunks(content_hashes):
        found.update(connection.execute(FIND_IDS.format(places=places(keys)), (model_id, *keys)))
    return found


def find_new_ids(connection: Connection, model_id: int, content_hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Do what `find_ids` does, at a tenth of the cost where just these contents, in this order, were stored last."""
    keys = list(dict.fromkeys(content_hashes))
    newest = connection.execute(LAST).fetchone()
    # Others are not looked at: the index on hashes can be sound where they are damaged.
    if newest is not None and [newest[1]] == keys[-1:] and len(keys) <= NEWEST_AT_MOST:
        first, last, hashes = connection.execute(NEWEST, ("", newest[0] - len(keys), model_id)).fetchone()
        if hashes == b"".join(keys) and last - first == len(keys) - 1:
            return dict(zip(keys, range(first, last + 1), strict=True))
    return find_ids(connection, model_id, keys)


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
    is_shared, hashes = len(distinct) < len(vector_ids), content_hashes
    if is_shared:
        hashes = [content_hashes[i] for i in first.tolist()]
        if any(hashes[row] != key for row, key in zip(row_of.tolist(), content_hashes, strict=True)):
            return None
    together = read_together(connection, distinct, model, None if is_shared else first)
    if together is None:
        return None
    sums, values = together
    if not is_content(sums, content_sums(hashes)).all():
        return None
    return as_vectors(values[row_of] if is_shared else values)


def replace(
    connection: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> tuple[int, int]:
    """Store vectors in place of any there, and count the contents that had none, and those that had others."""
    last = last_id(connection)
    n_new = insert(connection, model, content_hashes, vectors, standalone=standalone)
    if n_new == len(content_hashes):
        return n_new, 0
    there = look_up(connection, model, content_hashes)
    is_new = there.vector_ids > last
    is_as_it_was = there.found & (there.vectors == rounded(vectors, model.dtype)).all(axis=1)
    is_as_marked = there.standalone >= standalone
    changed = np.flatnonzero(~is_new & ~(is_as_it_was & is_as_marked))
    keys = [content_hashes[i] for i in changed.tolist()]
    upsert(connection, model, keys, vectors[changed], there.standalone[changed] | standalone)
    return n_new, int(np.count_nonzero(~is_new & ~is_as_it_was))


def mark_standalone(connection: Connection, model: StoredModel, content_hashes: Sequence[bytes]) -> None:
    """Note, at those contents that are stored soundly, that the text was cached without an id."""
    there = look_up(connection, model, content_hashes)
    unmarked = np.flatnonzero(there.found & ~there.standalone)
    keys = [content_hashes[i] for i in unmarked.tolist()]
    upsert(connection, model, keys, there.vectors[unmarked], np.ones(len(keys), dtype=np.bool_))


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
    return all_rows(connection, UNUSED)
