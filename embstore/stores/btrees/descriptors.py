"""Descriptors that this process has of a file that SQLite has open, SQLite's own among them.

None is opened here: closing one that was opened beside it would drop the locks of the whole process
(https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

FOLDER = "/dev/fd"  # where Linux and macOS list the descriptors of a process

FileId = tuple[int, int]
"""Device and inode: of no other file while this one is open."""


def file_id(path: Path) -> FileId | None:
    """Tell which file a path leads to; None where the system does not tell, or no descriptor of it can be found."""
    if not hasattr(os, "preadv"):
        return None
    try:
        return _id_of(path.stat())
    except OSError:
        return None


def descriptors(file: FileId) -> Iterator[int]:
    """Find the descriptors on a file that this process has open."""
    try:
        numbers = [int(entry.name) for entry in Path(FOLDER).iterdir() if entry.name.isdecimal()]
    except OSError:
        return
    yield from (number for number in numbers if is_on(number, file))


def is_on(descriptor: int, file: FileId) -> bool:
    """Tell whether a descriptor is on a file: another thread may close its own, and its number is then given anew."""
    try:
        return _id_of(os.fstat(descriptor)) == file
    except OSError:
        return False


def _id_of(stat: os.stat_result) -> FileId:
    return stat.st_dev, stat.st_ino
