"""Making a connection, and how long one is waited for."""

from __future__ import annotations

import random
import time
from typing import Any

import psycopg

from embstore.stores.postgres.arrays import ADAPTERS
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.server_errors import is_for_a_moment, is_refused, unreachable
from embstore.stores.postgres.url import ServerUrl

LEAST_CONNECT_S = 2  # libpq waits no shorter
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0


class Connector:
    """Makes connections by a URL.

    Parameters
    ----------
    url : ServerUrl
    timeout_s : float
        How long to wait for a server that says it can be had in a moment and, once there was a connection, for one that
        does not answer: it may be restarted.
    """

    def __init__(self, url: ServerUrl, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._has_connected = False

    def __call__(self) -> Connection:
        """Make a connection, whose every statement is a transaction of its own unless one is begun.

        Raises
        ------
        ServerUnreachableError, TooManyConnectionsError, StorePathError
        """
        until = time.monotonic() + self._timeout_s
        pause_s = SHORTEST_PAUSE_S
        while True:
            try:
                connection = self._connect()
            except psycopg.Error as error:
                is_to_come = is_for_a_moment(error) or (self._has_connected and not is_refused(error))
                if not is_to_come or time.monotonic() + pause_s > until:
                    # Without the frames of psycopg, which hold the password.
                    raise unreachable(error, self._url.location, self._timeout_s) from error.with_traceback(None)
                time.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._has_connected = True
                return connection

    def _connect(self) -> Connection:
        options: dict[str, Any] = {"connect_timeout": max(LEAST_CONNECT_S, int(self._timeout_s)), **self._url.options}
        return psycopg.connect(
            autocommit=True, context=ADAPTERS, prepare_threshold=self._url.prepare_threshold, **options
        )
