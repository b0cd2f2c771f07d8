"""Reading rows of the table documents off the pages of the file: a whole collection, quicker than SQLite gives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from sqlite3 import Connection
from typing import TypeVar

import numpy as np

from embstore.stores.btrees.cells import Texts
from embstore.stores.btrees.indexes import ScopeRows
from embstore.stores.btrees.pager import Numbers, open_pager

# Of the table; a row that has others is not read.
_N_COLUMNS = 5
_DOC_ID, _VECTOR_ID, _CHECKSUM = 2, 3, 4

T = TypeVar("T")
Columns = tuple[list[str], Numbers, Numbers]
"""doc_ids, vector_ids and checksums of n rows."""


def read(connection: Connection, model_id: int, collection: str, *, by_vector: bool = False) -> Columns | None:
    """Read the rows of a model and collection by doc_id, or by vector_id; None where SQLite has to be asked."""
    return _read(connection, model_id, collection, partial(_columns, by_vector=by_vector))


def read_vector_ids(connection: Connection, model_id: int, collection: str) -> Numbers | None:
    """Read the vector that each row of a model and collection points at, in no order; None likewise."""
    return _read(connection, model_id, collection, _vector_ids)


def _read(connection: Connection, model_id: int, collection: str, take_apart: Callable[[ScopeRows], T]) -> T | None:
    if not isinstance(collection, str):  # the file is damaged
        return None
    pager = open_pager(connection)
    if pager is None:
        return None
    try:
        rows = ScopeRows(pager, pager.root("documents"), _N_COLUMNS, (model_id, collection.encode()))
        there = take_apart(rows)
        pager.check_descriptor()
    except (OSError, ValueError, IndexError):
        return None
    return there


def _vector_ids(rows: ScopeRows) -> Numbers:
    none = np.empty(0, dtype=np.int64)
    return np.concatenate([none, *(some.integers(_VECTOR_ID) for some, _ in chain(rows.in_leaves(), rows.between))])


def _columns(rows: ScopeRows, *, by_vector: bool) -> Columns:
    """Take rows apart, and bring them into an order before texts of Python's are made, which take longer to move."""
    none = np.empty(0, dtype=np.int64)
    doc_ids, numbers = [], [(none, none, none)]
    for is_after, parts in ((0, rows.in_leaves()), (1, rows.between)):
        for some, leaves in parts:
            doc_ids.append(some.texts(_DOC_ID))
            numbers.append((some.integers(_VECTOR_ID), some.integers(_CHECKSUM), 2 * leaves + is_after))
    vector_ids, checksums, places = (np.concatenate(parts) for parts in zip(*numbers, strict=True))
    order = np.argsort(places, kind="stable")
    if by_vector:
        order = order[np.argsort(vector_ids[order], kind="stable")]
    return Texts.joined(doc_ids).as_list(order), vector_ids[order], checksums[order]
