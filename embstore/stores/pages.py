"""Reading the rows of an SQLite file off its pages, whatever has become of the trees above them.

SQLite finds a row by way of the pages above it, and gives up where one of them is damaged. Here every page that holds
rows is read by itself. Section numbers are those of https://sqlite.org/fileformat2.html. The values of a row can be
anything: whoever asks for rows checks them.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

from embstore.stores.rows_in_pages import NoRowError, Value, exactly, letter, serial_types_of, values_of, varint

Buffer = bytes | mmap

PAGE_SIZES = (65536, 32768, 16384, 8192, 4096, 2048, 1024, 512)  # that of new files first
PAGES_SAMPLED = 2000

# The kinds of pages, 1.6.
INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
_HEADER_BYTES = {INTERIOR_INDEX: 12, INTERIOR_TABLE: 12, LEAF_INDEX: 8, LEAF_TABLE: 8}
_FILE_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_FREE_LIST = 32  # where the file's header tells of it, 1.3

_SCHEMA = ("tttit", "tttin")  # of the table of tables, 2.6; one without statement is an index of a constraint


@dataclass(frozen=True)
class Row:
    """A row as it is stored: the key of its table and the values of its columns; an index has no such key."""

    rowid: int | None
    values: tuple[Value, ...]


class _Head(NamedTuple):
    n_bytes: int
    rowid: int | None
    at: int  # where the rest begins
    serial_types: list[int]
    n_header: int


class Pages:
    """The pages of a file.

    Parameters
    ----------
    data : bytes or mmap
        The whole file.

    Attributes
    ----------
    page_size, n_pages : int
    n_missing : int
        How many pages more the file had.
    live : list of int
        The numbers of the pages whose rows count.
    are_live_known : bool
        Otherwise, rows that were removed may be among them.
    """

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self.page_size = _guess_page_size(data)
        self.n_pages = -(-len(data) // self.page_size)
        self.live, self.are_live_known = self._live()
        self.n_missing = max(0, int.from_bytes(data[28:32], "big") - self.n_pages) if data[:16] == _MAGIC else 0

    def rows(self, *types: str, of: str | None = None) -> Iterator[Row]:
        """Give the rows that can be read, in the order of their pages.

        Parameters
        ----------
        types : str
            Only those with values of these types, a letter each: n for None, i int, f float, b bytes, t str.
        of : str, optional
            Only those of the table or index of that name, where its tree is whole: somebody's can have such values.
        """
        for number in self.live if of is None else self._tree(of):
            yield from self._rows(number, types)

    def count(self, *types: str, of: str) -> int:
        """Count the rows that say they have values of these types, also those whose values cannot be read any more."""
        return sum(self._says(kind, self._page(n), at, types) for n in self._tree(of) for kind, at in self._cells(n))

    def _tree(self, name: str) -> list[int]:
        """List the pages of a table or index; all that are live where its tree is not whole."""
        roots = [row.values[3] for row in self.rows(*_SCHEMA) if row.values[1] == name]
        if not roots and self.are_live_known:
            return []  # an older schema version has no such table
        reached = set[int]()
        is_whole = bool(roots) and self._climb([root for root in roots if isinstance(root, int)], reached)
        return sorted(reached) if is_whole else self.live

    def _live(self) -> tuple[list[int], bool]:
        """List the pages whose rows count, and tell whether these are known to be the ones that are in use.

        What was removed stays in pages that are free, and must not come back. The free pages are in a list, and the
        others, but for what rows overflow to, in trees: where one of the two is damaged, the other is believed.
        """
        reached, is_whole = self._reached()
        free = self._free()
        others = set(range(1, self.n_pages + 1)) - reached - (free or set())
        orphans = {number for number in others if self._data[(number - 1) * self.page_size] in _HEADER_BYTES}
        fits = free is not None and free.isdisjoint(reached)
        if is_whole and (free is None or (fits and not orphans)):
            return sorted(reached), True
        return sorted(reached | orphans), fits and not is_whole

    def _free(self) -> set[int] | None:
        """List the free pages, 1.5; None where the list is not whole."""
        free = set[int]()
        try:
            trunk, n_free = struct.unpack_from(">II", self._data, _FREE_LIST)
            if not n_free and self._data[: len(_MAGIC)] != _MAGIC:
                return None  # zeros of a header that is gone
            while trunk:
                page = self._page(trunk)
                following, n_leaves = struct.unpack_from(">II", page)
                found = [trunk, *struct.unpack_from(f">{n_leaves}I", page, 8)]
                if not free.isdisjoint(found) or len(free) + len(found) > n_free:
                    return None
                free.update(found)
                trunk = following
        except (NoRowError, struct.error):
            return None
        return free if len(free) == n_free else None

    def _reached(self) -> tuple[set[int], bool]:
        """List the pages of the trees whose roots the first tree tells, 2.6; tell whether there are no wrong turns."""
        reached = set[int]()
        is_whole = self._climb([1], reached)
        roots = [row.values[3] for number in reached for row in self._rows(number, _SCHEMA)]
        is_whole &= self._climb([root for root in roots if isinstance(root, int) and root], reached)
        return reached, is_whole and len(roots) > 1

    def _climb(self, numbers: list[int], reached: set[int]) -> bool:
        """Add the pages of trees; False where one is met twice, or is none."""
        is_whole = True
        while numbers:
            number = numbers.pop()
            children = None if number in reached else self._children(number)
            is_whole &= children is not None
            if children is not None:
                reached.add(number)
                numbers += children
        return is_whole

    def _children(self, number: int) -> list[int] | None:
        """List the pages below one, None where it is no page of a tree."""
        if not 1 <= number <= self.n_pages:
            return None
        page, header = self._page(number), _FILE_HEADER_BYTES if number == 1 else 0
        kind = page[header] if len(page) == self.page_size else 0
        if kind not in (INTERIOR_INDEX, INTERIOR_TABLE):
            return [] if kind in _HEADER_BYTES else None
        starts = [start for _, start in _cells(page, number)] + [header + 8]
        return [int.from_bytes(page[start : start + 4], "big") for start in starts]

    def _page(self, number: int) -> bytes:
        if not 1 <= number <= self.n_pages:
            raise NoRowError("a page that is not there")
        return self._data[(number - 1) * self.page_size : number * self.page_size]

    def _rows(self, number: int, types: Container[str]) -> Iterator[Row]:
        page = self._page(number)
        for kind, start in self._cells(number):
            row = None
            with suppress(NoRowError, struct.error, IndexError, UnicodeDecodeError):
                row = self._row(kind, page, start, types)
            if row is not None:
                yield row

    def _cells(self, number: int) -> Iterator[tuple[int, int]]:
        """Find the rows of a page, of any but those that hold keys only."""
        return (cell for cell in _cells(self._page(number), number) if cell[0] != INTERIOR_TABLE)

    def _says(self, kind: int, page: bytes, start: int, types: Container[str]) -> bool:
        with suppress(NoRowError, IndexError):
            return "".join(map(letter, _head(kind, page, start).serial_types)) in types
        return False

    def _row(self, kind: int, page: bytes, start: int, types: Container[str]) -> Row | None:
        """Read the row that begins somewhere in a page, 1.6, where it is of these types."""
        n_bytes, rowid, at, serial_types, n_header = _head(kind, page, start)
        if "".join(map(letter, serial_types)) not in types:
            return None
        payload = self._payload(page, at, n_bytes, kind == LEAF_TABLE)
        return Row(rowid, tuple(values_of(payload, serial_types, n_header)))

    def _payload(self, page: bytes, at: int, n_bytes: int, is_table: bool) -> bytes:
        """Put together what a row has in its page and in those that it overflows to, 1.6 and 1.7."""
        if not 0 < n_bytes <= len(self._data):
            raise NoRowError("longer than the file")
        here = _bytes_in_page(n_bytes, self.page_size, is_table)
        if here == n_bytes:
            return exactly(page, at, n_bytes)
        parts = [exactly(page, at, here)]
        following = int.from_bytes(exactly(page, at + here, 4), "big")
        missing = n_bytes - here
        while missing > 0:
            page = self._page(following)
            parts.append(exactly(page, 4, min(missing, self.page_size - 4)))
            following = int.from_bytes(page[:4], "big")
            missing -= len(parts[-1])
        return b"".join(parts)


def _head(kind: int, page: bytes, start: int) -> _Head:
    """Read what a row that begins somewhere in a page says of itself, 1.6."""
    n_bytes, at = varint(page, start + 4 if kind == INTERIOR_INDEX else start)
    rowid = None
    if kind == LEAF_TABLE:
        rowid, at = varint(page, at)
    return _Head(n_bytes, rowid, at, *serial_types_of(page, at))


def _cells(page: bytes, number: int) -> list[tuple[int, int]]:
    """Find the rows of a page: its kind, and where each begins; [] where it is of no kind."""
    header = _FILE_HEADER_BYTES if number == 1 else 0
    if len(page) < header + 12 or page[header] not in _HEADER_BYTES:
        return []
    kind = page[header]
    first = header + _HEADER_BYTES[kind]
    n_cells = min(int.from_bytes(page[header + 3 : header + 5], "big"), (len(page) - first) // 2)
    starts = dict.fromkeys(struct.unpack_from(f">{n_cells}H", page, first))
    return [(kind, start) for start in starts if start >= first]


def _bytes_in_page(n_bytes: int, page_size: int, is_table: bool) -> int:
    """Tell how much of a row is in its own page, 1.6; our files reserve nothing at the end of a page."""
    most = page_size - 35 if is_table else (page_size - 12) * 64 // 255 - 23
    if n_bytes <= most:
        return n_bytes
    least = (page_size - 12) * 32 // 255 - 23
    here = least + (n_bytes - least) % (page_size - 4)
    return here if here <= most else least


def _guess_page_size(data: Buffer) -> int:
    """Give the size that the header tells, where all pages fit it, or the one that most pages look right in."""
    (told,) = struct.unpack_from(">H", data, 16) if len(data) >= _FILE_HEADER_BYTES else (0,)
    told = 65536 if told == 1 else told
    n_told = int.from_bytes(data[28:32], "big")
    if told in PAGE_SIZES and told * n_told == len(data):
        return int(told)
    return max(PAGE_SIZES, key=lambda page_size: (_plausible_bytes(data, page_size), page_size == told))


def _plausible_bytes(data: Buffer, page_size: int) -> float:
    """Estimate how much of a file are pages whose header and rows fit a page size."""
    n_pages = len(data) // page_size
    step = max(1, n_pages // PAGES_SAMPLED)
    sampled = range(1, n_pages, step)  # not the first, which has the file's header
    n_plausible = sum(_is_plausible(data, number * page_size, page_size) for number in sampled)
    return n_plausible * step * page_size


def _is_plausible(data: Buffer, start: int, page_size: int) -> bool:
    """Tell whether a page of rows begins somewhere: rows fill it from its end, and nothing is after the last."""
    kind = data[start]
    if kind not in (LEAF_INDEX, LEAF_TABLE):
        return False
    page = data[start : start + page_size]
    (n_cells,) = struct.unpack_from(">H", page, 3)
    if not 0 < n_cells < page_size // 4:
        return False
    last = max(struct.unpack_from(f">{n_cells}H", page, 8))
    try:
        n_bytes, at = varint(page, last)
        if kind == LEAF_TABLE:
            _, at = varint(page, at)
    except IndexError:
        return False
    here = _bytes_in_page(n_bytes, page_size, kind == LEAF_TABLE)
    return at + here + (0 if here == n_bytes else 4) == page_size
