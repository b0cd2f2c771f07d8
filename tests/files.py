"""Cache files as another program sees them: whole tables, changed rows, flipped bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embstore.stores.sqlite_errors import sqlite3

Row = tuple[Any, ...]


@contextlib.contextmanager
def connection(path: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    """A connection of the same SQLite library that the cache uses: another copy would drop its locks."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True)) as connected:
        yield connected


def rows(path: Path, sql: str, *parameters: Any) -> list[Row]:
    """What a query gives."""
    with connection(path) as connected:
        return connected.execute(sql, parameters).fetchall()


def dump(path: Path) -> dict[str, list[Row]]:
    """Every row of every table, in the order of the columns' values."""
    tables = [name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {table: sorted(rows(path, f"SELECT * FROM {table}"), key=repr) for table in tables}


def change(path: Path, sql: str, *parameters: Any) -> None:
    """Change rows behind the cache's back; foreign keys are not looked at. One row at least must change."""
    with connection(path, "rw") as connected:
        assert connected.execute(sql, parameters).rowcount >= 1
        connected.commit()


def define(path: Path, sql: str) -> None:
    """Run any statement of the schema, or a pragma and, after "; ", what it is for."""
    with connection(path, "rw") as connected:
        for statement in sql.split("; ") if sql.startswith("PRAGMA") else [sql]:
            connected.execute(statement)
        connected.commit()


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    """Flip a bit of a file that nobody has open."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)
