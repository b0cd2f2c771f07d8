"""Reading single documents of an SQLite file: from memory where they were read before, and nobody has written since."""

from __future__ import annotations

import numpy as np

from embstore.checksums import is_sound
from embstore.codec import StoredValues, Vectors, are_finite
from embstore.formats import STORED_DTYPES
from embstore.stores.base import StoredModel
from embstore.stores.btrees.states import State
from embstore.stores.connection import Database
from embstore.stores.tables import joined

# Of vectors in memory. Where there are more, all go: one after another is asked for, and none again.
MOST_BYTES = 8 * 2**20

_Key = tuple[int, int, str, str, bytes]


class SQLiteDocuments:
    """Single documents of a file.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent: tuple[State, dict[_Key, StoredValues]] = (b"", {})  # of one state of the file

    def read(
        self, model: StoredModel, model_checksum: int, collection: str, doc_id: str, content_hash: bytes
    ) -> Vectors | None:
        """Give the vector of a document that is recorded for a content, of a model that is as it was found."""
        key = (model.model_id, model_checksum, collection, doc_id, content_hash)
        of_state, recent = self._recent
        values = recent.get(key)
        if values is None or not self._database.is_in(of_state):
            state = self._database.state()
            values = self._values(model, key)
            # What was read is of this state where nothing was committed in between.
            if values is not None and state is not None and self._database.state() == state:
                self._keep(state, key, values)
        return None if values is None else values.astype(np.float32)

    def _values(self, model: StoredModel, key: _Key) -> StoredValues | None:
        """Ask SQLite; None where the document is not there, or something is the matter with it."""
        model_id, model_checksum, collection, doc_id, content_hash = key
        rows = self._database.fetch(joined.ONE, (model_id, collection, doc_id))
        try:
            ((checksum_now, doc_checksum, checksum, blob),) = rows
            values: StoredValues = np.frombuffer(blob, STORED_DTYPES[model.dtype])
            are_numbers = type(checksum) is type(doc_checksum) is int  # damage can make a fraction of one
            if (
                checksum_now == model_checksum
                and are_numbers
                and len(values) == model.dim
                and is_sound(model_id, model.dim, blob, checksum, collection, doc_id, doc_checksum, content_hash)
                and are_finite(values)
            ):
                return values
        except (TypeError, ValueError):  # not there, or damaged
            pass
        return None

    def _keep(self, state: State, key: _Key, values: StoredValues) -> None:
        of_state, recent = self._recent
        if state != of_state or len(recent) * values.nbytes >= MOST_BYTES:
            recent = {}
            self._recent = (state, recent)
        recent[key] = values
