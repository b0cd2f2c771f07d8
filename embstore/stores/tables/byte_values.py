"""The table byte_values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from sqlite3 import Connection, DatabaseError

from embstore.checksums import bytes_checksum
from embstore.errors import DamagedStoreError
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import all_rows, chunks, has_table, places

READ = """
SELECT key, value, checksum
FROM byte_values
WHERE key IN ({places})
"""

ANY = """
SELECT 1
FROM byte_values
WHERE key IN ({places})
LIMIT 1
"""

FIRST_KEYS = """
SELECT key
FROM byte_values
WHERE key >= ?
ORDER BY key
LIMIT ?
"""

NEXT_KEYS = """
SELECT key
FROM byte_values
WHERE key > ?
ORDER BY key
LIMIT ?
"""

UPSERT = """
INSERT INTO byte_values (key, value, checksum)
VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE
SET value = excluded.value, checksum = excluded.checksum
"""

DELETE = """
DELETE FROM byte_values
WHERE key IN ({places})
"""

# By the table itself: what an index with damaged keys leaves out is to be found.
ROWIDS = """
SELECT rowid
FROM byte_values NOT INDEXED
"""

READ_ROW = """
SELECT key, value, checksum
FROM byte_values
WHERE rowid = ?
"""


def read(connection: Connection, keys: Sequence[str]) -> dict[str, bytes]:
    """Read the values of those of some distinct keys that are there, and what was written."""
    if not exists(connection):
        return {}
    return {
        key: value
        for some in chunks(keys)
        for key, value, checksum in _fetch(connection, some)
        if is_sound(key, value, checksum)
    }


def _fetch(connection: Connection, keys: Sequence[str]) -> list[tuple[str, bytes, int]]:
    """Fetch rows; where one cannot be read, search for it by halving, and leave it out."""
    try:
        return connection.execute(READ.format(places=places(keys)), keys).fetchall()
    except (DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        if len(keys) == 1:
            return []
        middle = len(keys) // 2
        return _fetch(connection, keys[:middle]) + _fetch(connection, keys[middle:])


def exists(connection: Connection) -> bool:
    """Tell whether the file has the table: one of an older schema version that can only be read has not."""
    return has_table(connection, "byte_values")


def is_sound(key: object, value: object, checksum: object) -> bool:
    """Tell whether the values of a row are what was written."""
    return isinstance(key, str) and isinstance(value, bytes) and bytes_checksum(key, value) == checksum


def has_any(connection: Connection, keys: Sequence[str]) -> bool:
    """Tell whether one of some keys is there, or damaged."""
    return exists(connection) and any(
        connection.execute(ANY.format(places=places(some)), some).fetchone() is not None for some in chunks(keys)
    )


def keys(connection: Connection, prefix: str, after: str | None, limit: int) -> list[str]:
    """List keys in the order of their bytes, from a prefix or after another key."""
    if not exists(connection):
        return []
    statement = FIRST_KEYS if after is None else NEXT_KEYS
    found = [key for (key,) in connection.execute(statement, (prefix if after is None else after, limit))]
    if not all(type(key) is str for key in found):
        raise DamagedStoreError("the table byte_values has keys that are no texts; see verify()")
    return found


def put(connection: Connection, values: Mapping[str, bytes]) -> None:
    """Write values in the place of any there."""
    connection.executemany(UPSERT, ((key, value, bytes_checksum(key, value)) for key, value in values.items()))


def delete(connection: Connection, keys: Sequence[str]) -> int:
    """Remove some keys, and count them."""
    return sum(connection.execute(DELETE.format(places=places(some)), some).rowcount for some in chunks(keys))


def damaged(connection: Connection) -> Iterator[int]:
    """Give the rowids of rows that are not what was written."""
    for (rowid,) in all_rows(connection, ROWIDS):
        try:
            row = connection.execute(READ_ROW, (rowid,)).fetchone()
        except (DatabaseError, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise
            row = None
        if row is None or not is_sound(*row):
            yield rowid
