"""The leaves of a table's tree, by the keys of their rows."""

from __future__ import annotations

import numpy as np

from embstore.stores.btrees.cells import INTERIOR_TABLE, LEAF_TABLE, Cells, page_cells, varints
from embstore.stores.btrees.pager import MOST_LEVELS, Bytes, Numbers, Pager, UnreadableError

_ABOVE_ALL_KEYS = 2**62
_RIGHTMOST_CHILD = 8  # where the header of an interior page tells it, 1.6


def leaves(pager: Pager, root: int) -> tuple[Numbers, Numbers]:
    """List the leaves of a table in the order of their keys.

    Returns
    -------
    numbers : ndarray of shape (n,), int64
        Of their pages.
    last_keys : ndarray of shape (n,), int64
        No row in a leaf has a higher key.
    """
    numbers, last_keys = np.array([root]), np.array([_ABOVE_ALL_KEYS])
    for _ in range(MOST_LEVELS):
        first = pager.read_one(int(numbers[0]))
        if first[0] == LEAF_TABLE:
            return numbers, last_keys
        above = zip(numbers.tolist(), last_keys.tolist(), strict=True)
        below = [_children(pager, number, last_key) for number, last_key in above]
        n_above = len(numbers)
        numbers, last_keys = (np.concatenate(parts) for parts in zip(*below, strict=True))
        if not n_above < len(numbers) <= pager.n_pages or not (np.diff(last_keys) > 0).all():
            break
    raise UnreadableError("a tree that leads back to itself")


def _children(pager: Pager, number: int, last_key: int) -> tuple[Numbers, Numbers]:
    page = pager.read_one(number)
    cells, _ = page_cells(page[None], INTERIOR_TABLE)
    keys, _ = varints(cells.data, cells.starts + 4)
    return child_numbers(page, cells), np.append(keys, last_key)


def child_numbers(page: Bytes, cells: Cells) -> Numbers:
    """Give the pages below an interior one: that of each of its n cells, and the rightmost: (n + 1,)."""
    at = np.append(cells.starts, _RIGHTMOST_CHILD)
    return np.ascontiguousarray(page[at[:, None] + np.arange(4)]).view(">u4")[:, 0].astype(np.int64)


def keyed_cells(pages: Bytes) -> tuple[Cells, Numbers, Numbers]:
    """Find the rows of some leaves.

    Returns
    -------
    cells : Cells
        Each begins where its header does.
    keys : ndarray of shape (n,), int64
    n_bytes : ndarray of shape (n,), int64
        How long each row is.
    """
    cells, _ = page_cells(pages, LEAF_TABLE)
    n_bytes, at = varints(cells.data, cells.starts)
    keys, at = varints(cells.data, at)
    return Cells(cells.data, at, cells.page_ends, cells.most_bytes), keys, n_bytes
