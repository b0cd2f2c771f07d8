"""Forks wait until no other thread is in a transaction.

A forked child inherits SQLite's table of the locks that its parent held at that moment, and never hears of their
release: every write of the child would fail
(tests/test_processes.py::test_a_child_forked_while_another_thread_reads_can_write).
"""

from __future__ import annotations

import os
import threading

# A transaction waits for another process's lock this long by default; a fork does not wait longer than that.
PATIENCE_S = 30.0

_idle = threading.Condition()
_n_active = 0
_n_forking = 0
_mine = threading.local()


class Transaction:
    """Counts the transaction of a block, and lets none begin while a fork is under way."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _n_active
        depth = getattr(_mine, "n", 0)
        with _idle:
            if _n_forking and not depth:  # one inside another must go on, or the fork would wait for it
                _idle.wait_for(lambda: not _n_forking)
            _n_active += 1
        _mine.n = depth + 1

    def __exit__(self, *_: object) -> None:
        global _n_active
        _mine.n -= 1
        with _idle:
            _n_active -= 1
            if _n_forking:
                _idle.notify_all()


def _before() -> None:
    global _n_forking
    _idle.acquire()
    _n_forking += 1
    _idle.wait_for(lambda: _n_active <= getattr(_mine, "n", 0), timeout=PATIENCE_S)


def _after_in_parent() -> None:
    global _n_forking
    _n_forking -= 1
    _idle.notify_all()
    _idle.release()


def _after_in_child() -> None:
    global _idle, _n_active, _n_forking
    _idle = threading.Condition()
    _n_active, _n_forking = getattr(_mine, "n", 0), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
