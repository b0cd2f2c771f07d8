"""The connections of a process to a server: made when they are needed, a bounded number, each lent to one thread.

A pool of psycopg_pool makes its connections in threads of its own, which do not survive a fork, and says of a refused
password no more than that the time was over.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

IDLE_S = 300.0  # what was not used for so long may have been forgotten by something on the way

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_inherited: list[Connection] = []  # of the parent, which is still using them


class NoneFreeError(Exception):
    """All connections of a pool are lent, for longer than somebody waits."""


class Pool:
    """Connections to one server.

    Parameters
    ----------
    connect : callable
        Gives a new one.
    size : int
        The most that are lent at once.
    """

    def __init__(self, connect: Callable[[], Connection], size: int) -> None:
        self._connect = connect
        self._size = size
        self._idle: list[tuple[Connection, float]] = []
        self._closed = False
        self._set_up()
        weakref.finalize(self, _close_all, self._idle, os.getpid())
        _pools.add(self)

    def _set_up(self) -> None:
        self._free = threading.Semaphore(self._size)
        self._lock = threading.Lock()

    def take(self, timeout_s: float) -> tuple[Connection, bool]:
        """Lend a connection, and tell whether it is new.

        Raises
        ------
        NoneFreeError
            All are lent for longer than that.
        StoreError
            A new one cannot be made.
        """
        if not self._free.acquire(timeout=timeout_s):
            raise NoneFreeError
        try:
            while True:
                with self._lock:
                    connection, since = self._idle.pop() if self._idle else (None, 0.0)
                if connection is None:
                    return self._connect(), True
                if not connection.closed and time.monotonic() - since < IDLE_S:
                    return connection, False
                connection.close()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """Take a connection back; one that is in a transaction, or whose pool is closed, is closed."""
        is_idle = connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            is_kept = is_idle and not self._closed
            if is_kept:
                self._idle.append((connection, time.monotonic()))
        if not is_kept:
            connection.close()
        self._free.release()

    def drop_idle(self) -> None:
        """Close what nobody uses: the server went away, and with it all."""
        with self._lock:
            dropped = [connection for connection, _ in self._idle]
            self._idle.clear()
        for connection in dropped:
            connection.close()

    def close(self) -> None:
        """Close what nobody uses now, and the others when they are given back."""
        with self._lock:
            self._closed = True
        self.drop_idle()

    def disown(self) -> None:
        """Leave all to the parent: this is a forked child."""
        _inherited.extend(connection for connection, _ in self._idle)
        self._idle.clear()
        self._set_up()


def _close_all(idle: list[tuple[Connection, float]], pid: int) -> None:
    if os.getpid() == pid:
        for connection, _ in idle:
            connection.close()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
