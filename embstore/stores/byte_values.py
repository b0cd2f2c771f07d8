"""Bytes by key beside the vectors, for whoever keeps something of its own there: the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.identity import is_storable

LONGEST_BYTES = 2**25 - 2**10  # of a value with its key: what SQLite is let read, without all else in the row


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


def checked_key(key: object) -> str:
    """Give a key that can be stored.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        It is no string, or has no UTF-8 bytes.
    """
    if not isinstance(key, str):
        raise InvalidTypeError(f"a key is {type(key).__name__}, not str: {key!r:.80}")
    if key and not is_storable(key):
        raise InvalidInputError(f"key {key!r:.80} has a lone surrogate, which has no UTF-8 bytes; give another")
    return key


def checked_value(key: str, value: object) -> bytes:
    """Give a value that can be stored.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        It is not bytes, or longer than what can be read back.
    """
    if not isinstance(value, bytes):
        raise InvalidTypeError(f"key {key!r:.80}: its value is {type(value).__name__}, not bytes")
    if len(value) + 4 * len(key) > LONGEST_BYTES:
        raise InvalidInputError(
            f"key {key!r:.80}: its value has {len(value)} bytes, and no more than "
            f"{LONGEST_BYTES} are stored; keep it elsewhere"
        )
    return value
