"""The leaves of the table vectors in which wanted rows are, and what comes of reading them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embstore.checksums import Words, content_sums_of_vectors
from embstore.codec import StoredValues, are_finite
from embstore.formats import STORED_DTYPES
from embstore.stores.base import StoredModel
from embstore.stores.btrees import tables
from embstore.stores.btrees.pager import Numbers, Pager, UnreadableError

# Of the pages that are read at once, which share the processor's cache.
_LEAST_BYTES, _MOST_BYTES = 2**20, 2**21
_LEAST_PIECES = 8  # of few pages there are some all the same

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Leaves:
    """Leaves in the order of their keys: parallel columns.

    Attributes
    ----------
    numbers : ndarray of shape (n,), int64
        Of their pages.
    starts, stops : ndarray of shape (n,), int
        The wanted rows that can be in each, of the ascending ids that are wanted.
    """

    numbers: Numbers
    starts: Places
    stops: Places

    @classmethod
    def of(cls, pager: Pager, vector_ids: Numbers) -> Leaves:
        """Find those that wanted rows can be in."""
        numbers, last_keys = tables.leaves(pager, pager.root("vectors"))
        stops = np.searchsorted(vector_ids, last_keys, side="right")
        starts = np.append(0, stops[:-1])
        if stops[-1] != len(vector_ids):
            raise UnreadableError("ids that no row has")
        return cls(numbers, starts, stops).take(stops > starts)

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, some: npt.NDArray[np.bool_] | Places | slice) -> Leaves:
        """Give some of them."""
        return Leaves(self.numbers[some], self.starts[some], self.stops[some])

    def rows(self) -> slice | Places:
        """Tell which of the wanted rows are in them."""
        if len(self) and (self.starts[1:] == self.stops[:-1]).all():
            return slice(int(self.starts[0]), int(self.stops[-1]))
        bounds = zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        return np.concatenate([np.empty(0, np.intp), *(np.arange(start, stop) for start, stop in bounds)])

    def n_at_once(self, page_bytes: int) -> int:
        """Tell how many are to be read at once."""
        least, most = -(-_LEAST_BYTES // page_bytes), -(-_MOST_BYTES // page_bytes)
        return min(len(self), max(least, min(most, -(-len(self) // _LEAST_PIECES))))

    def pieces(self, n_leaves: int) -> list[Leaves]:
        """Cut them into pieces of so many."""
        return [self.take(slice(start, start + n_leaves)) for start in range(0, len(self), n_leaves)]


class Wanted:
    """Rows that are wanted, and what has been read of them.

    Parameters
    ----------
    ids, model, targets
        As of `vector_rows.read`.

    Attributes
    ----------
    sums : ndarray of shape (n,), uint64
    values : ndarray of shape (n, dim), float32 or float16
    """

    def __init__(self, ids: Numbers, model: StoredModel, targets: Places | None) -> None:
        self.ids = ids
        self.model = model
        self._targets = targets
        self.sums: Words = np.empty(len(ids), dtype=np.uint64)
        self.values: StoredValues = np.empty((len(ids), model.dim), dtype=STORED_DTYPES[model.dtype])

    @property
    def row_bytes(self) -> int:
        """Of the vector of each."""
        return self.model.dim * self.values.itemsize

    def places(self, rows: slice | Places) -> slice | Places:
        """Tell where in the result some rows belong."""
        return rows if self._targets is None else self._targets[rows]

    def check(self, rows: slice | Places, checksums: Numbers, values: StoredValues | None = None) -> None:
        """Note what is to be compared of some rows, whose values are as given or in their places."""
        places = self.places(rows)
        values = self.values[places] if values is None else values
        if not are_finite(values):
            raise UnreadableError("NaN or infinite values, which are never written")
        self.sums[places] = content_sums_of_vectors(self.model.model_id, checksums, values)
