"""Leases in an SQLite file, by the clock of the machine that all its processes share.

`time.monotonic` counts from the start of the machine and is the same for all its processes
(https://docs.python.org/3/library/time.html#time.monotonic). Nobody can set it, and after a start of the machine it
begins anew: what was left by a process of before then lies in the future, where it means nothing, and, once the clock
comes by there, lasts no longer than it would have. The same goes for a file that comes from another machine, and for
containers to which Linux gives clocks of their own (time_namespaces(7)): these do not see each other's leases.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from sqlite3 import Connection

from embstore.stores.connection import Database
from embstore.stores.tables import leases


class SQLiteLeases:
    """A `LeaseStore` in an SQLite file; see `embstore.stores.leases.LeaseStore` for what each method does.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str, lease_s: float, most: int
    ) -> list[int]:
        """See `LeaseStore.claim`."""
        with self._database.writing() as connection:
            others = _others(connection, identity_hash, content_hashes, owner)
            now = time.monotonic()
            free = [i for i, content_hash in enumerate(content_hashes) if content_hash not in others][:most]
            leases.delete_ended(connection, now)
            leases.put(connection, identity_hash, [content_hashes[i] for i in free], owner, now, now + lease_s)
        return free

    def held(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str) -> list[int]:
        """See `LeaseStore.held`."""
        with self._database.reading() as connection:
            others = _others(connection, identity_hash, content_hashes, owner)
        return [i for i, content_hash in enumerate(content_hashes) if content_hash in others]

    def renew(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str, lease_s: float) -> None:
        """See `LeaseStore.renew`."""
        with self._database.writing() as connection:
            now = time.monotonic()
            leases.renew(connection, identity_hash, content_hashes, owner, now, now + lease_s)

    def release(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str) -> None:
        """See `LeaseStore.release`."""
        with self._database.writing() as connection:
            leases.delete(connection, identity_hash, content_hashes, owner)


def _others(connection: Connection, identity_hash: bytes, content_hashes: Sequence[bytes], owner: str) -> set[bytes]:
    rows = leases.find(connection, identity_hash, content_hashes)
    now = time.monotonic()  # after the look: a lease of between the two would begin in the future
    return {key for key, of, since, until in rows if of != owner and leases.lasts(since, until, now)}
