"""Leases on a server, by its clock, which all who use it share.

The moment is that of each look at a row, `clock_timestamp()`: that of a transaction's beginning, `now()`, can be before
a lease that somebody else was given in the meantime, which would look like one of a clock that was set back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from embstore.stores.leases import MOST_LEASE_S
from embstore.stores.postgres.arrays import ByteaArray
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection

# By so much may the clocks of the machines differ that are one server together.
CLOCKS_DIFFER_S = 1.0

LASTS = f"""
    leases.since <= clock_timestamp() + make_interval(secs => {CLOCKS_DIFFER_S})
    AND clock_timestamp() < leases.until
    AND leases.until <= leases.since + make_interval(secs => {MOST_LEASE_S + CLOCKS_DIFFER_S})
"""

FIND_OTHERS = f"""
SELECT content_hash
FROM leases
WHERE identity_hash = %b AND content_hash = ANY(%b) AND owner <> %s AND {LASTS}
"""

CLAIM = f"""
INSERT INTO leases (identity_hash, content_hash, owner, since, until)
SELECT %b, content_hash, %s, clock.since, clock.since + make_interval(secs => %s)
FROM unnest(%b) AS given (content_hash), (SELECT clock_timestamp() AS since) AS clock
ORDER BY content_hash
ON CONFLICT (identity_hash, content_hash) DO UPDATE
SET owner = excluded.owner, since = excluded.since, until = excluded.until
WHERE leases.owner = excluded.owner OR NOT ({LASTS})
RETURNING content_hash
"""

RENEW = """
UPDATE leases
SET since = clock.since, until = clock.since + make_interval(secs => %s)
FROM (SELECT clock_timestamp() AS since) AS clock
WHERE identity_hash = %b AND content_hash = ANY(%b) AND owner = %s
"""

RELEASE = """
DELETE FROM leases
WHERE identity_hash = %b AND content_hash = ANY(%b) AND owner = %s
"""

# What others are about to change is left to them.
REMOVE_ENDED = f"""
DELETE FROM leases
WHERE (identity_hash, content_hash) IN (
    SELECT identity_hash, content_hash
    FROM leases
    WHERE NOT ({LASTS})
    FOR UPDATE SKIP LOCKED
)
"""


class PostgresLeases:
    """A `LeaseStore` on a server; see `embstore.stores.leases.LeaseStore` for what each method does.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._has_removed_ended = False

    def claim(
        self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str, lease_s: float, most: int
    ) -> list[int]:
        """See `LeaseStore.claim`; where others have some, in several transactions."""
        left, mine = content_hashes, set[bytes]()
        while left and len(mine) < most:
            some, left = left[: most - len(mine)], left[most - len(mine) :]
            values = (identity_hash, owner, lease_s, ByteaArray(some))
            mine.update(self._server.write(partial(_claim, values=values)))
        if not self._has_removed_ended:  # once is enough: what has ended holds nobody up
            self._has_removed_ended = True
            self._server.write(lambda connection: connection.execute(REMOVE_ENDED))
        return [i for i, key in enumerate(content_hashes) if key in mine]

    def held(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str) -> list[int]:
        """See `LeaseStore.held`."""
        if not content_hashes:
            return []
        values = (identity_hash, ByteaArray(content_hashes), owner)
        others = {key for (key,) in self._server.fetch(FIND_OTHERS, values)}
        return [i for i, key in enumerate(content_hashes) if key in others]

    def renew(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str, lease_s: float) -> None:
        """See `LeaseStore.renew`."""
        values = (lease_s, identity_hash, ByteaArray(content_hashes), owner)
        self._server.write(lambda connection: connection.execute(RENEW, values))

    def release(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str) -> None:
        """See `LeaseStore.release`."""
        values = (identity_hash, ByteaArray(content_hashes), owner)
        self._server.write(lambda connection: connection.execute(RELEASE, values))


def _claim(connection: Connection, *, values: tuple[object, ...]) -> list[bytes]:
    return [key for (key,) in connection.execute(CLAIM, values, binary=True).fetchall()]
