"""The pages of a file that a connection reads at present."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.stores.btrees.connection import FileConnection
from embstore.stores.btrees.descriptors import descriptors, is_on
from embstore.stores.tables import PAGE_COUNT, PAGE_SIZE

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

ROOT = """
SELECT rootpage
FROM sqlite_master
WHERE name = ?
"""

# A log that SQLite reads tells of itself here, whatever the header of the file says.
JOURNAL_MODE = """
PRAGMA journal_mode
"""

ROLLBACK_JOURNALS = ("delete", "truncate", "persist")
ROLLBACK_AND_NOTHING_RESERVED = b"\1\1\0"  # where the header tells of the journal, 1.3

MOST_LEVELS = 20  # of a tree, as SQLite has it
_MAGIC = b"SQLite format 3\0"
_UTF_8 = b"\0\0\0\1"
_SIZES = {65536: 1}  # as the header has them, where two bytes hold no such number
_HEADER_BYTES = 100


class UnreadableError(ValueError):
    """Something is not as it is in a file of ours that is sound: ask SQLite."""


class Pager:
    """Reads pages by SQLite's own descriptor while a transaction of its connection keeps writers away.

    Parameters
    ----------
    connection : FileConnection
        In a transaction that reads.
    descriptor : int

    Attributes
    ----------
    page_bytes : int
    n_pages : int

    Raises
    ------
    UnreadableError
        The file has a write-ahead log, or another form than those that are made here.
    OSError
    """

    def __init__(self, connection: FileConnection, descriptor: int) -> None:
        self._connection = connection
        self._descriptor = descriptor
        header = os.pread(descriptor, _HEADER_BYTES, 0)  # 1.3
        is_plain = header[:16] == _MAGIC and header[18:21] == ROLLBACK_AND_NOTHING_RESERVED
        (journal_mode,) = connection.execute(JOURNAL_MODE).fetchone()
        if not is_plain or header[56:60] != _UTF_8 or journal_mode not in ROLLBACK_JOURNALS:
            raise UnreadableError("no file with a rollback journal and texts in UTF-8")
        (self.page_bytes,), (n_pages,) = (connection.execute(asked).fetchone() for asked in (PAGE_SIZE, PAGE_COUNT))
        if int.from_bytes(header[16:18], "big") not in (self.page_bytes, _SIZES.get(self.page_bytes)):
            raise UnreadableError("pages of another size than SQLite's")
        # The former is what SQLite believes; a file may be larger without having so many bytes.
        self.n_pages = min(n_pages, os.fstat(descriptor).st_size // self.page_bytes)

    def root(self, name: str) -> int:
        """Give the page that a table begins at."""
        row = self._connection.execute(ROOT, (name,)).fetchone()
        if row is None or type(row[0]) is not int:
            raise UnreadableError("no such table")
        return row[0]

    def read(self, numbers: Numbers, into: Bytes) -> None:
        """Read pages, numbered from 1, one after another into the rows of an array of shape (n, page_bytes)."""
        if not (len(numbers) and numbers.min() >= 1 and numbers.max() <= self.n_pages):
            raise UnreadableError("pages that are not there")
        ends = np.flatnonzero(np.diff(numbers) != 1) + 1
        for start, stop in pairwise([0, *ends.tolist(), len(numbers)]):
            place = (int(numbers[start]) - 1) * self.page_bytes
            if os.preadv(self._descriptor, [into[start:stop].data], place) != (stop - start) * self.page_bytes:
                raise UnreadableError("pages that are cut off")

    def read_one(self, number: int) -> Bytes:
        """Read one page: (page_bytes,)."""
        page: Bytes = np.empty(self.page_bytes, dtype=np.uint8)
        self.read(np.array([number]), page[None])
        return page

    def check_descriptor(self) -> None:
        """Raise UnreadableError where what was read may be of another file: somebody closed the descriptor."""
        if self._connection.file is None or not is_on(self._descriptor, self._connection.file):
            raise UnreadableError("another file")


def open_pager(connection: Any) -> Pager | None:
    """Give what reads the pages of a connection; None where only SQLite can.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction that reads.
    """
    if not isinstance(connection, FileConnection) or connection.file is None:
        return None
    if connection.is_writing or not connection.in_transaction:  # what is written may be in its memory alone
        return None
    connection.execute(ROOT, ("",)).fetchone()  # takes the lock, where nothing was read yet
    known = connection.descriptor
    candidates = [known] if known is not None and is_on(known, connection.file) else descriptors(connection.file)
    for descriptor in candidates:
        try:
            pager = Pager(connection, descriptor)
        except (OSError, UnreadableError):  # one that was opened to be written only
            continue
        connection.descriptor = descriptor
        return pager
    return None
