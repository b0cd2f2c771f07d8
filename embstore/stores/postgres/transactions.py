"""A process's transactions on a server: one a thread at a time, on connections that a pool lends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from embstore.errors import StoreClosedError, StoreError, TooManyConnectionsError, UnconfirmedWriteError
from embstore.stores.postgres.connecting import Connector
from embstore.stores.postgres.pool import Connection, NoneFreeError, Pool
from embstore.stores.postgres.schema import check_known
from embstore.stores.postgres.server_errors import is_lost, translated
from embstore.stores.postgres.url import ServerUrl


class LostError(Exception):
    """The connection came to its end before the COMMIT was sent, and nothing was written; `__cause__` says how."""


@dataclass
class _Block:
    """A transaction that a thread is in."""

    connection: Connection
    is_writing: bool
    pid: int


class Transactions:
    """The transactions of a process on one server.

    Parameters
    ----------
    url : ServerUrl
    timeout_s : float
        How long to wait for a connection.
    """

    def __init__(self, url: ServerUrl, timeout_s: float) -> None:
        self.location = url.location
        self.timeout_s = timeout_s
        self._url = url
        self._local = threading.local()
        self._pool = Pool(Connector(url, timeout_s), url.pool_size)
        self._closed = False

    def close(self) -> None:
        """Close the connections of this process, each when its transaction has ended."""
        self._closed = True
        self._pool.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str, *, is_writing: bool) -> Iterator[Connection]:
        connection = self._begin(begin.format(lock_ms=max(1, int(self.timeout_s * 1000))))
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
        except NoneFreeError:
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

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError(f"the cache on {self.location!r} is closed; open a new one", path=self.location)
