"""A server: reading one state of it, writing all or nothing, and what is run again."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import psycopg

from embstore.errors import ReadOnlyError, ServerUnreachableError
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.server_errors import AGAIN, is_lost
from embstore.stores.postgres.transactions import LostError, Transactions
from embstore.stores.postgres.url import ServerUrl

T = TypeVar("T")

# Together with what follows, one message to the server; a setting lasts as long as the transaction, as a pooler may
# lend the next one another connection.
BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {lock_ms}"
BEGIN_MIGRATING = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {lock_ms}"
BEGIN_WRITING = f"{BEGIN_MIGRATING}; SELECT max(version) FROM embstore_migrations"

MOST_ATTEMPTS = 12
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 1.0


class Passenger(Protocol):
    """What has something to write with every transaction that writes anyway."""

    def going_along(self) -> contextlib.AbstractContextManager[Callable[[Connection], None]]:
        """Lend what is called at the end of a transaction, before it is committed; the block raises where it is not."""


class Server(Transactions):
    """A server, and this process's connections to it.

    Parameters
    ----------
    url : ServerUrl
    timeout_s : float
        How long to wait for a connection, and for what others have locked.
    """

    def __init__(self, url: ServerUrl, timeout_s: float) -> None:
        super().__init__(url, timeout_s)
        self.read_only = False
        self._passengers: list[Passenger] = []

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

    def write(self, work: Callable[[Connection], T], *, begin: str = BEGIN_WRITING) -> T:
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
                return self._run(work, begin)
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
        """Give the rows of one statement."""
        return self.read(lambda connection: connection.execute(statement, values, binary=True).fetchall())

    def fetch_at_once(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Give the rows of one statement, in one message instead of three.

        It waits as long as it takes for somebody who has locked a whole table, as few do who administer the server.
        """
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

    def run_alone(self, statement: str) -> list[str]:
        """Run what no transaction can hold, and give the warnings that came of it."""
        warnings: list[str] = []

        def note(diagnostic: psycopg.errors.Diagnostic) -> None:
            if diagnostic.severity_nonlocalized == "WARNING":
                warnings.append(diagnostic.message_primary or "")

        self._check_writable()
        with self._errors():
            connection, _ = self._take()
            connection.add_notice_handler(note)
            try:
                connection.execute(statement, prepare=False)
            finally:
                connection.remove_notice_handler(note)
                self._give_back(connection, os.getpid())
        return warnings

    def go_along(self, passenger: Passenger) -> None:
        """Let something be written with every transaction."""
        self._passengers.append(passenger)

    def _run(self, work: Callable[[Connection], T], begin: str) -> T:
        with contextlib.ExitStack() as along, self._transaction(begin, is_writing=True) as connection:
            write_along = [along.enter_context(passenger.going_along()) for passenger in self._passengers]
            given = work(connection)
            for write in write_along:
                write(connection)
            return given

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"{self.location!r} can only be read by this role, or is a standby; grant the role what "
                f"docs/postgres.md lists, or use another",
                path=self.location,
            )
