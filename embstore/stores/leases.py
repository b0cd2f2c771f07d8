"""Leases on texts: which process encodes which at present, so that no other one does. The protocol.

A lease is a row that means something from its beginning to its end, by a clock that all who use the store share, and
then nothing: whoever is killed, cut off or asleep holds nobody up for longer than that. An end that comes too early
costs a text that is encoded twice, and never a wrong vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Whoever needs more time renews its leases, and a row that damage or a clock has made last longer means nothing.
LEAST_LEASE_S = 1.0
MOST_LEASE_S = 3600.0


class LeaseStore(Protocol):
    """Who encodes what. Every method is atomic, and part of the work of a `Store.write` around it.

    A model is named by 32 bytes that its identity decides, a text by its content hash, an owner by any string that no
    other one has.
    """

    def claim(
        self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str, lease_s: float, most: int
    ) -> list[int]:
        """Lease the first of n distinct contents that nobody else has: `most` at most, for some seconds from now.

        Returns
        -------
        list of int
            Which of the contents, ascending, the owner has a lease on now. Those before the last of them that are not
            there are others'; where there are fewer than `most`, all that are not there are.
        """

    def held(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str) -> list[int]:
        """Tell which of n distinct contents others have a lease on, ascending."""

    def renew(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str, lease_s: float) -> None:
        """Let the leases that an owner has on some contents last for some seconds from now."""

    def release(self, identity_hash: bytes, content_hashes: Sequence[bytes], *, owner: str) -> None:
        """End the leases that an owner has on some contents."""
