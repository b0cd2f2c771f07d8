"""Stores as another program sees them, wherever they are: whole tables, queries, changed rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embstore.stores.locations import is_url
from tests import files

Row = tuple[Any, ...]

TABLES_THERE = """
SELECT table_name
FROM information_schema.tables
WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'
ORDER BY table_name
"""


def rows(location: str | Path, sql: str, *parameters: Any) -> list[Row]:
    """What a query gives; parameters are question marks in it."""
    if not is_url(location):
        return files.rows(Path(location), sql, *parameters)
    import psycopg

    with psycopg.connect(str(location)) as connection:
        return connection.execute(_in_percents(sql), parameters).fetchall()


def dump(location: str | Path) -> dict[str, list[Row]]:
    """Every row of every table, in the order of the columns' values."""
    if not is_url(location):
        return files.dump(Path(location))
    return _of_tables(str(location), "*", key=repr)


def state(location: str | Path) -> bytes | dict[str, list[Row]]:
    """What is another after anything was written, also where it was the same again: bytes, or versions of rows."""
    if not is_url(location):
        return Path(location).read_bytes()
    return _of_tables(str(location), "ctid::text, xmin::text")


def change(location: str | Path, sql: str, *parameters: Any) -> None:
    """Change rows behind the cache's back; one row at least must change. What keys refer to is not looked at."""
    if not is_url(location):
        files.change(Path(location), sql, *parameters)
        return
    import psycopg

    with psycopg.connect(str(location)) as connection:
        connection.execute("SET LOCAL session_replication_role = replica")  # which is what keeps triggers still
        assert connection.execute(_in_percents(sql), parameters).rowcount >= 1


@contextlib.contextmanager
def writers_held(location: str | Path) -> Iterator[None]:
    """Let nobody write meanwhile, and everybody read."""
    if not is_url(location):
        with files.connection(Path(location), "rw") as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
        return
    import psycopg

    with psycopg.connect(str(location)) as server:
        tables = ", ".join(table for (table,) in rows(location, TABLES_THERE))
        server.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
        yield


def without_password(location: str) -> str:
    """A location as it is told to anybody."""
    return re.sub(r"(?<=//)([^:/@]+):[^@]*@", r"\1@", location)


def _of_tables(url: str, columns: str, key: Callable[[Row], object] | None = None) -> dict[str, list[Row]]:
    import psycopg

    with psycopg.connect(url) as connection:
        names = [name for (name,) in connection.execute(TABLES_THERE)]
        return {name: sorted(connection.execute(f"SELECT {columns} FROM {name}"), key=key) for name in names}


def _in_percents(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")
