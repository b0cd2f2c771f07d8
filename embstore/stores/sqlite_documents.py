"""Reading single documents of an SQLite file: from memory where they were read before, and nobody has written since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embstore.checksums import is_sound
from embstore.codec import StoredValues, Vectors, are_finite
from embstore.formats import STORED_DTYPES
from embstore.stores.base import StoredModel
from embstore.stores.btrees.states import State
from embstore.stores.connection import Database
from embstore.stores.tables import joined

# In memory. Who asks for more seldom asks for one twice: then all go, and there is no need to choose.
MOST_BYTES = 8 * 2**20
_BYTES_A_DOCUMENT = 512  # besides its vector and its texts, of up to 4 bytes a character

_Key = tuple[int, int, str, str, bytes]


class _Recent:
    """Documents that were read in one state of the file."""

    def __init__(self, state: State | None) -> None:
        self.state = state
        self.values: dict[_Key, StoredValues] = {}
        self.n_bytes = 0


class SQLiteDocuments:
    """Single documents of a file.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent = _Recent(None)

    def read(
        self, model: StoredModel, model_checksum: int, collection: str, doc_id: str, content_hash: bytes
    ) -> Vectors | None:
        """Give the vector of a document that is recorded for a content, of a model that is as it was found."""
        key = (model.model_id, model_checksum, collection, doc_id, content_hash)
        recent = self._recent
        values = recent.values.get(key)
        if values is None or self._database.state() != recent.state:
            rows, state = self._database.fetch(joined.ONE, (model.model_id, collection, doc_id))
            values = _sound_values(model, key, rows)
            if values is not None and state is not None:
                self._keep(state, key, values)
        return None if values is None else values.astype(np.float32)

    def _keep(self, state: State, key: _Key, values: StoredValues) -> None:
        _, _, collection, doc_id, _ = key
        n_bytes = values.nbytes + 4 * (len(doc_id) + len(collection)) + _BYTES_A_DOCUMENT
        recent = self._recent
        if recent.state != state or recent.n_bytes + n_bytes > MOST_BYTES:
            recent = self._recent = _Recent(state)
        if n_bytes <= MOST_BYTES:
            recent.values[key] = values
            recent.n_bytes += n_bytes


def _sound_values(model: StoredModel, key: _Key, rows: Sequence[Any]) -> StoredValues | None:
    """Check the rows that SQLite gives for a key; None where there are none, or something is the matter with them."""
    model_id, model_checksum, collection, doc_id, content_hash = key
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
