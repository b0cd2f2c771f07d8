"""A process's transactions on a server: one a thread at a time, and what is run again."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import psycopg

from embstore.errors import (
    ReadOnlyError,
    ServerUnreachableError,
    StoreClosedError,
    StoreError,
    TooManyConnectionsError,
    UnconfirmedWriteError,
)
from embstore.stores.postgres.connecting import Connector
from embstore.stores.postgres.pool import Connection, Pool
from embstore.stores.postgres.schema import check_known
from embstore.stores.postgres.server_errors import AGAIN, is_lost, translated
from embstore.stores.postgres.url import ServerUrl

T = TypeVar("T")

# Together with what follows, one message to the server; a setting lasts as long as the transaction, as a pooler may
# lend the next one another connection.
BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_MIGRATING = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {lock_ms}"
BEGIN_WRITING = f"{BEGIN_MIGRATING}; SELECT max(version) FROM embstore_migrations"

MOST_ATTEMPTS = 12
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 1.0


class LostError(Exception):
    """The connection came to its end before the COMMIT was sent, and nothing was written; `__cause__` says how."""


class Passenger(Protocol):
    """What has something to write with every transaction that writes anyway."""

    def going_along(self) -> contextlib.AbstractContextManager[Callable[[Connection], None]]:
        """Lend what is called at the end of a transaction, before it is committed; the block raises where it is not."""


@dataclass
class _Block:
    """A transaction that a thread is in."""

    connection: Connection
    is_writing: bool
    pid: int


class Server:
    """A server, and this process's connections to it.

    Parameters
    ----------
    url : ServerUrl
    timeout_s : float
        How long to wait for a connection, and for what others have locked.
    """

    def __init__(self, url: ServerUrl, timeout_s: float) -> None:
        self.location = url.location
        self.timeout_s = timeout_s
        self.read_only = False
        self._url = url
        self._local = threading.local()
        self._pool = Pool(Connector(url, timeout_s), url.pool_size)
        self._closed = False
        self._passengers: list[Passenger] = []

    # --- transactions -----------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one state of the store, whatever others write meanwhile; inside `write`, what was written there."""
        block = self._block()
        if block is not None:
            yield block.connection
            return
        with self._errors(), self._transaction(BEGIN_READING, is_writing=False) as connection:
            yield connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """Give what some work reads in one state of the store; where the connection is lost, it is run once more."""
        for is_last in (False, True):
            try:
                with self.reading() as connection:
                    return work(connection)
            except ServerUnreachableError:
                if is_last or self._block() is not None:
                    raise
        raise AssertionError

    def write(self, work: Callable[[Connection], T], begin: str | None = None) -> T:
        """Run some work as one transaction; inside other work it belongs to that one's.

        It is run again, up to `MOST_ATTEMPTS` times, where the server could not put it in order with what others wrote,
        and once where the connection was lost before the transaction was to be committed.

        Raises
        ------
        ReadOnlyError, StoreBusyError, StoreFullError, ServerUnreachableError, NewerStoreError
            Nothing was written.
        UnconfirmedWriteError
            The connection was lost while the transaction was being committed: it was, or it was not.
        """
        block = self._block()
        if block is not None and block.is_writing:
            return work(block.connection)
        self._check_writable()
        n_lost = 0
        for attempt in range(MOST_ATTEMPTS):
            try:
                return self._run(work, begin or BEGIN_WRITING)
            except LostError as error:
                failed: LostError | psycopg.Error = error
                n_lost += 1
                if n_lost > 1:
                    break
            except psycopg.Error as error:
                failed = error
                if error.sqlstate not in AGAIN:
                    break
            time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, SHORTEST_PAUSE_S * 2**attempt)))
        raise self._our_error(failed) from failed

    def fetch(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Give the rows of one statement, which is its own transaction where the thread is in none."""
        block = self._block()
        if block is not None:
            return block.connection.execute(statement, values, binary=True).fetchall()
        with self._errors():
            while True:
                connection, is_new = self._take()
                try:
                    return connection.execute(statement, values, binary=True).fetchall()
                except psycopg.Error as error:
                    if is_new or not is_lost(error, connection):
                        raise
                    self._pool.drop_idle()
                finally:
                    self._give_back(connection, os.getpid())

    def go_along(self, passenger: Passenger) -> None:
        """Let something be written with every transaction."""
        self._passengers.append(passenger)

    def close(self) -> None:
        """Close the connections of this process, each when its transaction has ended."""
        self._closed = True
        self._pool.close()

    # --- inside -----------------------------------------------------------------------------

    def _run(self, work: Callable[[Connection], T], begin: str) -> T:
        begin = begin.format(lock_ms=max(1, int(self.timeout_s * 1000)))
        with contextlib.ExitStack() as along, self._transaction(begin, is_writing=True) as connection:
            write_along = [along.enter_context(passenger.going_along()) for passenger in self._passengers]
            given = work(connection)
            for write in write_along:
                write(connection)
            return given

    @contextlib.contextmanager
    def _transaction(self, begin: str, *, is_writing: bool) -> Iterator[Connection]:
        connection = self._begin(begin)
        outer, pid = self._block(), os.getpid()
        self._local.block = _Block(connection, is_writing, pid)
        try:
            yield connection
            if os.getpid() == pid:
                self._end(connection, is_writing=is_writing)
        except psycopg.Error as error:
            if is_lost(error, connection):
                connection.close()
                self._pool.drop_idle()
                raise LostError from error
            raise
        except Exception:
            raise
        except BaseException:  # an interrupt can leave a connection in the middle of an answer
            if os.getpid() == pid:
                connection.close()
            raise
        finally:
            self._local.block = outer
            self._give_back(connection, pid)

    def _end(self, connection: Connection, *, is_writing: bool) -> None:
        if not is_writing:
            connection.execute("ROLLBACK")
            return
        try:
            cursor = connection.execute("COMMIT")
        except psycopg.Error as error:
            if not is_lost(error, connection):
                raise
            connection.close()
            raise UnconfirmedWriteError(
                f"{self.location!r}: the connection was lost while a transaction was being committed, so that it may "
                f"be written or not; write it again, which changes nothing where it is",
                path=self.location,
            ) from error
        if cursor.statusmessage != "COMMIT":
            raise StoreError(f"{self.location!r}: the server rolled a transaction back", path=self.location)

    def _begin(self, begin: str) -> Connection:
        while True:
            connection, is_new = self._take()
            try:
                cursor = connection.execute(begin)
                self._check_version(cursor)
                return connection
            except psycopg.Error as error:
                lost = is_lost(error, connection)
                self._give_back(connection, os.getpid())
                if not lost:
                    raise
                if is_new:
                    raise LostError from error
                self._pool.drop_idle()  # the server was restarted, and knows none of them
            except BaseException:
                connection.close()
                self._give_back(connection, os.getpid())
                raise

    def _check_version(self, cursor: psycopg.Cursor[Any]) -> None:
        while cursor.nextset():
            if cursor.description is not None:
                check_known(cursor.fetchall()[0][0] or 0, self.location)

    def _take(self) -> tuple[Connection, bool]:
        if self._closed:
            raise self._closed_error()
        try:
            return self._pool.take(self.timeout_s)
        except TimeoutError:
            raise TooManyConnectionsError(
                f"all {self._url.pool_size} connections of this cache to {self.location!r} were in use for longer than "
                f"{self.timeout_s:g} s; give a larger pool_size= in its URL, or use fewer threads",
                path=self.location,
            ) from None

    def _give_back(self, connection: Connection, pid: int) -> None:
        if os.getpid() != pid:  # it is the parent's, and a forked child came out of the block
            return
        if not connection.closed and connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        self._pool.give_back(connection)

    def _block(self) -> _Block | None:
        block: _Block | None = getattr(self._local, "block", None)
        return block if block is not None and block.pid == os.getpid() else None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what comes out of a whole transaction into our errors; inside of one, the server's own go through."""
        try:
            yield
        except (LostError, psycopg.Error) as error:
            raise self._our_error(error) from error

    def _our_error(self, error: LostError | psycopg.Error) -> StoreError:
        cause = error.__cause__ if isinstance(error, LostError) else error
        assert isinstance(cause, psycopg.Error)
        if self._closed and isinstance(error, LostError):
            return self._closed_error()
        return translated(cause, self.location, self.timeout_s)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"{self.location!r} can only be read by this role, or is a standby; grant the role what "
                f"docs/postgres.md lists, or use another",
                path=self.location,
            )

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError(f"the cache on {self.location!r} is closed; open a new one", path=self.location)
