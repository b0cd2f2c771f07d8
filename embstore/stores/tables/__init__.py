"""The SQL of each table, as functions on a connection that is in a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

# The limit of variables in a statement can be as low as 999.
KEYS_AT_ONCE = 500

T = TypeVar("T")


def chunks(keys: Sequence[T], size: int = KEYS_AT_ONCE) -> Iterator[Sequence[T]]:
    """Cut keys into pieces that fit one statement."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def places(keys: Sequence[object]) -> str:
    """Give the question marks for `IN (...)`."""
    return ",".join("?" * len(keys))
