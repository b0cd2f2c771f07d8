"""Stopping a statement that takes longer than any can in a file of its size.

Pages of a few kilobytes that lead to each other make a table of more rows than can ever be read.
"""

from __future__ import annotations

from functools import partial
from itertools import repeat
from pathlib import Path
from sqlite3 import Connection

STEPS_AT_ONCE = 10_000_000  # of SQLite's virtual machine: a quarter of a second
STEPS_A_BYTE = 10  # what checks the smallest rows takes 0.6 of a byte (of `verify`)
ALLOWANCE = 20  # of steps at once: what is asked for can be more than what the file has


def stop_when_endless(connection: Connection, path: Path) -> None:
    """Have SQLite stop statements, with SQLITE_INTERRUPT, until `stop_nothing`."""
    try:
        n_bytes = path.stat().st_size
    except OSError:  # somebody removed it while it is open, and it can still be read
        return
    n_times = ALLOWANCE + n_bytes * STEPS_A_BYTE // STEPS_AT_ONCE
    # No bytecode: where Python runs some, it first handles a signal, and SQLite would swallow what that raises.
    connection.set_progress_handler(partial(next, repeat(0, n_times), 1), STEPS_AT_ONCE)


def stop_nothing(connection: Connection) -> None:
    """Let statements take as long as they take."""
    connection.set_progress_handler(None, 0)
