"""What SQLite can still do with a file that it may not be able to read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from embstore.errors import StoreBusyError
from embstore.stores.opening import connect
from embstore.stores.sqlite_errors import sqlite3, translated

FIRST_PAGE = "SELECT count(*) FROM sqlite_master"


@contextlib.contextmanager
def writers_waiting(path: Path, timeout_s: float) -> Iterator[None]:
    """Keep writers waiting, where the file is whole enough for SQLite to lock it.

    Raises
    ------
    StoreBusyError
        One wrote for longer than `timeout_s`.
    """
    with contextlib.ExitStack() as locked:
        try:
            connection = locked.enter_context(contextlib.closing(connect(path, "ro", timeout_s)))
            connection.execute("BEGIN")
            connection.execute(FIRST_PAGE).fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: names in the schema are not UTF-8
            ours = translated(error, str(path), timeout_s)
            if isinstance(ours, StoreBusyError):
                raise ours from error
        yield


def end_unfinished(path: Path) -> None:
    """Undo what a transaction left unfinished in a file that nobody uses, or carry it out, as far as SQLite can."""
    with (
        contextlib.suppress(sqlite3.Error, UnicodeDecodeError),
        contextlib.closing(connect(path, "rw", 0)) as connection,
    ):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
