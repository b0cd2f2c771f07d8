"""Whether the live model is the one whose vectors an index holds."""

from __future__ import annotations

import numpy as np

from embstore.canary import check_same_model
from embstore.codec import Vectors, as_vectors
from embstore.errors import ModelChangedError
from embstore.identity import content_hash
from embstore.search.base import IndexRecord, VectorIndex, VectorSource


def check_model(index: VectorIndex, source: VectorSource, canary: Vectors) -> None:
    """Compare the canary of a live model with the one that an index notes, or, where it notes none, one of its texts.

    An index that notes none, or that of a model of which it has nothing, notes this one.

    Parameters
    ----------
    source : VectorSource
        Asked for the vector of one of the texts where no canary is noted.
    canary : ndarray of shape (dim,), float32
        The model's, whole also where the index holds truncated vectors.

    Raises
    ------
    ModelChangedError
    EncoderError
        Of the text.
    """
    filled = f"the collection {index.name!r}"
    cure = "use the model that filled it, or another model_name= and collection_name="
    noted = index.canary()
    if noted is not None:
        try:
            check_same_model(index.identity, noted, canary, filled=filled, cure=cure)
            return
        except ModelChangedError:
            if index.is_filled():
                raise
    elif record := _telling_record(index):
        encoded = source.encode(record.document or "")
        # An index may have scaled what it was given.
        check_same_model(index.identity, _unit(record.vector), _unit(encoded), filled=filled, cure=cure)
    index.note_canary(canary)


def _telling_record(index: VectorIndex) -> IndexRecord | None:
    """Find a record whose text and vector belong together."""
    for page in index.records():
        for record in page:
            if record.vector is not None and content_hash(record.document or "").hex() == record.content_hash:
                return record
    return None


def _unit(vector: Vectors | None) -> Vectors:
    wide = np.asarray(vector, dtype=np.float64)  # the length of a float32 vector can be infinite
    return as_vectors(wide / (np.linalg.norm(wide) or 1))
