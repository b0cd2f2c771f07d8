"""The errors of a server, told apart by their SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).

What libpq says of a connection that it could not make has none, and is told apart by its text; in another language
than English it is a `ServerUnreachableError` all the same, which quotes it.
"""

from __future__ import annotations

from typing import Any

import psycopg

from embstore.errors import (
    DamagedStoreError,
    NotAStoreError,
    ReadOnlyError,
    ServerUnreachableError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StorePathError,
    TooManyConnectionsError,
)

# To be run again: the server could not put a transaction in order with others, or a row that one relied on is gone.
SERIALIZATION_FAILURE, DEADLOCK_DETECTED, FOREIGN_KEY_VIOLATION = "40001", "40P01", "23503"
AGAIN = (SERIALIZATION_FAILURE, DEADLOCK_DETECTED, FOREIGN_KEY_VIOLATION)

# Two create the same at once; the second finds it where it looks again.
UNIQUE_VIOLATION, DUPLICATE_TABLE, DUPLICATE_OBJECT = "23505", "42P07", "42710"

FEATURE_NOT_SUPPORTED = "0A000"
UNDEFINED_FUNCTION = "42883"
TOO_LARGE = "54000"
ADMIN_SHUTDOWN, CRASH_SHUTDOWN = "57P01", "57P02"

_PERMISSION = ("42501", "25006")  # of a role, of a transaction or a standby
_WAITED = ("55P03", SERIALIZATION_FAILURE, DEADLOCK_DETECTED)
_TIMED_OUT = ("57014", "25P03", "25P04")
_NO_ROOM = ("53100", "53200", "53400", "54000")
_CHANGED = ("42P01", "42703", "42804", "42883", "3F000")
_DAMAGED = ("XX001", "XX002")

_FULL = ("too many clients", "too many connections", "connection slots are reserved", "remaining connection slots")
_FOR_A_MOMENT = ("starting up", "shutting down", "in recovery", "not yet accepting connections")
_REFUSED = ("authentication", "pg_hba.conf", "does not exist", "could not translate host name", "no password supplied")


def is_lost(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a connection has come to its end with an error."""
    return connection.closed or error.sqlstate in (ADMIN_SHUTDOWN, CRASH_SHUTDOWN)


def is_for_a_moment(error: psycopg.Error) -> bool:
    """Tell whether a server that made no connection says that it can be had in a moment."""
    return any(text in str(error) for text in (*_FULL, *_FOR_A_MOMENT))


def is_refused(error: psycopg.Error) -> bool:
    """Tell whether a server that made no connection will not make it later either."""
    return any(text in str(error) for text in _REFUSED)


def unreachable(error: psycopg.Error, location: str, timeout_s: float) -> StoreError:
    """Give the error for a connection that could not be made."""
    said = _first_line(error)
    if any(text in said for text in _FULL):
        return TooManyConnectionsError(
            f"{location!r} takes no more connections, for longer than {timeout_s:g} s ({said}); let fewer processes "
            f"use it at once, give a smaller pool_size= in the URL, or put a pooler before it",
            path=location,
        )
    if "database" in said and "does not exist" in said:
        return StorePathError(f"{location!r} names no database of this server ({said}); create it first", path=location)
    return ServerUnreachableError(
        f"{location!r} cannot be reached ({said}); check host, port, user and password, which can also be in "
        f"PGPASSWORD or a password file",
        path=location,
    )


def translated(error: psycopg.Error, location: str, timeout_s: float) -> StoreError:
    """Give our error for one of the server's."""
    state, said = error.sqlstate or "", _first_line(error)
    kind: type[StoreError] = StoreError
    cure = "nothing of the transaction was written"
    if state in _WAITED:
        kind, cure = StoreBusyError, f"others kept it locked for longer than {timeout_s:g} s; do it again"
    elif state in _TIMED_OUT:
        kind, cure = StoreBusyError, "it was cancelled, or takes longer than this role's statements may"
    elif state in _PERMISSION:
        kind, cure = ReadOnlyError, "grant this role what docs/postgres.md lists, or use another"
    elif state in _NO_ROOM:
        kind, cure = StoreFullError, "make room on the server, and write it again; nothing of the transaction was"
    elif state in _CHANGED:
        kind, cure = NotAStoreError, "its tables are not those that embstore made, or are in another schema"
    elif state in _DAMAGED:
        kind, cure = DamagedStoreError, "restore it from a backup"
    elif state.startswith(("08", "57P")) or (not state and isinstance(error, psycopg.OperationalError)):
        kind, cure = ServerUnreachableError, "the connection was lost; do it again"
    return kind(f"{location!r}: {said}; {cure}", path=location)


def _first_line(error: psycopg.Error) -> str:
    """Give what is said, without values of rows, which can be in the lines that follow."""
    return (error.diag.message_primary or str(error).partition("\n")[0]).strip()
