"""The table leases: who encodes which text at present."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from sqlite3 import Connection
from typing import Any

from embstore.stores.leases import MOST_LEASE_S
from embstore.stores.tables import chunks, places

FIND = """
SELECT content_hash, owner, since, until
FROM leases
WHERE identity_hash = ? AND content_hash IN ({places})
"""

UPSERT = """
INSERT INTO leases (identity_hash, content_hash, owner, since, until)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (identity_hash, content_hash) DO UPDATE
SET owner = excluded.owner, since = excluded.since, until = excluded.until
"""

RENEW = """
UPDATE leases
SET since = ?, until = ?
WHERE identity_hash = ? AND content_hash IN ({places}) AND owner = ?
"""

DELETE = """
DELETE FROM leases
WHERE identity_hash = ? AND content_hash IN ({places}) AND owner = ?
"""

DELETE_ENDED = """
DELETE FROM leases
WHERE until <= ?1 OR since > ?1
"""


def find(
    connection: Connection, identity_hash: bytes, content_hashes: Sequence[bytes]
) -> list[tuple[bytes, Any, Any, Any]]:
    """Read those on some contents: (content_hash, owner, since, until)."""
    return [
        row
        for some in chunks(content_hashes)
        for row in connection.execute(FIND.format(places=places(some)), (identity_hash, *some))
    ]


def lasts(since: Any, until: Any, now: float) -> bool:
    """Tell whether a lease means something now: by a clock that has begun anew, or in a damaged row, it does not."""
    return type(since) is type(until) is float and since <= now < until <= since + MOST_LEASE_S


def put(
    connection: Connection,
    identity_hash: bytes,
    content_hashes: Sequence[bytes],
    owner: str,
    since: float,
    until: float,
) -> None:
    """Write leases in the place of any there."""
    rows = zip(repeat(identity_hash), content_hashes, repeat(owner), repeat(since), repeat(until), strict=False)
    connection.executemany(UPSERT, rows)


def renew(
    connection: Connection,
    identity_hash: bytes,
    content_hashes: Sequence[bytes],
    owner: str,
    since: float,
    until: float,
) -> None:
    """Change how long the leases of an owner last."""
    for some in chunks(content_hashes):
        connection.execute(RENEW.format(places=places(some)), (since, until, identity_hash, *some, owner))


def delete(connection: Connection, identity_hash: bytes, content_hashes: Sequence[bytes], owner: str) -> None:
    """Remove the leases of an owner."""
    for some in chunks(content_hashes):
        connection.execute(DELETE.format(places=places(some)), (identity_hash, *some, owner))


def delete_ended(connection: Connection, now: float) -> None:
    """Remove what means nothing any more."""
    connection.execute(DELETE_ENDED, (now,))
