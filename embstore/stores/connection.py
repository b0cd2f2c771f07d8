"""A process's connections to a cache file: one a thread, transactions, and what a fork does to them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from embstore.errors import ReadOnlyError, StoreClosedError, StoreError
from embstore.stores import committing, forks, opening, schema
from embstore.stores.btrees import states
from embstore.stores.btrees.connection import FileConnection
from embstore.stores.btrees.states import State
from embstore.stores.sqlite_errors import sqlite3, translated
from embstore.stores.stopping import stop_nothing, stop_when_endless
from embstore.stores.turns import Turns

_preparing = threading.Lock()
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class _Handle:
    """A connection of one thread; closed when the thread ends."""

    def __init__(self, connection: FileConnection, timeout_s: float) -> None:
        self.connection = connection
        self.turns = Turns(timeout_s)
        self.pid = os.getpid()
        self.lock = threading.RLock()  # held while the connection is used, so that close() waits for it
        self.thread = threading.get_ident()
        self.transaction = forks.transaction()  # kept, as a thread that ends has no locals any more

    def is_in_use(self) -> bool:
        """Tell whether a block goes on with the connection; SQLite may have rolled its transaction back already."""
        return self.connection.is_writing or self.connection.in_transaction

    def __del__(
        self,
        getpid: Callable[[], int] = os.getpid,  # at the end of the interpreter the modules may be gone
        get_ident: Callable[[], int] = threading.get_ident,
        transaction: Callable[[], Any] = forks.transaction,
    ) -> None:
        if self.pid == getpid():
            # The garbage collector runs in any thread, and one that writes must not wait for one that waits for it.
            with self.transaction if get_ident() == self.thread else transaction():
                self.connection.close()  # a fork in the middle of it would leave a lock of SQLite's taken in the child


class Passenger(Protocol):
    """What has something to write with every transaction that writes anyway."""

    def going_along(self) -> contextlib.AbstractContextManager[Callable[[sqlite3.Connection], None]]:
        """Lend what is called at the end of a transaction, before it is committed; the block raises where it is not."""

    def forget_waiting(self) -> None:
        """Forget what waits to be written: this is a forked child, and its parent writes it."""


class Database:
    """A cache file and this process's connections to it.

    Parameters
    ----------
    path : str or Path
        Created where it does not exist, with mode 0600.
    timeout_s : float
        How long to wait for another process's lock.
    allow_network_filesystem : bool
        Use a file whose file system cannot be trusted with locks.

    Raises
    ------
    StorePathError, NotAStoreError, NewerStoreError, UnsafeStoreError, ReadOnlyError, StoreBusyError
        The file cannot be used; its bytes are as they were.
    """

    def __init__(self, path: str | Path, *, timeout_s: float = 30.0, allow_network_filesystem: bool = False) -> None:
        self.timeout_s = opening.checked_timeout(timeout_s)
        self._path = opening.checked_path(path, allow_network_filesystem=allow_network_filesystem)
        self._is_local = not allow_network_filesystem  # elsewhere what is read without a lock can be seconds old
        self.path = str(self._path)
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()
        self._registering = threading.Lock()
        self._closed = False
        self._passengers: list[Passenger] = []
        with _preparing, forks.transaction(), self.errors():
            self.read_only = opening.prepare(self._path, timeout_s)
        _databases.add(self)

    @contextlib.contextmanager
    def _using(self) -> Iterator[_Handle]:
        """Lend this thread's connection, opened on first use; neither a fork nor `close` comes in between."""
        with self.errors(), forks.transaction():  # opening takes a lock of SQLite's too
            handle = self._own_handle()
            with handle.lock:
                if self._closed:
                    raise self._closed_error()
                is_inner = handle.is_in_use()
                try:
                    yield handle
                except (sqlite3.Error, StoreError, committing.CommittedError):
                    if not is_inner:
                        self._let_go(handle)
                    raise

    def _let_go(self, handle: _Handle) -> None:
        """Open a new connection next time: one that met an error may keep a lock, or have been opened to read only.

        SQLite does both where a call of the operating system fails, also when it does so once
        (tests/faults/test_failing_calls.py).
        """
        if handle.pid == os.getpid():
            self._local.handle = None
            handle.connection.close()

    def _own_handle(self) -> _Handle:
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None or handle.pid != os.getpid():
            handle = self._local.handle = self._open()
        return handle

    def _open(self) -> _Handle:
        with self._registering:
            if self._closed:
                raise self._closed_error()
            connection = opening.connect(self._path, "ro" if self.read_only else "rw", self.timeout_s)
            handle = _Handle(connection, self.timeout_s)
            self._handles.add(handle)
            return handle

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the file, whatever others write meanwhile; inside `writing`, what was written there."""
        with self._using() as handle:
            connection = handle.connection
            if connection.in_transaction:
                yield connection
                return
            try:
                stop_when_endless(connection, self._path)
                connection.execute("BEGIN")  # inside: an interrupt comes when it has been done
                yield connection
            finally:
                if handle.pid == os.getpid():  # or it is the parent's, and a child came out of the block
                    stop_nothing(connection)
                    connection.rollback()

    def fetch(self, statement: str, values: Sequence[object]) -> tuple[list[Any], State | None]:
        """Give the rows of one statement, and the state of the file that they are of where it is known.

        It is what a `reading` of it gives, for a quarter of what that costs.
        """
        try:
            with forks.transaction():
                handle = self._own_handle()
                with handle.lock:
                    if self._closed:
                        raise self._closed_error()
                    try:
                        cursor = handle.connection.execute(statement, values)
                        try:
                            # As long as there may be more rows, SQLite keeps its lock.
                            state = states.state_of_fetch(handle.connection) if self._is_local else None
                            return cursor.fetchall(), state
                        finally:
                            cursor.close()
                    except sqlite3.Error:
                        if not handle.is_in_use():
                            self._let_go(handle)
                        raise
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._our_error(error) from error

    def state(self) -> State | None:
        """Tell the state of the file, see `states.state`; None where this thread has no connection that can be used."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None or handle.pid != os.getpid() or self._closed:
            return None
        return states.state(handle.connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write all of the block or, where it raises, nothing. A block inside another belongs to the outer one.

        Raises
        ------
        ReadOnlyError, StoreBusyError, StoreFullError, DamagedStoreError
            Nothing of the block was written.
        UnconfirmedWriteError
            The block was written, and a power cut could undo it.
        NewerStoreError
            A newer embstore has migrated the file since it was opened; likewise.
        """
        if self.read_only:
            raise ReadOnlyError(
                f"{self.path!r} can only be read; give this user write access to the file and its folder, or copy it",
                path=self.path,
            )
        with committing.confirmed(self._path), self._using() as handle:
            if handle.connection.is_writing:
                yield handle.connection
                return
            try:
                with contextlib.ExitStack() as along, committing.immediate(handle.connection, handle.turns):
                    write_along = [along.enter_context(passenger.going_along()) for passenger in self._passengers]
                    # Newer tables may depend on rows that this embstore would not know to write.
                    schema.check_known(schema.user_version(handle.connection), self.path)
                    handle.connection.is_writing = True
                    yield handle.connection
                    for write in write_along:
                        write(handle.connection)
            finally:
                handle.connection.is_writing = False  # once it is committed, or never will be

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the exceptions of sqlite3 into ours."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: SQLite's own message quotes damaged text
            raise self._our_error(error) from error

    def _our_error(self, error: Exception) -> StoreError:
        return self._closed_error() if self._closed else translated(error, self.path, self.timeout_s)

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError(f"the cache on {self.path!r} is closed; open a new one", path=self.path)

    def go_along(self, passenger: Passenger) -> None:
        """Let something be written with every transaction."""
        self._passengers.append(passenger)

    def vacuum(self, page_size: int) -> None:
        """Write the file anew without unused space, which no transaction can hold."""
        with self.writing():
            pass  # a file that can only be read, or is locked, says so
        with self._using() as handle:
            handle.connection.execute(f"PRAGMA page_size = {int(page_size)}")
            handle.connection.execute("VACUUM")

    def close(self) -> None:
        """Close the connections of all threads of this process, each when its transaction has ended."""
        with self._registering:
            self._closed = True
            handles = [handle for handle in self._handles if handle.pid == os.getpid()]
        for handle in handles:
            with forks.transaction(), handle.lock:
                handle.connection.close()

    def disown(self) -> None:
        """Keep the connections open for good: a forked child may neither use nor close its parent's."""
        self._registering = threading.Lock()
        for passenger in self._passengers:
            passenger.forget_waiting()
        for handle in self._handles:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def _after_fork_in_child() -> None:
    global _preparing
    _preparing = threading.Lock()
    for database in list(_databases):
        database.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
