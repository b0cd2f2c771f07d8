"""The one place that the sqlite3 module is taken from, and its exceptions turned into ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embstore.errors import (
    DamagedStoreError,
    NotAStoreError,
    ReadOnlyError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StorePathError,
)

if TYPE_CHECKING:
    import sqlite3
else:
    try:  # the rule of sqlite-utils: two copies of SQLite on one file would drop each other's locks
        import pysqlite3 as sqlite3
    except ImportError:
        import sqlite3

__all__ = [
    "AFTER_THE_COMMIT",
    "BUSY",
    "ERROR",
    "IOERR_DIR_FSYNC",
    "LOCKED",
    "READONLY_RECOVERY",
    "READONLY_ROLLBACK",
    "busy",
    "is_about_room",
    "is_damage",
    "result_code",
    "sqlite3",
    "translated",
]

# Result codes (https://sqlite.org/rescode.html): errors are told apart by them, never by message.
ERROR, BUSY, LOCKED, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN = 1, 5, 6, 8, 9, 10, 11, 13, 14
TOOBIG, CONSTRAINT, NOTADB = 18, 19, 26
IOERR_SHORT_READ, IOERR_WRITE = IOERR | (2 << 8), IOERR | (3 << 8)
READONLY_RECOVERY, READONLY_ROLLBACK = READONLY | (1 << 8), READONLY | (3 << 8)


# Of a COMMIT: the journal is deleted, but its folder could not be synced, or a lock not be given back.
IOERR_DIR_FSYNC, IOERR_UNLOCK, IOERR_RDLOCK = IOERR | (5 << 8), IOERR | (8 << 8), IOERR | (9 << 8)
AFTER_THE_COMMIT = (IOERR_DIR_FSYNC, IOERR_UNLOCK, IOERR_RDLOCK)


def result_code(error: BaseException) -> int | None:
    """Give the extended result code; None where the exception is Python's own."""
    return getattr(error, "sqlite_errorcode", None)


def is_damage(error: Exception) -> bool:
    """Tell whether a read failed because of what is stored; text that is not UTF-8 has no result code."""
    code = result_code(error)
    return code is None or code & 0xFF in (CORRUPT, TOOBIG) or code == IOERR_SHORT_READ


def is_about_room(error: Exception) -> bool:
    """Tell whether a write failed because there was no room for it."""
    code = result_code(error)
    return code is not None and (code & 0xFF == FULL or code == IOERR_WRITE)


def busy(path: str, timeout_s: float) -> StoreBusyError:
    """Give the error of a lock that was waited for in vain."""
    return StoreBusyError(
        f"{path!r} was locked by another process for more than {timeout_s:g} s; end that process, or raise timeout_s",
        path=path,
    )


def translated(error: Exception, path: str, timeout_s: float) -> StoreError:
    """Choose our error by SQLite's result code."""
    code = result_code(error)
    primary = None if code is None else code & 0xFF
    if code is None and isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        return StoreError(f"{path!r}: {type(error).__name__}: {error}", path=path)
    if primary in (BUSY, LOCKED):
        return busy(path, timeout_s)
    if code in (READONLY_RECOVERY, READONLY_ROLLBACK):
        return ReadOnlyError(
            f"{path!r} was left by a process that was killed while it wrote, and can only be read; open it once where "
            f"it can be written, which rolls that back",
            path=path,
        )
    if primary == READONLY:
        return ReadOnlyError(f"{path!r} cannot be written ({error})", path=path)
    if is_about_room(error):
        return StoreFullError(f"no room to write {path!r} ({error}); free some, nothing was changed", path=path)
    if primary == NOTADB:
        return NotAStoreError(
            f"{path!r} is not an SQLite database; it was left as it is. If it was one, repair() saves its rows",
            path=path,
        )
    if primary == CANTOPEN:
        return StorePathError(f"{path!r} cannot be opened ({error}); check its folder and permissions", path=path)
    if primary in (CORRUPT, TOOBIG, CONSTRAINT, None) or code == IOERR_SHORT_READ:
        return DamagedStoreError(
            f"{path!r} is damaged ({error}); verify() lists what is lost, repair() saves the rest", path=path
        )
    if primary == INTERRUPT:
        return DamagedStoreError(
            f"{path!r} has more rows than a file of its size can hold: its pages lead back to themselves; restore it "
            f"from a copy, or save what is in it by `embstore repair`",
            path=path,
        )
    if primary == IOERR:
        return StoreError(
            f"{path!r}: the operating system failed to do what was asked of it ({error}); nothing was changed, "
            f"check the disk and try again",
            path=path,
        )
    return StoreError(f"{path!r}: {type(error).__name__}: {error}", path=path)
