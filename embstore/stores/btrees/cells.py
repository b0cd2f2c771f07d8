"""Taking rows apart, many at once: pages are one array of bytes, and a row is a place in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.stores.btrees.pager import Bytes, Numbers, UnreadableError

INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13  # kinds of pages, 1.6
INTERIOR_HEADER_BYTES, LEAF_HEADER_BYTES = 12, 8

# Serial types, 2.1. Those that no row has that is read here, floats among them, are as wide as nothing can be. The key
# of a table is NULL in its rows.
_NULL, _INTEGER_TYPES = 0, 10
BLOB, _TEXT = 12, 13
_TOO_WIDE = 2**40
_WIDTHS = np.array([0, 1, 2, 3, 4, 6, 8, _TOO_WIDE, 0, 0, _TOO_WIDE, _TOO_WIDE], dtype=np.int64)
_CONSTANTS = 8  # the type of 0; that of 1 follows
_TEXTS_AT_ONCE = 2048  # whose bytes' places stay in the processor's cache
VALUE_BITS = 0x7F  # of a byte of a number, 1.6; the other tells that there are more bytes
MOST_VARINT_BYTES = 5  # longer ones, which SQLite writes too, are of no row that is read here


@dataclass(frozen=True)
class Cells:
    """Where rows are.

    Attributes
    ----------
    data : ndarray of uint8
        Pages one after another.
    starts : ndarray of shape (n,), int64
        Where each row begins.
    page_ends : ndarray of shape (n,), int64
        Where the page of each ends.
    most_bytes : int
        Longer rows overflow to other pages, 1.6.
    """

    data: Bytes
    starts: Numbers
    page_ends: Numbers
    most_bytes: int

    def moved(self, n_bytes: int) -> Cells:
        """Give the same rows, each beginning some bytes later."""
        return replace(self, starts=self.starts + n_bytes)

    def take(self, rows: npt.NDArray[np.intp]) -> Cells:
        """Give some rows."""
        return replace(self, starts=self.starts[rows], page_ends=self.page_ends[rows])


@dataclass(frozen=True)
class Records:
    """What rows hold.

    Attributes
    ----------
    types : ndarray of shape (n_columns, n), int64
        Serial types of the values.
    ends : ndarray of shape (n_columns, n), int64
        Where each value ends, and the next one begins.
    """

    data: Bytes
    types: Numbers
    ends: Numbers

    def integers(self, column: int) -> Numbers:
        """Give a column of integers: (n,)."""
        types, ends = self.types[column], self.ends[column]
        if not ((types > _NULL) & (types < _INTEGER_TYPES)).all():
            raise UnreadableError("values that are no integers")
        widths = _WIDTHS[types]
        # The last 8 bytes up to the end of each; what is before the value is shifted out. No value begins a page.
        values: Numbers = _windows(self.data, np.dtype(">i8"))[ends - 8].astype(np.int64)
        spare = 64 - 8 * widths
        values = (values << np.minimum(spare, 63)) >> np.minimum(spare, 63)
        return np.where(types >= _CONSTANTS, types - _CONSTANTS, values)

    def blobs(self, column: int, n_bytes: int) -> npt.NDArray[np.void]:
        """Copy a column of blobs of one length: (n,), each value n_bytes long."""
        if not (self.types[column] == BLOB + 2 * n_bytes).all():
            raise UnreadableError("blobs of another length")
        blobs: npt.NDArray[np.void] = _windows(self.data, np.dtype((np.void, n_bytes)))[self.ends[column] - n_bytes]
        return blobs

    def are_text(self, column: int, text: bytes) -> npt.NDArray[np.bool_]:
        """Tell which texts of a column are one: (n,)."""
        same: npt.NDArray[np.bool_] = self.types[column] == _TEXT + 2 * len(text)
        if text:
            at = np.maximum(self.ends[column] - len(text), 0)
            windows = _windows(self.data, np.dtype((np.void, len(text))))
            same &= windows[at] == np.void(text)
        return same

    def value(self, column: int, row: int) -> bytes:
        """Copy the bytes of one value."""
        end = int(self.ends[column, row])
        return self.data[end - int(_widths(self.types[column, row])) : end].tobytes()

    def texts(self, column: int) -> Texts:
        """Give a column of texts, where they are."""
        types = self.types[column]
        if not ((types >= _TEXT) & (types % 2 == 1)).all():
            raise UnreadableError("values that are no texts")
        lengths = (types - _TEXT) // 2
        if lengths.sum() > len(self.data):  # many rows at one place
            raise UnreadableError("texts longer than their pages")
        return Texts(self.data, self.ends[column] - lengths, lengths)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Records:
        """Give some rows."""
        return Records(self.data, self.types[:, rows], self.ends[:, rows])


@dataclass(frozen=True)
class Texts:
    """Texts as UTF-8.

    Attributes
    ----------
    data : ndarray of uint8
    starts : ndarray of shape (n,), int64
        Where each begins.
    lengths : ndarray of shape (n,), int64
        How many bytes each has.
    """

    data: Bytes
    starts: Numbers
    lengths: Numbers

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Put columns one after another."""
        ends = np.cumsum([0, *(len(part.data) for part in parts)]).tolist()
        return cls(
            np.concatenate([np.empty(0, np.uint8), *(part.data for part in parts)]),
            np.concatenate(
                [np.empty(0, np.int64), *(part.starts + end for part, end in zip(parts, ends, strict=False))]
            ),
            np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)]),
        )

    def as_list(self, rows: npt.NDArray[np.intp]) -> list[str]:
        """Give some texts as Python's."""
        pieces = [rows[start : start + _TEXTS_AT_ONCE] for start in range(0, len(rows), _TEXTS_AT_ONCE)]
        return [text for piece in pieces for text in self._few(piece)]

    def _few(self, rows: npt.NDArray[np.intp]) -> list[str]:
        """Make one text of all, with an end mark after each, and cut it."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        stops = np.cumsum(lengths + 1)
        at = np.arange(stops[-1]) + np.repeat(starts - stops + lengths + 1, lengths + 1)
        data = self.data[np.minimum(at, len(self.data) - 1)]
        data[stops - 1] = 0
        texts: list[str] = data[:-1].tobytes().decode().split("\0")
        if len(texts) != len(lengths):
            raise UnreadableError("texts with NUL in them")
        return texts


def page_cells(pages: Bytes, kind: int) -> tuple[Cells, Numbers]:
    """Find the rows of pages of one kind, page by page, in the order of their keys, 1.6.

    Parameters
    ----------
    pages : ndarray of shape (n_pages, page_bytes), uint8
        None of them the first of the file.
    kind : int

    Returns
    -------
    cells : Cells
    counts : ndarray of shape (n_pages,), int64
        How many rows each page has.
    """
    n_pages, page_bytes = pages.shape
    header_bytes = INTERIOR_HEADER_BYTES if kind in (INTERIOR_INDEX, INTERIOR_TABLE) else LEAF_HEADER_BYTES
    if not (pages[:, 0] == kind).all():
        raise UnreadableError("a page of another kind")
    counts = np.ascontiguousarray(pages[:, 3:5]).view(">u2")[:, 0].astype(np.int64)
    most = int(counts.max(initial=0))
    if header_bytes + 2 * most > page_bytes:
        raise UnreadableError("more rows than a page holds")
    starts = np.ascontiguousarray(pages[:, header_bytes : header_bytes + 2 * most]).view(">u2").astype(np.int64)
    is_one = np.arange(most) < counts[:, None]
    if not (starts >= (header_bytes + 2 * counts)[:, None])[is_one].all():
        raise UnreadableError("a row in the header of its page")
    firsts = np.arange(n_pages) * page_bytes
    starts += firsts[:, None]
    page_ends = np.repeat(firsts + page_bytes, counts)
    return Cells(pages.reshape(-1), starts[is_one], page_ends, most_bytes(kind, page_bytes)), counts


def most_bytes(kind: int, page_bytes: int) -> int:
    """Tell how long a row in a page of this kind can be; longer ones overflow to other pages, 1.6."""
    return page_bytes - 35 if kind in (INTERIOR_TABLE, LEAF_TABLE) else (page_bytes - 12) * 64 // 255 - 23


def varints(data: Bytes, at: Numbers) -> tuple[Numbers, Numbers]:
    """Read numbers of a few bytes, 1.6, and tell where the next bytes are."""
    byte = data[at].astype(np.int64)
    values, at = byte & VALUE_BITS, at + 1
    for _ in range(MOST_VARINT_BYTES - 1):
        more = byte > VALUE_BITS
        if not more.any():
            return values, at
        byte = np.where(more, data[np.minimum(at, len(data) - 1)], 0).astype(np.int64)
        values = np.where(more, values << 7 | byte & VALUE_BITS, values)
        at = at + more
    if (byte > VALUE_BITS).any():
        raise UnreadableError("numbers of many bytes")
    return values, at


def records(cells: Cells, starts: Numbers, n_bytes: Numbers, n_columns: int) -> Records:
    """Read the headers of rows, 2.1.

    Parameters
    ----------
    cells : Cells
    starts : ndarray of shape (n,), int64
        Where the header of each row begins.
    n_bytes : ndarray of shape (n,), int64
        How long header and values are together.
    n_columns : int

    Raises
    ------
    UnreadableError
        A row has other columns, or does not end where it says, or reaches beyond its page.
    """
    # Most often all are as the first one is.
    some = starts[:1] if _have_one_header(cells.data, starts) else starts
    header_bytes, at = varints(cells.data, some)
    types, ends = np.empty((2, n_columns, len(some)), dtype=np.int64)
    end = some + header_bytes
    for column in range(n_columns):
        types[column], at = varints(cells.data, at)
        end = end + _widths(types[column])
        ends[column] = end
    if not (at == some + header_bytes).all():
        raise UnreadableError("rows of other columns")
    types, ends = np.broadcast_to(types, (n_columns, len(starts))), starts + (ends - some)
    is_whole = (ends[-1] == starts + n_bytes) & (ends[-1] <= cells.page_ends) & (n_bytes <= cells.most_bytes)
    if not is_whole.all():
        raise UnreadableError("rows of another length")
    return Records(cells.data, types, ends)


def _have_one_header(data: Bytes, starts: Numbers) -> bool:
    """Tell whether the headers of rows are the same; they are short, so that their length is one byte."""
    if not len(starts):
        return False
    n_bytes = int(data[starts[0]])
    headers = _windows(data, np.dtype((np.void, n_bytes)))[starts].view(np.uint8).reshape(len(starts), n_bytes)
    return bool((headers == headers[0]).all())


def _widths(types: Numbers) -> Numbers:
    return np.where(types >= BLOB, (types - BLOB) >> 1, _WIDTHS[np.minimum(types, BLOB - 1)])


def _windows(data: Bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """See each place of an array as the beginning of a value."""
    if dtype.itemsize > len(data):
        raise UnreadableError("values longer than their pages")
    return np.ndarray((len(data) - dtype.itemsize + 1,), dtype, buffer=data, strides=(1,))
