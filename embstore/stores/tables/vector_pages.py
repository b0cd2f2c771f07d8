"""Reading rows of the table vectors off the pages of the file: many together, quicker than SQLite gives them."""

from __future__ import annotations

from collections.abc import Iterator
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
from embstore.stores.btrees.pager import Numbers, Pager, UnreadableError, open_pager

# Fewer rows, or rows of which there are few in a page, are quicker asked of SQLite.
LEAST_ROWS = 1000
MOST_IDS_A_ROW = 4

PAGES_AT_ONCE = 64

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


class _Reading:
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
        """Read all, two pieces at a time."""
        with Background() as background:
            pieces = list(self._pieces())
            n_pages = min(PAGES_AT_ONCE, len(pieces[0][0]))
            buffers = [np.empty((n_pages, self._pager.page_bytes), dtype=np.uint8) for _ in pieces[:2]]
            for number in range(0, len(pieces), 2):
                for piece in pieces[number + 1 : number + 2]:
                    background.submit(partial(self._read, *piece, buffers[1]))
                self._read(*pieces[number], buffers[0])
                background.wait()

    def _pieces(self) -> Iterator[tuple[Numbers, slice]]:
        """Tell which pages have which of the rows, some pages at a time."""
        numbers, last_keys = tables.leaves(self._pager, self._pager.root("vectors"))
        stops = np.searchsorted(self._ids, last_keys, side="right")
        starts = np.append(0, stops[:-1])
        used = np.flatnonzero(stops > starts)
        if not len(used) or stops[-1] != len(self._ids):
            raise UnreadableError("ids that no row has")
        for first in range(0, len(used), PAGES_AT_ONCE):
            some = used[first : first + PAGES_AT_ONCE]
            yield numbers[some], slice(int(starts[some[0]]), int(stops[some[-1]]))

    def _read(self, numbers: Numbers, rows: slice, buffer: npt.NDArray[np.uint8]) -> None:
        pages = buffer[: len(numbers)]
        self._pager.read(numbers, pages)
        found, keys, n_bytes = tables.keyed_cells(pages)
        wanted = self._ids[rows]
        at = np.searchsorted(keys, wanted)
        if not np.array_equal(keys[np.minimum(at, len(keys) - 1)], wanted):
            raise UnreadableError("rows that are not there")
        if len(at) < len(keys):
            found, n_bytes = found.take(at), n_bytes[at]
        records = cells.records(found, found.starts, n_bytes, _N_COLUMNS)
        blobs = records.blobs(_VECTOR, self.values[0].nbytes)
        values: StoredValues = blobs.view(self.values.dtype).reshape(len(wanted), -1)
        if not are_finite(values):
            raise UnreadableError("NaN or infinite values, which are never written")
        into = rows if self._targets is None else self._targets[rows]
        self.sums[into] = content_sums_of_vectors(self._model.model_id, records.integers(_CHECKSUM), values)
        self.values[into] = values
