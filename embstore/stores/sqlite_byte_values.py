"""The bytes by key in an SQLite file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from embstore.stores.byte_values import checked_key, checked_value
from embstore.stores.connection import Database
from embstore.stores.tables import byte_values

KEYS_LISTED_AT_ONCE = 1000


class SQLiteByteValues:
    """A `ByteStore` in an SQLite file; see `embstore.stores.byte_values.ByteStore` for what each method does.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `ByteStore.mget`.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            A key is no string, or has no UTF-8 bytes.
        """
        checked = [checked_key(key) for key in keys]
        with self._database.reading() as connection:
            found = byte_values.read(connection, list(dict.fromkeys(checked)))
        return [found.get(key) for key in checked]

    def mset(self, values: Mapping[str, bytes]) -> None:
        """See `ByteStore.mset`.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            As of `mget`, or a value is not bytes, or longer than what can be read back; nothing was written.
        """
        checked = {checked_key(key): checked_value(key, value) for key, value in values.items()}
        if checked:
            with self._database.writing() as connection:
                byte_values.put(connection, checked)

    def mdelete(self, keys: Sequence[str]) -> int:
        """See `ByteStore.mdelete`; takes no write lock where no key is there."""
        checked = list(dict.fromkeys(checked_key(key) for key in keys))
        with self._database.reading() as connection:
            if not byte_values.has_any(connection, checked):
                return 0
        with self._database.writing() as connection:
            return byte_values.delete(connection, checked)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `ByteStore.keys`."""
        checked_key(prefix)
        last: str | None = None
        while True:
            with self._database.reading() as connection:
                page = byte_values.keys(connection, prefix, last, KEYS_LISTED_AT_ONCE)
            for key in page:
                if not key.startswith(prefix):  # all that do follow on each other
                    return
                yield key
            if len(page) < KEYS_LISTED_AT_ONCE or (last is not None and page[-1] <= last):  # the latter: damaged keys
                return
            last = page[-1]
