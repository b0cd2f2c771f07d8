"""What lies beside a file and is part of it to SQLite, which opens it as it is.

A file that a stranger gives should come alone. A pipe in the place of its journal would be waited for without end. And
SQLite takes a journal's word for it that it is one of several in a transaction over several files: once it has rolled
it back, it deletes the file that the journal names as the list of them (https://sqlite.org/atomiccommit.html,
"Multi-file Commit"). No transaction of ours is over several files.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from embstore.errors import StorePathError, UnsafeStoreError

JOURNAL = "-journal"
SUFFIXES = (JOURNAL, "-wal", "-shm")

_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # with which a journal begins, and ends where it names such a list


def check_companions(path: Path) -> None:
    """Look at what lies beside a file before SQLite does.

    Raises
    ------
    StorePathError
        It is no file.
    UnsafeStoreError
        It is a journal that has SQLite delete a file.
    """
    for suffix in SUFFIXES:
        beside = path.with_name(path.name + suffix)
        try:
            mode = beside.stat().st_mode  # once: another process can take it away at any moment
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(mode):
            raise StorePathError(f"{str(beside)!r} is no file, and SQLite would open it; take it away", path=str(path))
    if _names_others(path.with_name(path.name + JOURNAL)):
        raise UnsafeStoreError(
            f"{str(path) + JOURNAL!r} belongs to a transaction over several files, which embstore never makes: with it "
            f"SQLite would delete a file that it names. Take it away, and check the file by verify()",
            path=str(path),
        )


def _names_others(journal: Path) -> bool:
    try:
        with journal.open("rb") as file:
            file.seek(-len(_MAGIC), os.SEEK_END)
            return file.read() == _MAGIC
    except OSError:  # there is none, or a shorter one
        return False
