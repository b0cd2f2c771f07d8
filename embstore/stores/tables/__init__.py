"""The SQL of each table, as functions on a connection that is in a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import TypeVar

# What a connection keeps of the file in memory.
CACHE_KIB = 32 * 1024

# The limit of variables in a statement can be as low as 999.
KEYS_AT_ONCE = 500

# A request for at least this many keys and this share of a table reads the table's index once in order, 1 us a key,
# instead of searching it key by key, 3 us.
SCAN_FROM_KEYS = 200
SCAN_FROM_SHARE = 1 / 4

HAS_TABLE = """
SELECT count(*)
FROM sqlite_master
WHERE type = 'table' AND name = ?
"""

_INTEGERS = json.JSONDecoder(parse_float=int)  # which takes no text of a fraction

T = TypeVar("T")


def chunks(keys: Sequence[T], size: int = KEYS_AT_ONCE) -> Iterator[Sequence[T]]:
    """Cut keys into pieces that fit one statement."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def places(keys: Sequence[object]) -> str:
    """Give the question marks for `IN (...)`."""
    return ",".join("?" * len(keys))


def integers(text: str | None) -> list[int]:
    """Read what `group_concat` makes of integers; ValueError where there is anything else among them."""
    numbers: list[int] = _INTEGERS.decode(f"[{text or ''}]")
    return numbers


def has_table(connection: Connection, name: str) -> bool:
    """Tell whether a file has a table: one of an older schema version that can only be read lacks the newer ones."""
    return bool(connection.execute(HAS_TABLE, (name,)).fetchone()[0])
