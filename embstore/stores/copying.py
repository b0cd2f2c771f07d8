"""Copying a cache file while others use it, by SQLite's online backup (https://sqlite.org/backup.html).

Between steps of a few megabytes the file is let go, so that writers wait for a step at most. A write of theirs makes
SQLite copy from the first page again; under writers that do not pause that would never end, so the last attempt holds
the file until all is copied: it reads on, and commits wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

from embstore.errors import StoreError, StoreFullError, StorePathError
from embstore.stores import committing, forks, opening, verify
from embstore.stores.base import Problem
from embstore.stores.companions import SUFFIXES
from embstore.stores.connection import Database
from embstore.stores.sqlite_errors import BUSY, LOCKED, busy, is_about_room, sqlite3, translated

STEP_BYTES = 16 * 2**20

# Attempts that let the file go between steps, before the one that holds it.
LOOSE_ATTEMPTS = 2

_logger = logging.getLogger("embstore.stores")

OnProgress = Callable[[int, int], object]
"""Called with the number of pages that are copied, and of all."""

# Reading anything takes the lock that BEGIN alone does not.
HOLD = "PRAGMA user_version"


class _BegunAnewError(Exception):
    """Somebody wrote, and SQLite copies from the first page again."""


def backup(
    database: Database,
    path: str | Path,
    *,
    allow_network_filesystem: bool = False,
    on_progress: OnProgress = lambda n_copied, n_pages: None,
) -> list[Problem]:
    """Copy a database to a new file, of one state of it, and check the copy; see `Store.backup`."""
    with database.reading():
        pass  # a closed cache says so
    with opening.reachable(path):
        destination = _checked_destination(path, Path(database.path), allow_network_filesystem=allow_network_filesystem)
    with _errors(database, destination):
        part = _create_part(destination)
        try:
            with forks.transaction():  # a child would inherit the locks on the source
                _copy_file(database, part, on_progress)
            with closing(opening.connect(part, "ro&immutable=1", 0)) as connection:  # takes no locks
                problems = verify.problems(connection)
            put_in_place(part, destination)
        finally:
            _remove(part)
    return problems


def _checked_destination(path: str | Path, source: Path, *, allow_network_filesystem: bool) -> Path:
    destination = opening.checked_path(path, allow_network_filesystem=allow_network_filesystem)
    if os.path.lexists(destination):
        raise _exists(destination)
    if not destination.parent.is_dir():
        raise StorePathError(
            f"{str(destination.parent)!r} is no folder, so that no backup can be put there; make it first",
            path=str(destination),
        )
    # A journal is played back into whatever database has its name.
    beside = [destination.with_name(destination.name + suffix) for suffix in SUFFIXES]
    left = [str(file) for file in beside if os.path.lexists(file)]
    if left:
        raise StorePathError(
            f"{left[0]!r} of a former database lies there and would be taken for that of the backup; "
            f"delete it, or give another path than {str(destination)!r}",
            path=str(destination),
        )
    real_source = source.resolve()
    if destination.resolve() in [real_source.with_name(real_source.name + suffix) for suffix in SUFFIXES]:
        raise StorePathError(
            f"{str(destination)!r} is the name of a file that SQLite lays beside the source; give another path",
            path=str(destination),
        )
    return destination


def _exists(destination: Path) -> StorePathError:
    return StorePathError(
        f"{str(destination)!r} exists already, and a backup replaces nothing; give a path where nothing is",
        path=str(destination),
    )


def _create_part(destination: Path) -> Path:
    """Create the file that is copied to, beside the destination and with mode 0600."""
    descriptor, name = tempfile.mkstemp(prefix=f"{destination.name}.", suffix=".part", dir=destination.parent)
    try:
        os.close(descriptor)
    except OSError:
        _remove(Path(name))
        raise
    return Path(name)


def _remove(part: Path) -> None:
    """Remove what was copied to; where that cannot be, whether there is a backup is what the caller is to hear."""
    try:
        part.unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("%r cannot be removed: %s", str(part), error.strerror)


def _copy_file(database: Database, part: Path, on_progress: OnProgress) -> None:
    mode = "ro" if database.read_only else "rw"  # the latter may roll back what a killed process left
    with (
        closing(opening.connect(Path(database.path), mode, database.timeout_s)) as source,
        closing(opening.connect(part, "rw", 0)) as target,
    ):
        target.execute("PRAGMA synchronous = OFF")  # `put_in_place` does that once
        target.execute("PRAGMA journal_mode = MEMORY")
        _copy_pages(database, source, target, on_progress)
    with closing(opening.connect(part, "rw", 0)) as target:
        # A copy of a file in WAL mode is in that mode, too, and would have two files beside it when it is read.
        target.execute("PRAGMA journal_mode = DELETE").fetchone()


def _copy_pages(database: Database, source: Connection, target: Connection, on_progress: OnProgress) -> None:
    (page_size,) = source.execute("PRAGMA page_size").fetchone()
    n_step = max(1, STEP_BYTES // page_size)
    for _ in range(LOOSE_ATTEMPTS):
        try:
            source.backup(target, pages=n_step, progress=_watch(database, on_progress))
        except _BegunAnewError:
            continue
        return
    source.execute("BEGIN")
    try:
        source.execute(HOLD).fetchone()
        source.backup(target, pages=n_step, progress=_watch(database, on_progress))
    finally:
        source.rollback()


def _watch(database: Database, on_progress: OnProgress) -> Callable[[int, int, int], None]:
    """Give what is called after each step; it ends a copying that waits in vain, or that had to begin anew."""
    n_before = 0

    def watch(status: int, n_remaining: int, n_pages: int) -> None:
        nonlocal n_before
        if status & 0xFF in (BUSY, LOCKED):  # after `timeout_s`; the sqlite3 module would try for ever
            raise busy(database.path, database.timeout_s)
        n_copied = n_pages - n_remaining
        if n_remaining and n_copied <= n_before:
            raise _BegunAnewError
        n_before = n_copied
        on_progress(n_copied, n_pages)

    return watch


def put_in_place(part: Path, destination: Path) -> None:
    """Give a file that is whole its name, where nothing has that by now, and have the disk keep both."""
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(part, destination)  # which, unlike a rename, never replaces anything
    except FileExistsError:
        raise
    except OSError:  # file systems without hard links: FAT
        if os.path.lexists(destination):
            raise
        part.rename(destination)
    if os.name == "posix":
        try:
            committing.sync_folder(destination.parent)
        except OSError:
            destination.unlink()  # an error says that there is none
            raise


@contextlib.contextmanager
def _errors(database: Database, destination: Path) -> Iterator[None]:
    """Turn exceptions into ours, which name the file that they are about."""
    try:
        yield
    except StoreError:
        raise  # some are OSErrors, too
    except (sqlite3.Error, UnicodeDecodeError) as error:
        about = str(destination) if is_about_room(error) else database.path
        raise translated(error, about, database.timeout_s) from error
    except FileExistsError as error:
        raise _exists(destination) from error
    except OSError as error:
        if error.errno in opening.NO_ROOM:
            raise StoreFullError(
                f"no room for a backup at {str(destination)!r} ({error.strerror}); free some", path=str(destination)
            ) from error
        raise StorePathError(
            f"{str(destination)!r} cannot be written: {error.strerror}; give a path in a folder that can be",
            path=str(destination),
        ) from error
