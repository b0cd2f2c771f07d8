"""The rows of a table WITHOUT ROWID, whose tree is that of an index: rows are in its interior pages too."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np

from embstore.stores.btrees.cells import INTERIOR_INDEX, LEAF_INDEX, Cells, Records, page_cells, records, varints
from embstore.stores.btrees.pager import MOST_LEVELS, Numbers, Pager, UnreadableError
from embstore.stores.btrees.tables import child_numbers

LEAVES_AT_ONCE = 4
_CHILD_BYTES = 4  # before each row of an interior page

Scope = tuple[int, bytes]
"""What the keys of some rows begin with: a number, and a text as UTF-8, in whose order SQLite has them."""

Places = tuple[Records, Numbers]
"""Rows, and the number of the leaf that each is in or comes after, counted from 0."""


class ScopeRows:
    """The rows of a table whose keys begin with some number and text.

    Parameters
    ----------
    pager : Pager
    root : int
        The page that the table begins at.
    n_columns : int
    scope : tuple of int and bytes

    Attributes
    ----------
    between : list of (Records, ndarray of int64)
        Those in interior pages. Rows of one page are in the order of their keys, and no two come after one leaf.
    """

    def __init__(self, pager: Pager, root: int, n_columns: int, scope: Scope) -> None:
        self._pager = pager
        self._n_columns = n_columns
        self._scope = scope
        self._leaves: list[int] = []
        self._visited: set[int] = set()
        self.between: list[Places] = []
        self._descend(root)

    def in_leaves(self) -> Iterator[Places]:
        """Give the rows in leaves in the order of their keys, those of some leaves at a time."""
        for start in range(0, len(self._leaves), LEAVES_AT_ONCE):
            numbers = np.array(self._leaves[start : start + LEAVES_AT_ONCE])
            pages = np.empty((len(numbers), self._pager.page_bytes), dtype=np.uint8)
            self._pager.read(numbers, pages)
            cells, counts = page_cells(pages, LEAF_INDEX)
            rows = self._records(cells)
            wanted = np.flatnonzero(rows.are_text(1, self._scope[1]) & (rows.integers(0) == self._scope[0]))
            yield rows.take(wanted), np.repeat(np.arange(start, start + len(numbers)), counts)[wanted]

    def _descend(self, number: int, level: int = 0) -> None:
        """Find the leaves below a page that can have such rows, and such rows between them."""
        if level > MOST_LEVELS:
            raise UnreadableError("a tree that leads back to itself")
        self._visit([number])
        page = self._pager.read_one(number)
        if page[0] == LEAF_INDEX:
            self._leaves.append(number)
            return
        cells, _ = page_cells(page[None], INTERIOR_INDEX)
        rows = self._records(cells.moved(_CHILD_BYTES))
        first, stop = self._cut(rows)
        children = child_numbers(page, cells)[first : stop + 1].tolist()
        if self._pager.read_one(children[0])[0] == LEAF_INDEX:
            self._visit(children)
            after = len(self._leaves) + np.arange(stop - first)
            self._leaves += children
        else:
            ends = []
            for child in children:
                self._descend(child, level + 1)
                ends.append(len(self._leaves) - 1)
            after = np.array(ends[:-1], dtype=np.int64)
        self.between.append((rows.take(np.arange(first, stop)), after))

    def _visit(self, numbers: list[int]) -> None:
        """Come to pages, each once: it has one place in a tree."""
        n_before = len(self._visited)
        self._visited.update(numbers)
        if len(self._visited) < n_before + len(numbers):
            raise UnreadableError("a tree that leads to a page twice")

    def _cut(self, rows: Records) -> tuple[int, int]:
        """Tell which rows of an interior page are in the scope: from, and up to."""
        numbers = rows.integers(0).tolist()

        def scope_of(row: int) -> Scope:
            return numbers[row], rows.value(1, row)

        places = range(len(numbers))
        return bisect_left(places, self._scope, key=scope_of), bisect_right(places, self._scope, key=scope_of)

    def _records(self, cells: Cells) -> Records:
        n_bytes, starts = varints(cells.data, cells.starts)
        return records(cells, starts, n_bytes, self._n_columns)
