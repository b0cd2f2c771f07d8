"""Reading rows of the table documents off the pages of the file: a whole collection, quicker than SQLite gives it."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

import numpy as np

from embstore.stores.btrees.indexes import Places, ScopeRows
from embstore.stores.btrees.pager import Numbers, open_pager

# Of the table; a row that has others is not read.
_N_COLUMNS = 5
_DOC_ID, _VECTOR_ID, _CHECKSUM = 2, 3, 4

Columns = tuple[list[str], Numbers, Numbers]
"""doc_ids, vector_ids and checksums of n rows."""


def read(connection: Connection, model_id: int, collection: str) -> Columns | None:
    """Read the rows of a model and collection by doc_id; None where SQLite has to be asked."""
    if not isinstance(collection, str):  # the file is damaged
        return None
    pager = open_pager(connection)
    if pager is None:
        return None
    try:
        rows = ScopeRows(pager, pager.root("documents"), _N_COLUMNS, (model_id, collection.encode()))
        in_leaves, leaf_of_each = _columns(rows.in_leaves())
        between, leaf_before = _columns(rows.between)
        pager.check_descriptor()
    except (OSError, ValueError, IndexError):
        return None
    return _merge(in_leaves, between, np.searchsorted(leaf_of_each, leaf_before, side="right"))


def _columns(places: Iterable[Places]) -> tuple[Columns, Numbers]:
    """Take rows apart, in the order of the leaves that they are in or come after."""
    doc_ids: list[str] = []
    none = np.empty(0, dtype=np.int64)
    numbers = [(none, none, none)]
    for rows, leaves in places:
        doc_ids += rows.texts(_DOC_ID)
        numbers.append((rows.integers(_VECTOR_ID), rows.integers(_CHECKSUM), leaves))
    vector_ids, checksums, leaves = (np.concatenate(some) for some in zip(*numbers, strict=True))
    if (np.diff(leaves) < 0).any():
        order = np.argsort(leaves)
        return ([doc_ids[i] for i in order.tolist()], vector_ids[order], checksums[order]), leaves[order]
    return (doc_ids, vector_ids, checksums), leaves


def _merge(rows: Columns, others: Columns, before: Numbers) -> Columns:
    """Put other rows between rows: each before the one at a place."""
    doc_ids: list[str] = []
    done = 0
    for doc_id, place in zip(others[0], before.tolist(), strict=True):
        doc_ids += rows[0][done:place]
        doc_ids.append(doc_id)
        done = place
    doc_ids += rows[0][done:]
    return doc_ids, np.insert(rows[1], before, others[1]), np.insert(rows[2], before, others[2])
