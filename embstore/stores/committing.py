"""Transactions that write: begun with a lock, and what a failed COMMIT has done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from embstore.errors import UnconfirmedWriteError
from embstore.stores.sqlite_errors import AFTER_THE_COMMIT, IOERR_DIR_FSYNC, result_code, sqlite3
from embstore.stores.turns import Turns


class CommittedError(Exception):
    """SQLite calls a commit failed where only what comes after it did; its error is the `__cause__`.

    With the journal's name gone from the folder every reader sees what was written. What can still fail is to make
    that last through a power cut, by a sync of the folder, and to let go of the lock, which closing a connection does
    too. An error would say that nothing was changed.
    """


@contextlib.contextmanager
def immediate(connection: sqlite3.Connection, turns: Turns | None = None) -> Iterator[None]:
    """BEGIN IMMEDIATE: a deferred transaction that turns to writing fails at once where another writes.

    A child that was forked inside of the block leaves the transaction to its parent.

    Raises
    ------
    CommittedError
        All was written, and then something failed; for `confirmed`.
    """
    pid = os.getpid()
    try:
        # Inside: whoever interrupts the wait for another process's lock is heard when the lock is there
        # (tests/test_connection.py::test_an_interrupt_while_waiting_for_a_lock_leaves_no_transaction).
        if turns is None:
            connection.execute("BEGIN IMMEDIATE")
        else:
            turns.begin(connection)
        yield
        if os.getpid() != pid:
            return
        try:
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if result_code(error) in AFTER_THE_COMMIT:
                raise CommittedError from error
            raise
    except BaseException:
        # Some errors (full disk) have rolled back already. A child that did so would take its parent's journal away.
        if os.getpid() == pid and connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        if turns is not None:
            turns.end()


@contextlib.contextmanager
def confirmed(path: Path) -> Iterator[None]:
    """Sync the folder where SQLite could not after a commit, and so make of it what it was.

    Raises
    ------
    UnconfirmedWriteError
        It cannot be synced.
    """
    try:
        yield
    except CommittedError as committed:
        error = committed.__cause__
        if error is None or result_code(error) != IOERR_DIR_FSYNC:
            return
        try:
            sync_folder(path.parent)  # not the file itself, whose locks would be dropped
        except OSError as failed:
            raise UnconfirmedWriteError(
                f"{str(path)!r} was written, but its folder cannot be synced ({failed.strerror}): a power cut could "
                f"undo the change. Check the disk, and write it again",
                path=str(path),
            ) from failed


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlast a power cut; only where the system can open folders.

    Raises
    ------
    OSError
        They may not.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
