"""Rows written into the pages of a database file as no SQLite would write them: of other types, or of false lengths.

The format is that of https://sqlite.org/fileformat.html: a row is a cell of a page, its payload a record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.files import rows

_LEAF, _LEAF_HEADER_BYTES = 13, 8
_POINTERS = struct.Struct(">H")


@dataclass(frozen=True)
class Claimed:
    """A value that is said to be so long, of which nothing is there: its pages lead back to themselves."""

    n_bytes: int
    is_text: bool = False


def varint(n: int) -> bytes:
    """An integer as SQLite writes it; here below 2**56."""
    groups = [n & 0x7F]
    while n := n >> 7:
        groups.append(n & 0x7F | 0x80)
    return bytes(reversed(groups))


def record(values: list[Any]) -> tuple[bytes, int]:
    """The bytes of a record that are there, and how many it claims to have; a `Claimed` comes last of what matters."""
    types, bodies, claimed = b"", b"", 0
    for value in values:
        if isinstance(value, Claimed):
            types += varint(2 * value.n_bytes + (13 if value.is_text else 12))
            claimed += value.n_bytes
        elif value is None:
            types += b"\0"
        elif isinstance(value, int):
            types, bodies = types + b"\6", bodies + struct.pack(">q", value)
        elif isinstance(value, float):
            types, bodies = types + b"\7", bodies + struct.pack(">d", value)
        else:
            body = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            types, bodies = types + varint(2 * len(body) + (13 if isinstance(value, str) else 12)), bodies + body
    header = varint(len(types) + 1) + types
    return header + bodies, len(header) + len(bodies) + claimed


def claim(path: Path, table: str, rowid: int, values: list[Any]) -> None:
    """Put a row in the place of one in a table of one page that nobody has open; one of its values is `Claimed`."""
    (root,) = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = ?", table)[0]
    (usable,) = rows(path, "PRAGMA page_size")[0]
    data = bytearray(path.read_bytes())
    start = (root - 1) * usable
    assert data[start] == _LEAF, "the table has one page"
    there, claimed = record(values)
    # As many bytes stand in the page itself as SQLite expects there, once the row is of this length.
    local = (usable - 12) * 32 // 255 - 23
    n_bytes = claimed + (local - claimed) % (usable - 4)
    for at, value in enumerate(values):
        if isinstance(value, Claimed):
            values[at] = Claimed(value.n_bytes + n_bytes - claimed, value.is_text)
    there, claimed = record(values)
    assert claimed == n_bytes
    assert len(there) <= local
    overflow = len(data) // usable + 1
    cell = varint(n_bytes) + varint(rowid) + there.ljust(local, b"\0") + overflow.to_bytes(4, "big")
    (content,) = _POINTERS.unpack_from(data, start + 5)
    at = content - len(cell)
    data[start + at : start + content] = cell
    _POINTERS.pack_into(data, start + 5, at)
    _POINTERS.pack_into(data, start + _LEAF_HEADER_BYTES + 2 * _place(data, start, rowid), at)
    data[28:32] = overflow.to_bytes(4, "big")
    path.write_bytes(data + overflow.to_bytes(4, "big") + bytes(usable - 4))


def lead_back(path: Path, table: str, depth: int = 4, n_cells: int = 2000) -> None:
    """Put pages above the one page of a table that lead to it so many times, each, and above each other."""
    (root,), *_ = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    (usable,) = rows(path, "PRAGMA page_size")[0]
    data = bytearray(path.read_bytes())
    start = (root - 1) * usable
    leaf = bytes(data[start : start + usable])
    kind, key = (5, b"\1") if leaf[0] == _LEAF else (2, _cell(leaf, 0))
    below = len(data) // usable + 1
    data += leaf
    for level in range(depth):
        n = min(n_cells, (usable - 100) // (len(key) + 6))
        cells = (below.to_bytes(4, "big") + key) * n
        pointers = b"".join(_POINTERS.pack(usable - len(cells) + i * (len(key) + 4)) for i in range(n))
        header = struct.pack(">BHHHBI", kind, 0, n, usable - len(cells), 0, below)
        page = (header + pointers).ljust(usable - len(cells), b"\0") + cells
        if level == depth - 1:
            data[start : start + usable] = page
        else:
            data += page
            below += 1
    data[28:32] = (len(data) // usable).to_bytes(4, "big")
    path.write_bytes(data)


def _cell(leaf: bytes, place: int) -> bytes:
    """A cell of an index, of fewer than 128 bytes, all of which are in its page."""
    (at,) = _POINTERS.unpack_from(leaf, _LEAF_HEADER_BYTES + 2 * place)
    return leaf[at : at + 1 + leaf[at]]


def _place(data: bytearray, start: int, rowid: int) -> int:
    """Where among the cells of a page the one of a row is; ids here are below 128, and lengths are two bytes long."""
    (n_cells,) = _POINTERS.unpack_from(data, start + 3)
    for place in range(n_cells):
        (at,) = _POINTERS.unpack_from(data, start + _LEAF_HEADER_BYTES + 2 * place)
        while data[start + at] & 0x80:
            at += 1
        if data[start + at + 1] == rowid:
            return place
    raise AssertionError(f"no row {rowid}")
