"""The table vectors, rewritten in another format: every row is checked on the way, and only its values change."""

from __future__ import annotations

from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.checksums import vector_checksums
from embstore.codec import vectors_to_blobs
from embstore.errors import DamagedStoreError
from embstore.formats import as_stored
from embstore.identity import Dtype
from embstore.stores.base import StoredModel
from embstore.stores.tables import KEYS_AT_ONCE, documents, vector_rows

# By the table itself: what an index with damaged keys leaves out would stay in the old format.
TABLE_IDS = """
SELECT vector_id
FROM vectors NOT INDEXED
WHERE model_id = ?
ORDER BY vector_id
"""

COUNT_OF_MODEL = """
SELECT count(*)
FROM vectors
WHERE model_id = ?
"""

UPDATE = """
UPDATE vectors
SET checksum = ?, vector = ?
WHERE vector_id = ?
"""


def convert(connection: Connection, model: StoredModel, dtype: Dtype) -> int:
    """Rewrite all vectors of a model, 500 at a time, and count them.

    Raises
    ------
    DamagedStoreError
        A row is not what was written, or a key of the table is damaged.
    OutOfRangeError
        A value is too large for the format.
    """
    ids = np.fromiter((row[0] for row in connection.execute(TABLE_IDS, (model.model_id,))), dtype=np.int64)
    (n_indexed,) = connection.execute(COUNT_OF_MODEL, (model.model_id,)).fetchone()
    if len(ids) != n_indexed or (np.diff(ids) <= 0).any():
        raise DamagedStoreError(
            f"the table vectors has damaged keys: {len(ids)} rows are of model {str(model.identity)!r}, its index has "
            f"{n_indexed}; nothing was converted, see verify()",
            model_name=model.identity.model_name,
        )
    for start in range(0, len(ids), KEYS_AT_ONCE):
        _convert_some(connection, model, dtype, ids[start : start + KEYS_AT_ONCE])
    return len(ids)


def _convert_some(connection: Connection, model: StoredModel, dtype: Dtype, ids: npt.NDArray[np.int64]) -> None:
    stored = vector_rows.read(connection, ids, model)
    sound = stored.sound(model.model_id, stored.content_hashes)
    if not sound.all():
        what = _name(connection, model, int(ids[np.argmin(sound)]))
        raise DamagedStoreError(
            f"{what} of model {str(model.identity)!r} is damaged, and nothing was converted; get_many with its text "
            f"mends it, verify() lists all",
            model_name=model.identity.model_name,
        )
    values = as_stored(stored.vectors, dtype, lambda row: _name(connection, model, int(ids[row])))
    checksums = vector_checksums(model.model_id, stored.content_hashes, stored.standalone, values)
    connection.executemany(UPDATE, zip(checksums.tolist(), vectors_to_blobs(values), ids.tolist(), strict=True))


def _name(connection: Connection, model: StoredModel, vector_id: int) -> str:
    """Call a vector by the first document that points at it."""
    of_documents = documents.of_vectors(connection, model.model_id, vector_id, vector_id)
    whose = f"doc_id {of_documents[0][1]!r:.80}" if of_documents else "no document"
    return f"the stored vector of {whose} (vector_id {vector_id})"
