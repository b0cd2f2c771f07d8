"""What can be told of a cache file without changing it: neither created, nor migrated, nor converted."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from embstore.stores import opening
from embstore.stores.sqlite_errors import sqlite3, translated


@dataclass(frozen=True)
class Condition:
    """A cache file as it is.

    Attributes
    ----------
    path : str
        Absolute.
    schema_version : int
        Of its tables; `embstore.stores.schema.SCHEMA_VERSION` is that of this embstore.
    page_size : int
        Bytes.
    journal_mode : str
        "delete" where embstore made it.
    size_bytes : int
    mode : int
        Its permissions, as of ``stat``.
    is_writable : bool
        It and its folder, which takes its journal.
    """

    path: str
    schema_version: int
    page_size: int
    journal_mode: str
    size_bytes: int
    mode: int
    is_writable: bool


def read_condition(path: str | Path, *, timeout_s: float = 30.0) -> Condition:
    """Tell how a cache file is, without changing it; but what a crash left half written is rolled back.

    Parameters
    ----------
    path : str or Path
        A file that is there.
    timeout_s : float
        How long to wait for another process's lock.

    Returns
    -------
    Condition

    Raises
    ------
    StoreError
        It is no file of ours, or none that this embstore can use; the subclass and the message say why.
    """
    absolute = opening.checked_path(path, allow_network_filesystem=True)
    is_writable = os.access(absolute, os.W_OK) and os.access(absolute.parent, os.W_OK)
    try:
        version = opening.inspect(absolute, opening.checked_timeout(timeout_s), read_only=not is_writable)
        with contextlib.closing(opening.connect(absolute, "ro", timeout_s)) as connection:
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: SQLite's own message quotes damaged text
        raise translated(error, str(absolute), timeout_s) from error
    with opening.reachable(absolute):
        stat = absolute.stat()
    return Condition(str(absolute), version, page_size, journal_mode, stat.st_size, stat.st_mode, is_writable)
