"""The bytes of a row in a page of SQLite's; section numbers are those of https://sqlite.org/fileformat2.html."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

Value = None | int | float | bytes | str

_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # by serial type, 2.1
_REAL = 7
_VALUE_BYTES = {**_INTEGER_BYTES, _REAL: 8}


class NoRowError(ValueError):
    """The bytes are no row."""


def exactly(data: bytes, start: int, n_bytes: int) -> bytes:
    """Cut bytes out; NoRowError where there are fewer."""
    part = data[start : start + n_bytes]
    if len(part) != n_bytes:
        raise NoRowError("cut off")
    return part


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a signed number of 1 to 9 bytes, and tell where the next byte is, 1.6."""
    value = 0
    for place in range(at, at + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def serial_types_of(page: bytes, start: int) -> tuple[list[int], int]:
    """Read how the values of a row are stored, 2.1, and how long that took; it never overflows, as rows have few."""
    n_header, at = varint(page, start)
    serial_types = []
    while at < start + n_header:
        serial_type, at = varint(page, at)
        serial_types.append(serial_type)
    if at != start + n_header:
        raise NoRowError("a header of another length")
    return serial_types, n_header


def letter(serial_type: int) -> str:
    """Give the type of a value, as of `Pages.rows`."""
    if serial_type >= 12:
        return "t" if serial_type % 2 else "b"
    return "n" if serial_type == 0 else "f" if serial_type == _REAL else "i" if serial_type in _INTEGER_BYTES else "?"


def values_of(payload: bytes, serial_types: Iterable[int], at: int) -> Iterator[Value]:
    """Take the values of a row apart, 2.1."""
    for serial_type in serial_types:
        n_bytes = (serial_type - 12) // 2 if serial_type >= 12 else _VALUE_BYTES.get(serial_type, 0)
        data = exactly(payload, at, n_bytes)
        at += n_bytes
        if serial_type >= 12:
            yield data.decode() if serial_type % 2 else data
        elif serial_type == _REAL:
            yield float(struct.unpack(">d", data)[0])
        elif serial_type in (8, 9):
            yield serial_type - 8
        else:
            yield int.from_bytes(data, "big", signed=True) if serial_type else None
    if at != len(payload):
        raise NoRowError("values of another length")
