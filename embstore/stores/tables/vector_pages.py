"""Reading rows of the table vectors off the pages of the file: many together, quicker than SQLite gives them."""

from __future__ import annotations

from functools import partial
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.background import Background
from embstore.checksums import Words, content_sums_of_vectors
from embstore.codec import StoredValues, are_finite
from embstore.formats import STORED_DTYPES
from embstore.stores.base import StoredModel
from embstore.stores.btrees import cells, tables
from embstore.stores.btrees.pager import Bytes, Numbers, Pager, UnreadableError, open_pager

# Fewer rows, or rows of which there are few in a page, are quicker asked of SQLite.
LEAST_ROWS = 1000
MOST_IDS_A_ROW = 4

# Pages of a piece: what is done at once shares the processor's cache. Of few pages there are some pieces all the same.
FEWEST_PAGES, MOST_PAGES = 16, 64
LEAST_PIECES = 8

_PIECES_AT_ONCE = 3  # whose pages are in memory

# Of the table; a row that has others is not read.
_N_COLUMNS = 7
_CHECKSUM, _VECTOR = 5, 6


def read(
    connection: Connection,
    vector_ids: npt.NDArray[np.int64],
    model: StoredModel,
    targets: npt.NDArray[np.intp] | None,
) -> tuple[Words, StoredValues] | None:
    """Read rows where all are there and as they are in a sound file.

    Parameters
    ----------
    vector_ids, model, targets
        As of `vector_rows.read`.

    Returns
    -------
    content_sums, values
        As of `vector_rows.read_together`; None in place of both where SQLite has to be asked.
    """
    if len(vector_ids) < LEAST_ROWS or vector_ids[-1] - vector_ids[0] >= MOST_IDS_A_ROW * len(vector_ids):
        return None
    pager = open_pager(connection)
    if pager is None:
        return None
    try:
        reading = _Reading(pager, vector_ids, model, targets)
        reading.run()
        pager.check_descriptor()
    except (OSError, ValueError, IndexError):
        return None
    return reading.sums, reading.values


class _Piece:
    """Some pages, the rows in them that are wanted, and what has become of them so far."""

    def __init__(self, numbers: Numbers, rows: slice, pages: Bytes) -> None:
        self.numbers = numbers
        self.rows = rows
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

    def __init__(
        self,
        pager: Pager,
        vector_ids: npt.NDArray[np.int64],
        model: StoredModel,
        targets: npt.NDArray[np.intp] | None,
    ) -> None:
        self._pager = pager
        self._ids = vector_ids
        self._model = model
        self._targets = targets
        self.sums = np.empty(len(vector_ids), dtype=np.uint64)
        self.values: StoredValues = np.empty((len(vector_ids), model.dim), dtype=STORED_DTYPES[model.dtype])

    def run(self) -> None:
        """Read all."""
        pieces = self._pieces()
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

    def _pieces(self) -> list[_Piece]:
        """Tell which pages have which of the rows, some pages at a time."""
        numbers, last_keys = tables.leaves(self._pager, self._pager.root("vectors"))
        stops = np.searchsorted(self._ids, last_keys, side="right")
        starts = np.append(0, stops[:-1])
        used = np.flatnonzero(stops > starts)
        if not len(used) or stops[-1] != len(self._ids):
            raise UnreadableError("ids that no row has")
        n_at_once = min(len(used), max(FEWEST_PAGES, min(MOST_PAGES, -(-len(used) // LEAST_PIECES))))
        buffers = np.empty((_PIECES_AT_ONCE, n_at_once, self._pager.page_bytes), dtype=np.uint8)
        pieces = []
        for number, first in enumerate(range(0, len(used), n_at_once)):
            some = used[first : first + n_at_once]
            rows = slice(int(starts[some[0]]), int(stops[some[-1]]))
            pieces.append(_Piece(numbers[some], rows, buffers[number % _PIECES_AT_ONCE, : len(some)]))
        return pieces

    def _copy_and_load(self, copied: _Piece | None, loaded: _Piece | None) -> None:
        if copied is not None:
            self._copy(copied)
        if loaded is not None:
            self._load(loaded)

    def _load(self, piece: _Piece) -> None:
        self._pager.read(piece.numbers, piece.pages)

    def _take_apart(self, piece: _Piece) -> None:
        found, keys, n_bytes = tables.keyed_cells(piece.pages)
        wanted = self._ids[piece.rows]
        at = np.searchsorted(keys, wanted)
        if not np.array_equal(keys[np.minimum(at, len(keys) - 1)], wanted):
            raise UnreadableError("rows that are not there")
        if len(at) < len(keys):
            found, n_bytes = found.take(at), n_bytes[at]
        piece.records = cells.records(found, found.starts, n_bytes, _N_COLUMNS)
        piece.checksums = piece.records.integers(_CHECKSUM)

    def _copy(self, piece: _Piece) -> None:
        blobs = piece.records.blobs(_VECTOR, self.values[0].nbytes)
        piece.values = blobs.view(self.values.dtype).reshape(len(blobs), -1)
        self.values[self._into(piece)] = piece.values

    def _check(self, piece: _Piece) -> None:
        if not are_finite(piece.values):
            raise UnreadableError("NaN or infinite values, which are never written")
        sums = content_sums_of_vectors(self._model.model_id, piece.checksums, piece.values)
        self.sums[self._into(piece)] = sums
        del piece.values

    def _into(self, piece: _Piece) -> slice | npt.NDArray[np.intp]:
        return piece.rows if self._targets is None else self._targets[piece.rows]
