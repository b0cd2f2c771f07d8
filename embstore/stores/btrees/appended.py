"""Leaves that rows of one size were appended to until they were full: it is known beforehand where what is.

So are most leaves of a table that is filled and read. Their rows can be copied before anything is known of them, and
whether each was what was expected is seen afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embstore.stores.btrees.cells import BLOB, LEAF_HEADER_BYTES, LEAF_TABLE, VALUE_BITS, most_bytes
from embstore.stores.btrees.pager import Bytes, Numbers

_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # by serial type, 2.1
_ZERO = 8  # the serial type of 0; that of 1 follows
_ALL, _NONE = b"\xff", b"\x00"  # bits of a byte that are compared
_MORE = 0x80  # of a byte of a number, 1.6: others follow


@dataclass(frozen=True)
class Value:
    """A column of rows: its serial type and its bytes, and which of their bits are the same in all rows."""

    serial_type: int
    type_bits: bytes = _ALL
    data: bytes = b""
    data_bits: bytes = b""

    @classmethod
    def integer(cls, number: int) -> Value:
        """Give an integer that is the same in all rows, in as few bytes as SQLite."""
        if number in (0, 1):
            return cls(_ZERO + number)
        kinds = ((kind, n) for kind, n in _INTEGER_BYTES.items() if -(256**n) // 2 <= number < 256**n // 2)
        kind, n_bytes = next(kinds)
        return cls(kind, data=number.to_bytes(n_bytes, "big", signed=True), data_bits=_ALL * n_bytes)

    @classmethod
    def blob(cls, n_bytes: int) -> Value:
        """Give blobs of one length."""
        return cls(BLOB + 2 * n_bytes, data=bytes(n_bytes), data_bits=_NONE * n_bytes)


KEY = Value(0)  # NULL, as it is told before the row
FLAG = Value(_ZERO, type_bits=b"\xfe")
LONG_INTEGER = Value(6, data=bytes(8), data_bits=_NONE * 8)


class AppendedLeaf:
    """The form of such leaves.

    Parameters
    ----------
    page_bytes : int
    key_bytes : int
        How long the key of each row is.
    start : sequence of Value
        The columns of each row but the last.
    blob_bytes : int
        The last one is a blob of this length.

    Attributes
    ----------
    n_rows : int
        How many are in a leaf; 0 where a row would overflow it.
    lowest_key, highest_key : int
        Of keys of this length.
    """

    def __init__(self, page_bytes: int, key_bytes: int, start: Sequence[Value], blob_bytes: int) -> None:
        types = [*start, Value.blob(blob_bytes)]
        header = b"".join(as_varint(value.serial_type) for value in types)
        header_bits = b"".join(value.type_bits.rjust(len(as_varint(value.serial_type)), _ALL) for value in types)
        data = b"".join(value.data for value in start)
        n_bytes = 1 + len(header) + len(data) + blob_bytes
        length = as_varint(n_bytes)
        key = bytes([_MORE] * (key_bytes - 1) + [0])
        expected = length + key + as_varint(1 + len(header)) + header + data
        bits = _ALL * len(length) + bytes([_MORE] * key_bytes) + _ALL + header_bits
        bits += b"".join(value.data_bits for value in start)

        self.lowest_key, self.highest_key = 128 ** (key_bytes - 1) * (key_bytes > 1), 128**key_bytes - 1
        self._page_bytes = page_bytes
        self._key = slice(len(length), len(length) + key_bytes)
        self._start_bytes, self._row_bytes = len(expected), len(expected) + blob_bytes
        fits = n_bytes <= most_bytes(LEAF_TABLE, page_bytes)
        self.n_rows = (page_bytes - LEAF_HEADER_BYTES) // (self._row_bytes + 2) if fits else 0
        self._expected, self._bits = (np.frombuffer(some * self.n_rows, np.uint8) for some in (expected, bits))
        places = page_bytes - self._row_bytes * np.arange(1, self.n_rows + 1)
        first = int(places.min(initial=page_bytes)) % 2**16
        head = bytes([LEAF_TABLE, 0, 0, *self.n_rows.to_bytes(2, "big"), *first.to_bytes(2, "big"), 0])
        self._head = np.frombuffer(head + places.astype(">u2").tobytes(), np.uint8)

    def blobs(self, pages: Bytes) -> Bytes:
        """See the blobs of all rows, in the order of their keys: (n_pages, n_rows, blob_bytes)."""
        return self._rows(pages)[:, :, self._start_bytes :]

    def beginnings(self, pages: Bytes) -> tuple[Bytes, Bytes]:
        """Copy all else: that of each page, (n_pages, n), and that of each row up to its blob, (n_pages, n_rows, n)."""
        heads, starts = pages[:, : len(self._head)], self._rows(pages)[:, :, : self._start_bytes]
        return np.ascontiguousarray(heads), np.ascontiguousarray(starts)

    def are_of_this_form(self, heads: Bytes, starts: Bytes, keys: Numbers) -> npt.NDArray[np.bool_]:
        """Tell which pages are, and have rows of these keys, (n_pages, n_rows), and no others: (n_pages,)."""
        differences = (starts.reshape(len(heads), -1) ^ self._expected) & self._bits
        is_other = (heads != self._head).any(axis=1) | (self._keys(starts) != keys).any(axis=1)
        if differences.any():  # rarely
            is_other |= differences.any(axis=1)
        are: npt.NDArray[np.bool_] = ~is_other
        return are

    def integers(self, starts: Bytes) -> Numbers:
        """Give the last column before the blob where that is a LONG_INTEGER: (n_pages, n_rows)."""
        return np.ascontiguousarray(starts[:, :, -8:]).view(">i8")[:, :, 0].astype(np.int64)

    def _keys(self, starts: Bytes) -> Numbers:
        keys = np.zeros(starts.shape[:2], dtype=np.int64)
        for byte in np.moveaxis(starts[:, :, self._key], 2, 0):
            keys = keys << 7 | byte & VALUE_BITS
        return keys

    def _rows(self, pages: Bytes) -> Bytes:
        """See the rows of pages, the first of which is at the end of its page."""
        shape, strides = (len(pages), self.n_rows, self._row_bytes), (self._page_bytes, -self._row_bytes, 1)
        return np.ndarray(shape, np.uint8, buffer=pages, offset=self._page_bytes - self._row_bytes, strides=strides)


def as_varint(number: int) -> bytes:
    """Write a number as SQLite does, 1.6."""
    groups = [number & VALUE_BITS]
    while number := number >> 7:
        groups.append(number & VALUE_BITS | _MORE)
    return bytes(reversed(groups))
