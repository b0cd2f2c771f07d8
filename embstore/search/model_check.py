"""Whether the live model is the one whose vectors an index holds."""

from __future__ import annotations

import numpy as np

from embstore.canary import check_same_model
from embstore.codec import Vectors
from embstore.encoders import NamedEncoder
from embstore.identity import content_hash
from embstore.search.base import IndexRecord, VectorIndex


def check_model(index: VectorIndex, encoder: NamedEncoder, canary: Vectors) -> None:
    """Compare the canary of a live model with the one that an index notes, or, where it notes none, one of its texts.

    Then the index notes the canary.

    Parameters
    ----------
    canary : ndarray of shape (dim,), float32

    Raises
    ------
    ModelChangedError
    EncoderError
        Of the text.
    """
    filled = f"the collection {index.name!r}"
    cure = "use another collection_name=, or the model that filled it"
    noted = index.canary()
    if noted is not None:
        check_same_model(index.identity, noted, canary, filled=filled, cure=cure)
    elif record := _telling_record(index):
        (encoded,) = encoder.encode([record.document or ""], role="document", batch_size=1)
        stored = record.vector
        assert stored is not None
        # An index may have scaled what it was given.
        check_same_model(index.identity, _unit(stored), _unit(encoded), filled=filled, cure=cure)
    index.note_canary(canary)


def _telling_record(index: VectorIndex) -> IndexRecord | None:
    """Find a record whose text and vector belong together."""
    for page in index.records():
        for record in page:
            if record.vector is not None and content_hash(record.document or "").hex() == record.content_hash:
                return record
    return None


def _unit(vector: Vectors) -> Vectors:
    scaled: Vectors = vector / (np.linalg.norm(vector) or 1)
    return scaled
