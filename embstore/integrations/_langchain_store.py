"""LangChain's ByteStore in the file of a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from langchain_core.stores import BaseStore

from embstore.cache import EmbeddingCache
from embstore.integrations._owning import OwnsCache, opened


class EmbstoreByteStore(OwnsCache, BaseStore[str, bytes]):
    """Bytes by key in the file of a cache, beside its vectors: what a CacheBackedEmbeddings keeps its own in.

    Each call is one transaction, and every value is checked with a 64-bit checksum when it is read: one that is damaged
    is as if it were not there, until it is set again. Stores on one file share their keys.

    Parameters
    ----------
    cache : EmbeddingCache, str or Path
        A path is opened, and closed by `close`.

    Raises
    ------
    StoreError
        The file cannot be used.
    """

    def __init__(self, cache: EmbeddingCache | str | Path) -> None:
        self.cache, self._opened = opened(cache)
        self._values = self.cache.store.byte_values

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Give the values of n keys, in their order; None for those that have none.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            A key is no string, or has no UTF-8 bytes.
        StoreError
            Of the file.
        """
        return self._values.mget(keys)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Store values in the place of any there, all of them or none.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            A key as of `mget`, or a value that is not bytes or longer than what is stored; nothing was written.
        StoreError
            Of the file.
        """
        self._values.mset(dict(key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove keys, all of them at once; one that is not there is no error.

        Raises
        ------
        InvalidInputError, InvalidTypeError, StoreError
            As `mget`; nothing was removed.
        """
        self._values.mdelete(keys)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """List the keys, or those that begin with a prefix; others may write meanwhile.

        Raises
        ------
        InvalidInputError, InvalidTypeError, StoreError
            As `mget`, of the prefix.
        """
        yield from self._values.keys(prefix or "")
