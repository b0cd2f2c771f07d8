"""Bytes by key beside the vectors, for whoever keeps something of its own there: the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol


class ByteStore(Protocol):
    """Where bytes live by key. Every method is atomic, and part of a block of the `Store` around it.

    A key is any string that has UTF-8 bytes. A value that is damaged is as if it were not there, until it is set again
    or deleted; `verify` names it.
    """

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read the values of n keys, in their order; None for those that have none."""

    def mset(self, values: Mapping[str, bytes]) -> None:
        """Write values in the place of any there."""

    def mdelete(self, keys: Sequence[str]) -> int:
        """Remove keys, and tell how many were there."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys that begin with a prefix, in the order of their UTF-8 bytes; no value is read.

        In pages, each one state of the store, and none is held up while the caller works.
        """
