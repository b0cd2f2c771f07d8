"""A connection that knows which file it has open."""

from __future__ import annotations

from embstore.stores.btrees.descriptors import FileId
from embstore.stores.sqlite_errors import sqlite3


class FileConnection(sqlite3.Connection):
    """A connection of sqlite3.

    Attributes
    ----------
    file : tuple of int, or None
        The file that it has open; None where it is not known for certain.
    descriptor : int or None
        One of this process that was on that file when it was last looked at.
    n_fetches : int
        How often it was asked since it was known that there is no such descriptor.
    is_writing : bool
        It is in a transaction that writes, so that the file is not what it reads.
    """

    file: FileId | None = None
    descriptor: int | None = None
    n_fetches = 0
    is_writing = False
