"""Reading vectors off leaves in which rows are anyhow: each is taken apart, then copied."""

from __future__ import annotations

from functools import partial

import numpy as np

from embstore.background import Background
from embstore.codec import StoredValues
from embstore.stores.btrees import cells, tables
from embstore.stores.btrees.pager import Bytes, Numbers, Pager, UnreadableError
from embstore.stores.tables.vector_leaves import Leaves, Wanted

_PIECES_AT_ONCE = 3  # whose pages are in memory

# Of the table; a row that has others is not read.
_N_COLUMNS = 7
_CHECKSUM, _VECTOR = 5, 6


def read(pager: Pager, leaves: Leaves, wanted: Wanted) -> None:
    """Read the wanted rows of leaves.

    Raises
    ------
    UnreadableError, OSError, ValueError
        SQLite has to be asked.
    """
    if len(leaves):
        _Reading(pager, wanted).run(leaves)


class _Piece:
    """Some leaves, and what has become of the rows in them that are wanted so far."""

    def __init__(self, leaves: Leaves, pages: Bytes) -> None:
        self.numbers = leaves.numbers
        self.rows = leaves.rows()
        self.pages = pages

    records: cells.Records
    checksums: Numbers
    values: StoredValues


class _Reading:
    """Reads rows a piece at a time, each in four steps.

    To load and to copy a piece are a few long calls, and need Python's lock for none of the time that they take. So
    they are done in a thread of their own, for the piece after and the one before, while the many short calls that the
    other two are made of are done here: short calls on both sides would wait for each other.
    """

    def __init__(self, pager: Pager, wanted: Wanted) -> None:
        self._pager = pager
        self._wanted = wanted

    def run(self, leaves: Leaves) -> None:
        """Read all."""
        pieces = self._pieces(leaves)
        if len(pieces) == 1:  # not worth a thread
            (piece,) = pieces
            for step in (self._load, self._take_apart, self._copy, self._check):
                step(piece)
            return
        around: list[_Piece | None] = [None, None, *pieces, None, None, None]
        self._load(pieces[0])
        with Background() as background:
            for checked, copied, taken_apart, loaded in zip(*(around[i:] for i in range(4)), strict=False):
                background.submit(partial(self._copy_and_load, copied, loaded))
                if taken_apart is not None:
                    self._take_apart(taken_apart)
                if checked is not None:
                    self._check(checked)
                background.wait()

    def _pieces(self, leaves: Leaves) -> list[_Piece]:
        n = leaves.n_at_once(self._pager.page_bytes)
        buffers = np.empty((_PIECES_AT_ONCE, n, self._pager.page_bytes), dtype=np.uint8)
        return [_Piece(some, buffers[i % _PIECES_AT_ONCE, : len(some)]) for i, some in enumerate(leaves.pieces(n))]

    def _copy_and_load(self, copied: _Piece | None, loaded: _Piece | None) -> None:
        if copied is not None:
            self._copy(copied)
        if loaded is not None:
            self._load(loaded)

    def _load(self, piece: _Piece) -> None:
        self._pager.read(piece.numbers, piece.pages)

    def _take_apart(self, piece: _Piece) -> None:
        found, keys, n_bytes = tables.keyed_cells(piece.pages)
        wanted = self._wanted.ids[piece.rows]
        at = np.searchsorted(keys, wanted)
        if not np.array_equal(keys[np.minimum(at, len(keys) - 1)], wanted):
            raise UnreadableError("rows that are not there")
        if len(at) < len(keys):
            found, n_bytes = found.take(at), n_bytes[at]
        piece.records = cells.records(found, found.starts, n_bytes, _N_COLUMNS)
        piece.checksums = piece.records.integers(_CHECKSUM)

    def _copy(self, piece: _Piece) -> None:
        values = self._wanted.values
        blobs = piece.records.blobs(_VECTOR, self._wanted.row_bytes)
        piece.values = blobs.view(values.dtype).reshape(len(blobs), -1)
        values[self._wanted.places(piece.rows)] = piece.values

    def _check(self, piece: _Piece) -> None:
        self._wanted.check(piece.rows, piece.checksums, piece.values)
        del piece.values
