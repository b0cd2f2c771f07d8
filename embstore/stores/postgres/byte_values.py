"""The bytes by key on a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from embstore.checksums import bytes_checksum
from embstore.stores.byte_values import checked_key, checked_value
from embstore.stores.postgres.arrays import ByteaArray, Int8Array, TextArray
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import check_keys, given, stored

KEYS_AT_ONCE = 1000
BYTES_AT_ONCE = 2**25  # of values, in one statement

READ = """
SELECT key, value, checksum
FROM byte_values
WHERE key = ANY(%b)
"""

ANY = """
SELECT EXISTS (SELECT 1 FROM byte_values WHERE key = ANY(%b))
"""

FIRST_KEYS = """
SELECT key
FROM byte_values
WHERE key >= %s
ORDER BY key
LIMIT %s
"""

NEXT_KEYS = """
SELECT key
FROM byte_values
WHERE key > %s
ORDER BY key
LIMIT %s
"""

UPSERT = """
INSERT INTO byte_values (key, value, checksum)
SELECT key, value, checksum
FROM unnest(%b, %b, %b) AS given (key, value, checksum)
ORDER BY key COLLATE "C"
ON CONFLICT (key) DO UPDATE
SET value = excluded.value, checksum = excluded.checksum
"""

# In the order in which they are written, so that two who have the same keys meet in no deadlock.
DELETE = """
DELETE FROM byte_values
WHERE key IN (SELECT key FROM byte_values WHERE key = ANY(%b) ORDER BY key FOR UPDATE)
"""


class PostgresByteValues:
    """A `ByteStore` on a server; see `embstore.stores.byte_values.ByteStore` for what each method does.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `ByteStore.mget`.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            A key is no string, or has no UTF-8 bytes.
        """
        checked = [checked_key(key) for key in keys]
        found = self._server.read(lambda connection: _read(connection, list(dict.fromkeys(checked))))
        return [found.get(key) for key in checked]

    def mset(self, values: Mapping[str, bytes]) -> None:
        """See `ByteStore.mset`.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            As of `mget`, or a value is not bytes, or one is longer than what is stored; nothing was written.
        """
        checked = {checked_key(key): checked_value(key, value) for key, value in values.items()}
        check_keys("", [stored(key).encode() for key in checked], "key")
        if checked:
            self._server.write(lambda connection: _put(connection, dict(sorted(checked.items()))))

    def mdelete(self, keys: Sequence[str]) -> int:
        """See `ByteStore.mdelete`; locks nothing where no key is there."""
        checked = sorted({checked_key(key) for key in keys})
        if not any(self._server.fetch(ANY, (_array(some),))[0][0] for some in _pieces(checked)):
            return 0
        return self._server.write(
            lambda connection: sum(connection.execute(DELETE, (_array(some),)).rowcount for some in _pieces(checked))
        )

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `ByteStore.keys`."""
        start = stored(checked_key(prefix))
        statement = FIRST_KEYS
        while True:
            page = [key for (key,) in self._server.fetch(statement, (start, KEYS_AT_ONCE))]
            for key in page:
                if not given(key).startswith(prefix):  # all that do follow on each other
                    return
                yield given(key)
            if len(page) < KEYS_AT_ONCE:
                return
            statement, start = NEXT_KEYS, page[-1]


def is_sound(key: str, value: bytes, checksum: int) -> bool:
    """Tell whether the values of a row, its key as it is stored, are what was written."""
    return bytes_checksum(given(key), value) == checksum


def _read(connection: Connection, keys: Sequence[str]) -> dict[str, bytes]:
    """Read the values of those of some distinct keys that are there, and what was written."""
    return {
        given(key): value
        for some in _pieces(keys)
        for key, value, checksum in connection.execute(READ, (_array(some),), binary=True)
        if is_sound(key, value, checksum)
    }


def _put(connection: Connection, values: Mapping[str, bytes]) -> None:
    """Write values, ascending by their keys, in the place of any there."""
    some: dict[str, bytes] = {}
    n_bytes = 0
    for key, value in values.items():
        if some and (len(some) == KEYS_AT_ONCE or n_bytes + len(value) > BYTES_AT_ONCE):
            _put_some(connection, some)
            some, n_bytes = {}, 0
        some[key] = value
        n_bytes += len(value)
    _put_some(connection, some)


def _put_some(connection: Connection, values: Mapping[str, bytes]) -> None:
    checksums = Int8Array([bytes_checksum(key, value) for key, value in values.items()])
    connection.execute(UPSERT, (_array(list(values)), ByteaArray(list(values.values())), checksums))


def _pieces(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE))


def _array(keys: Sequence[str]) -> TextArray:
    return TextArray([stored(key).encode() for key in keys])
