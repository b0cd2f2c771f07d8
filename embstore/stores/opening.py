"""Opening a cache file: where it lies, what it is, creating it, bringing its schema up to date.

Rollback journal and `synchronous=EXTRA`, SQLite's slowest and safest: no acknowledged commit is lost in a power
cut, and nothing lies beside the file at rest. WAL is left alone: the WAL-reset bug, fixed in 3.51.3, 3.50.7 and
3.44.6 (https://sqlite.org/wal.html#walresetbug), is in most Pythons' SQLite.
"""

from __future__ import annotations

# Pandas, which sqlite-utils imports where it is installed, imports this, and nobody can once the main thread has ended
# (tests/test_overlap.py::test_a_thread_goes_on_storing_when_the_main_thread_has_ended).
import concurrent.futures.thread  # noqa: F401
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from embstore.errors import (
    EmbstoreError,
    InvalidTypeError,
    NotAStoreError,
    ReadOnlyError,
    StoreFullError,
    StorePathError,
    UnsafeStoreError,
)
from embstore.seconds import check_seconds
from embstore.stores import schema
from embstore.stores.btrees.connection import FileConnection
from embstore.stores.btrees.descriptors import file_id
from embstore.stores.committing import CommittedError, confirmed, immediate
from embstore.stores.companions import check_companions
from embstore.stores.filesystem import network_filesystem
from embstore.stores.sqlite_errors import ERROR, READONLY_RECOVERY, READONLY_ROLLBACK, result_code, sqlite3
from embstore.stores.tables import CACHE_KIB, LONGEST_VALUE_BYTES

PAGE_SIZE = 65536
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MINIMUM_SQLITE = (3, 37, 0)  # STRICT tables

PER_CONNECTION = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = EXTRA",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    f"PRAGMA cache_size = -{CACHE_KIB}",
)

# What a file holds may be a stranger's: no value or statement takes more memory than one of ours can
# (https://sqlite.org/security.html). By number: the names are those of https://sqlite.org/c3ref/c_limit_attached.html.
LIMIT_LENGTH, LIMIT_SQL_LENGTH = 0, 1
LIMITS = {LIMIT_LENGTH: LONGEST_VALUE_BYTES, LIMIT_SQL_LENGTH: 1_000_000}

DBCONFIG_DEFENSIVE = 1010  # nobody writes to the schema by itself


def checked_timeout(timeout_s: object) -> float:
    """Give a number of seconds to wait for a lock.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no number, or negative or not finite.
    """
    return check_seconds(timeout_s, "timeout_s")


def checked_path(path: object, *, allow_network_filesystem: bool) -> Path:
    """Give the absolute path of a file that a cache can be in.

    Raises
    ------
    StorePathError
        It names no file.
    UnsafeStoreError
        Its file system, or this SQLite, cannot be trusted with it.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise UnsafeStoreError(
            f"SQLite {sqlite3.sqlite_version} is too old, 3.37 or newer is needed; pip install pysqlite3-binary",
            path=str(path),
        )
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(f"path is {type(path).__name__}, not str or Path: {path!r:.80}")
    named = os.fspath(path)
    if named in ("", ":memory:") or "\0" in named:
        raise StorePathError(f"path {named!r} names no file; for a cache that is not kept, use a temporary file")
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links that may change
    kind = None if allow_network_filesystem else network_filesystem(absolute)
    if kind is not None:
        raise UnsafeStoreError(
            f"{str(absolute)!r} lies on {kind}, a network file system, whose locks cannot be trusted: two machines "
            f"that write at once can damage the file. Use a local disk, or pass allow_network_filesystem=True "
            f"where one process alone uses it",
            path=str(absolute),
            filesystem=kind,
        )
    return absolute


def wal_is_fixed(version: tuple[int, ...]) -> bool:
    """Tell whether a version of SQLite has the fix of the WAL-reset bug."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def prepare(path: Path, timeout_s: float) -> bool:
    """Create, check and migrate the file; tell whether it can only be read."""
    with reachable(path):
        check_companions(path)
        _create(path)
    read_only = not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    version = inspect(path, timeout_s, read_only=read_only)
    if not read_only:
        _clear_away(path)
    if version < schema.SCHEMA_VERSION:
        if not read_only:
            _migrate(path, timeout_s)
        elif version < schema.OLDEST_READABLE:
            raise ReadOnlyError(
                f"{str(path)!r} needs the migration to schema version {schema.SCHEMA_VERSION} and can only be "
                f"read; open it once where it can be written",
                path=str(path),
            )
    return read_only


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: a file that exists is never opened here, since closing it would drop SQLite's locks on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise StorePathError(
                f"{str(path)!r} is not a file; give the path of a file, for example {str(path / 'embeddings.db')!r}",
                path=str(path),
            ) from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StoreFullError(
                f"no room to create {str(path)!r} ({error.strerror}); free some", path=str(path)
            ) from error
        raise StorePathError(
            f"{str(path)!r} cannot be created: {error.strerror}; give a path in a folder that can be written",
            path=str(path),
        ) from error


def inspect(path: Path, timeout_s: float, *, read_only: bool) -> int:
    """Check the file through a connection that cannot write, and give its schema version."""
    wal = path.with_name(path.name + "-wal")
    with reachable(path):
        had_wal = wal.exists()
    try:
        with contextlib.closing(connect(path, "ro", timeout_s)) as connection:
            return _checked_version(connection, str(path))
    except UnsafeStoreError:
        if not had_wal and not read_only:
            # Looking at a file in WAL mode lays two files beside it, which a connection that can write takes away.
            with contextlib.closing(connect(path, "rw", timeout_s)) as connection:
                connection.execute("PRAGMA user_version").fetchone()
        raise
    except sqlite3.OperationalError as error:
        if result_code(error) not in (READONLY_ROLLBACK, READONLY_RECOVERY) or read_only:
            raise
    # A crash left a journal that must be rolled back before anything can be read. Is the file ours to do so?
    application_id = _torn_application_id(path)
    if application_id not in (0, schema.APPLICATION_ID):
        raise NotAStoreError(f"{str(path)!r} is an SQLite database of another application", path=str(path))
    with contextlib.closing(connect(path, "rw", timeout_s)) as connection:
        return _checked_version(connection, str(path))


def _clear_away(path: Path) -> None:
    """Remove the journal of a process that died before anything was in it that would have to be rolled back.

    SQLite removes one that has, and leaves this one until the next write. Once the lock is taken nobody else writes;
    where it is not to be had, somebody does, and removes that journal.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not os.path.lexists(journal):
        return
    # A full disk, or somebody who writes, is no reason not to open the file.
    with (
        contextlib.suppress(sqlite3.OperationalError, CommittedError),
        contextlib.closing(connect(path, "rw", 0)) as connection,
        immediate(connection),
    ):
        if os.path.lexists(journal):
            # Written as it is: a transaction that writes nothing has no journal, and removes none.
            connection.execute(f"PRAGMA user_version = {int(schema.user_version(connection))}")


def _torn_application_id(path: Path) -> int:
    """Read whose file it is off a header that no journal was applied to.

    A commit that grows a file writes the header first: until the rest is there it tells of more pages than there are,
    which SQLite calls malformed, unless the schema may be written.
    """
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        return int(connection.execute("PRAGMA application_id").fetchone()[0])


def _checked_version(connection: sqlite3.Connection, path: str) -> int:
    connection.execute("BEGIN")  # one state: another process may be making the schema right now
    version = schema.read_version(connection, path)
    connection.execute("ROLLBACK")
    (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if journal_mode == "wal" and not wal_is_fixed(sqlite3.sqlite_version_info):
        raise UnsafeStoreError(
            f"{path!r} is in WAL mode, in which SQLite {sqlite3.sqlite_version} can damage it "
            f"(https://sqlite.org/wal.html#walresetbug); with all programs that use it closed, run: "
            f"sqlite3 {path} 'PRAGMA journal_mode=DELETE'",
            path=path,
        )
    return version


def _migrate(path: Path, timeout_s: float) -> None:
    """Bring the schema up to date.

    One transaction around all, as `Migrations.apply` reads what is pending before it locks: without it,
    processes that create one file at once run the same migration twice.
    """
    from sqlite_utils import Database as SqliteUtilsDatabase

    from embstore._migrations.migrations import migrations

    with confirmed(path), contextlib.closing(connect(path, "rw", timeout_s)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        # A table that is made anew would be emptied row by row, each looked for in all that refers to it.
        connection.execute("PRAGMA foreign_keys = OFF")
        with immediate(connection):
            if schema.read_version(connection, str(path)) < schema.SCHEMA_VERSION:
                try:
                    migrations.apply(SqliteUtilsDatabase(connection))
                except sqlite3.OperationalError as error:
                    if result_code(error) != ERROR:
                        raise
                    raise _not_migrated(path) from error
                # What is pending is written in the file, and a file can lie.
                if schema.read_version(connection, str(path)) < schema.SCHEMA_VERSION:
                    raise _not_migrated(path)


def _not_migrated(path: Path) -> NotAStoreError:
    return NotAStoreError(
        f"the list of migrations in {str(path)!r} does not fit its tables: somebody changed them; "
        f"restore the file from a copy, or give the path of a new one",
        path=str(path),
    )


def connect(path: Path, mode: str, timeout_s: float) -> FileConnection:
    """Open a connection in SQLite's mode "ro" or "rw"."""
    file = file_id(path)
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,  # close() and the end of a thread close it from elsewhere
        factory=FileConnection,
    )
    if file_id(path) == file:  # nobody put another in its place meanwhile
        connection.file = file
    try:
        if hasattr(connection, "setlimit"):  # pysqlite3 may have none
            for limit, value in LIMITS.items():
                connection.setlimit(limit, value)
        if hasattr(connection, "setconfig"):  # Python 3.12
            connection.setconfig(DBCONFIG_DEFENSIVE, True)
        for pragma in PER_CONNECTION:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def reachable(path: str | Path) -> Iterator[None]:
    """Turn the errors of looking at a file into ours.

    Raises
    ------
    StorePathError
        The operating system tells nothing of the file.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, EmbstoreError):
            raise
        raise StorePathError(
            f"{str(path)!r} cannot be looked at: {error.strerror}; check its folder and the disk", path=str(path)
        ) from error
