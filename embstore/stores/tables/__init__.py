"""The SQL of each table, as functions on a connection that is in a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embstore.errors import DamagedStoreError

# What a connection keeps of the file in memory.
CACHE_KIB = 32 * 1024

# No text of 4 bytes a character, and no vector, is longer; SQLite refuses to read what is.
LONGEST_VALUE_BYTES = 2**25

# Nothing is ever counted as far, and what is can still be added to within 64 bits.
ABOVE_ALL_COUNTS = 2**62

# The limit of variables in a statement can be as low as 999.
KEYS_AT_ONCE = 500

# A request for at least this many keys and this share of a table reads the table's index once in order, 1 us a key,
# instead of searching it key by key, 3 us.
SCAN_FROM_KEYS = 200
SCAN_FROM_SHARE = 1 / 4

ROWS_UNASKED = 100_000  # that are read without a look at the size of the file
LEAST_ROW_BYTES = 8

PAGE_COUNT = """
PRAGMA page_count
"""

PAGE_SIZE = """
PRAGMA page_size
"""

HAS_TABLE = """
SELECT count(*)
FROM sqlite_master
WHERE type = 'table' AND name = ?
"""

T = TypeVar("T")


def chunks(keys: Sequence[T], size: int = KEYS_AT_ONCE) -> Iterator[Sequence[T]]:
    """Cut keys into pieces that fit one statement."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def places(keys: Sequence[object]) -> str:
    """Give the question marks for `IN (...)`."""
    return ",".join("?" * len(keys))


def integers(text: str | None) -> npt.NDArray[np.int64]:
    """Read what `group_concat` makes of integers; ValueError where there is anything else among them."""
    if not text:
        return np.empty(0, dtype=np.int64)
    if text.encode().translate(None, delete=b"-,0123456789"):
        raise ValueError("a value that is no integer")
    return np.fromstring(text, dtype=np.int64, sep=",")


def whole_numbers(values: Sequence[object]) -> npt.NDArray[np.int64]:
    """Give a column of integers as an array, with 0 for what is none: damage."""
    if set(map(type, values)) - {int}:
        values = [value if type(value) is int else 0 for value in values]
    return np.array(values, dtype=np.int64)


def is_count(value: object) -> bool:
    """Tell whether a value of a row is a number that something can have been counted to."""
    return type(value) is int and 0 <= value < ABOVE_ALL_COUNTS


def all_rows(connection: Connection, statement: str, values: Sequence[object] = ()) -> list[Any]:
    """Give the rows of a statement that a table decides the number of.

    Raises
    ------
    DamagedStoreError
        As of `check_rows`.
    """
    cursor = connection.execute(statement, values)
    rows = cursor.fetchmany(ROWS_UNASKED)
    while more := cursor.fetchmany(ROWS_UNASKED):
        rows += more
        check_rows(connection, len(rows))
    return rows


def check_rows(connection: Connection, n: int) -> None:
    """Refuse to read more rows than a file of its size can have.

    Raises
    ------
    DamagedStoreError
        Pages lead back to themselves.
    """
    if n > ROWS_UNASKED:
        (n_pages,), (page_bytes,) = (connection.execute(pragma).fetchone() for pragma in (PAGE_COUNT, PAGE_SIZE))
        if n * LEAST_ROW_BYTES > n_pages * page_bytes:
            raise DamagedStoreError(
                f"a table has more rows than a file of {n_pages * page_bytes} bytes can hold: its pages lead back to "
                f"themselves; restore the file from a copy, or save what is in it by `embstore repair`"
            )


def has_table(connection: Connection, name: str) -> bool:
    """Tell whether a file has a table: one of an older schema version that can only be read lacks the newer ones."""
    return bool(connection.execute(HAS_TABLE, (name,)).fetchone()[0])
