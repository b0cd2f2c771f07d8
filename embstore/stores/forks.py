"""Forks wait until no other thread is in a transaction.

A forked child inherits SQLite's table of the locks that its parent held at that moment, and never hears of their
release: every write of the child would fail
(tests/test_processes.py::test_a_child_forked_while_another_thread_reads_can_write).

Each thread holds a lock of its own while it is in a transaction, and a fork takes the locks of all others. These are
locks of C: an interrupt comes before or after their `with` takes or releases them, and so leaves none behind, which
the `__exit__` of a class, a Condition's too, cannot promise (tests/faults/test_interrupts.py).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

# A transaction waits for another process's lock this long by default; a fork does not wait longer than that.
PATIENCE_S = 30.0

# Held while a fork is under way. The garbage collector can close a connection, which needs it, in whoever holds it.
_registering = threading.RLock()
_locks: weakref.WeakSet[Any] = weakref.WeakSet()  # of all threads
_mine = threading.local()
_is_forking = False


def transaction() -> Any:
    """Give the lock that this thread holds, by `with`, for as long as a transaction lasts; none begins in a fork."""
    lock = getattr(_mine, "lock", None)
    if lock is None:
        lock = threading.RLock()
        with _registering:
            _locks.add(lock)
        _mine.lock = lock
    elif _is_forking and not lock._is_owned():
        with _registering:  # a thread that took its lock again at once could keep a fork waiting for ever
            pass
    return lock


def _others() -> list[Any]:
    mine = getattr(_mine, "lock", None)
    return [lock for lock in _locks if lock is not mine]


def _before() -> None:
    global _is_forking
    _registering.acquire()
    _is_forking = True
    deadline = time.monotonic() + PATIENCE_S
    for lock in _others():
        lock.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _after_in_parent() -> None:
    global _is_forking
    for lock in _others():
        if lock._is_owned():
            lock.release()
    _is_forking = False
    _registering.release()


def _after_in_child() -> None:
    global _is_forking, _registering, _locks
    _registering, _is_forking = threading.RLock(), False
    _locks = weakref.WeakSet([_mine.lock] if hasattr(_mine, "lock") else [])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
