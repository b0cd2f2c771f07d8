"""Taking turns with others who write to the same file.

SQLite keeps no queue. Whoever waits looks ever more seldom whether the lock is free, and whoever writes without a pause
has it again before somebody looks: of eight such writers three had one turn in 25 s, and at the end of `timeout_s`
there is an error. So who waits begins to look often again and again, and who writes without a pause makes one now and
then that is longer than the time between two looks: the longest wait became 5 s.
"""

from __future__ import annotations

import time
from sqlite3 import Connection, OperationalError

from embstore.stores.sqlite_errors import BUSY, result_code

# SQLite looks after 1, 2, 5, 10, 15, 20, 25, 25 and 25 ms, and then after 50 and 100 (sqliteDefaultBusyCallback).
LOOKING_S = 0.128
LONGEST_S = 1e6  # the milliseconds are a C int
PAUSE_S = 0.03

ALONE_S = 2.0  # between pauses: 1.5 % of the time
AMONG_OTHERS_S = 0.1
REMEMBERED_S = 5.0  # that somebody else wrote


class Turns:
    """The turns of one connection.

    Parameters
    ----------
    timeout_s : float
        How long to wait for a turn.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._paused_at = self._ended_at = time.monotonic()
        self._waited_at = -REMEMBERED_S

    def begin(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE; an OperationalError where no turn came in time."""
        self._pause()
        began_at = time.monotonic()
        try:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * min(self._timeout_s, LOOKING_S))}")
            while not self._has_begun(connection, began_at + self._timeout_s):
                pass
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * min(self._timeout_s, LONGEST_S))}")
        now = time.monotonic()
        if now - began_at > PAUSE_S / 10:
            self._waited_at = self._paused_at = now

    def end(self) -> None:
        """Note when the turn ended."""
        self._ended_at = time.monotonic()

    def _pause(self) -> None:
        now = time.monotonic()
        if now - self._ended_at > PAUSE_S:
            self._paused_at = now
        elif now - self._paused_at > (AMONG_OTHERS_S if now - self._waited_at < REMEMBERED_S else ALONE_S):
            time.sleep(PAUSE_S)
            self._paused_at = time.monotonic()

    def _has_begun(self, connection: Connection, until: float) -> bool:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except OperationalError as error:
            if (result_code(error) or 0) & 0xFF != BUSY or time.monotonic() >= until:
                raise
            return False
        return True
