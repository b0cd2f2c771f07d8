"""What a call of the cache asks for, what the store has of it, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.stores.base import StoredModel, VectorLookup


@dataclass(frozen=True)
class FillReport:
    """Vectors, and what they cost.

    Attributes
    ----------
    vectors : ndarray of shape (n, dim), float32
        In the caller's order.
    n_encoded : int
        Distinct texts that the model encoded, canaries not counted.
    n_hits : int
        Distinct texts that were stored.
    encode_s : float
        Seconds that the model took for them.
    """

    vectors: Vectors
    n_encoded: int
    n_hits: int
    encode_s: float


class Cost(NamedTuple):
    """What it took a model to encode some texts: their characters, and seconds."""

    n_chars: int
    seconds: float


class Contents:
    """The distinct contents of a call: `keys[row_of[i]]` is the hash of the i-th text."""

    def __init__(self, texts: Sequence[str], content_hashes: Sequence[bytes]) -> None:
        text_of = dict(zip(content_hashes, texts, strict=True))
        self.keys = list(text_of)
        self.texts = list(text_of.values())
        self.row_of: npt.NDArray[np.intp] = np.arange(len(texts))
        if len(self.keys) < len(texts):
            row_of_key = {key: row for row, key in enumerate(self.keys)}
            self.row_of = np.array([row_of_key[key] for key in content_hashes], dtype=np.intp)

    def in_callers_order(self, rows: Vectors) -> Vectors:
        """Give each text of the call the row of its content."""
        return rows if len(self.keys) == len(self.row_of) else rows[self.row_of]


class Found(NamedTuple):
    """What the store had when a call began.

    Attributes
    ----------
    model : StoredModel or None
    lookup : VectorLookup
        Of the distinct contents of the call.
    unrecorded : list of (doc_id, row)
        Documents whose content is stored and who are not, or point elsewhere; "" for a text without an id that is
        not marked so.
    """

    model: StoredModel | None
    lookup: VectorLookup
    unrecorded: list[tuple[str, int]]
