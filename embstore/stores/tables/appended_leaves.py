"""Reading vectors off leaves that were filled by appending: one copy from the page to its place in the result."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from embstore.background import Background
from embstore.codec import HASH_BYTES
from embstore.stores.btrees.appended import FLAG, KEY, LONG_INTEGER, AppendedLeaf, Value
from embstore.stores.btrees.cells import MOST_VARINT_BYTES
from embstore.stores.btrees.pager import Bytes, Pager
from embstore.stores.tables.vector_leaves import Leaves, Places, Wanted

_PIECES_ALONE = 2  # fewer are not worth a thread


def read(pager: Pager, leaves: Leaves, wanted: Wanted) -> Leaves:
    """Read the wanted rows of leaves that are as was expected and have no other rows; give the other leaves.

    Raises
    ------
    UnreadableError, OSError, ValueError
        SQLite has to be asked.
    """
    pieces: list[_Piece] = []
    is_left = np.ones(len(leaves), dtype=np.bool_)
    first_ids, last_ids = wanted.ids[leaves.starts], wanted.ids[leaves.stops - 1]
    n_at_once = leaves.n_at_once(pager.page_bytes)
    pages = np.empty((n_at_once, pager.page_bytes), dtype=np.uint8)
    for key_bytes in range(1, MOST_VARINT_BYTES + 1):
        form = _form(wanted.model.model_id, wanted.model.dim, wanted.row_bytes, pager.page_bytes, key_bytes)
        is_full = leaves.stops - leaves.starts == form.n_rows  # as there is at least one, none are where that is 0
        at = np.flatnonzero(is_full & (first_ids >= form.lowest_key) & (last_ids <= form.highest_key))
        for start in range(0, len(at), n_at_once):
            some = at[start : start + n_at_once]
            pieces.append(_Piece(pager, wanted, leaves.take(some), some, form, pages))
    # Loading and copying are a few long calls that need Python's lock for none of the time that they take, and checking
    # is many short ones: on both sides those would wait for each other.
    if len(pieces) <= _PIECES_ALONE:
        for piece in pieces:
            piece.load()
            is_left[piece.check()] = False
        return leaves.take(is_left)
    with Background() as background:
        for piece, _ in zip(pieces, background.ahead(piece.load for piece in pieces), strict=True):
            is_left[piece.check()] = False
    return leaves.take(is_left)


@lru_cache(maxsize=64)
def _form(model_id: int, dim: int, row_bytes: int, page_bytes: int, key_bytes: int) -> AppendedLeaf:
    start = (KEY, Value.integer(model_id), Value.blob(HASH_BYTES), Value.integer(dim), FLAG, LONG_INTEGER)
    return AppendedLeaf(page_bytes, key_bytes, start, row_bytes)


class _Piece:
    """Some of the leaves, whose pages are read into a place that the next piece takes."""

    def __init__(
        self, pager: Pager, wanted: Wanted, leaves: Leaves, numbers: Places, form: AppendedLeaf, pages: Bytes
    ) -> None:
        self._pager = pager
        self._wanted = wanted
        self._leaves = leaves
        self._numbers = numbers
        self._form = form
        self._pages = pages[: len(leaves)]
        self._beginnings: tuple[Bytes, Bytes]

    def load(self) -> None:
        """Copy blobs to where they belong if all is as expected, and what tells whether it is."""
        self._pager.read(self._leaves.numbers, self._pages)
        blobs = self._form.blobs(self._pages)
        places, values = self._wanted.places(self._leaves.rows()), self._wanted.values.view(np.uint8)
        if isinstance(places, slice):
            values[places].reshape(blobs.shape)[:] = blobs
        else:
            values[places.reshape(blobs.shape[:2])] = blobs
        self._beginnings = self._form.beginnings(self._pages)

    def check(self) -> Places:
        """Check the rows of those leaves in which all is, and tell which these are."""
        heads, starts = self._beginnings
        del self._beginnings
        rows = self._leaves.rows()
        are_sound = self._form.are_of_this_form(heads, starts, self._wanted.ids[rows].reshape(starts.shape[:2]))
        checksums = self._form.integers(starts)
        if not are_sound.all():
            rows, checksums = self._leaves.take(are_sound).rows(), checksums[are_sound]
        self._wanted.check(rows, checksums.reshape(-1))
        return self._numbers[are_sound]
