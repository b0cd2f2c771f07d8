"""The table usage: what each model has encoded, and what was found of it, on each day."""

from __future__ import annotations

import math
from collections.abc import Iterator
from sqlite3 import Connection, DatabaseError
from typing import Any

from embstore.checksums import collection_checksum
from embstore.errors import DamagedStoreError
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import all_rows, has_table, is_count
from embstore.stores.usage import Counts, DayUsage

OF_MODEL = """
SELECT day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum
FROM usage
WHERE model_id = ?
ORDER BY day
"""

FIND = """
SELECT n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum
FROM usage
WHERE model_id = ? AND day = ?
"""

ALL = """
SELECT model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum
FROM usage
"""

UPSERT = """
INSERT INTO usage (model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
WHERE EXISTS (SELECT 1 FROM models WHERE model_id = ?1)
ON CONFLICT (model_id, day) DO UPDATE
SET n_hits = excluded.n_hits, n_hit_chars = excluded.n_hit_chars, n_encoded = excluded.n_encoded,
    n_stored = excluded.n_stored, encode_s = excluded.encode_s, checksum = excluded.checksum
"""

DELETE = """
DELETE FROM usage
WHERE model_id = ?
"""

DELETE_ALL = """
DELETE FROM usage
"""


def exists(connection: Connection) -> bool:
    """Tell whether the file has the table: one of an older schema version that can only be read has not."""
    return has_table(connection, "usage")


def can_be_read(connection: Connection) -> bool:
    """Tell whether the pages of the table, a row in each of which may be damaged, are whole."""
    try:
        all_rows(connection, ALL)
    except DamagedStoreError:
        return False
    except (DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        return False
    return True


def of_model(connection: Connection, model_id: int) -> list[DayUsage]:
    """Read the days of a model, ascending, without those that are damaged."""
    found: list[DayUsage] = []
    if not exists(connection):
        return found
    try:
        for row in all_rows(connection, OF_MODEL, (model_id,)):
            if is_sound((model_id, *row)):
                found.append(DayUsage(*row[:-1]))
    except DamagedStoreError:
        return []
    except (DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
    return found


def add(connection: Connection, model_id: int, day: str, counts: Counts) -> None:
    """Add to what is noted of a model's day; a damaged row begins anew, of a model that is gone nothing is."""
    row = connection.execute(FIND, (model_id, day)).fetchone()
    if row is not None and is_sound((model_id, day, *row)):
        counts = counts.plus(Counts(*row[:-1]))
    connection.execute(UPSERT, (model_id, day, *counts, checksum(model_id, day, counts)))


def is_sound(row: tuple[Any, ...]) -> bool:
    """Tell whether a row is what was written, and its values are such as are ever written."""
    model_id, day, *values, stored = row
    if type(model_id) is not int or type(day) is not str or not all(map(is_count, values[:-1])):
        return False
    seconds = values[-1]
    is_time = type(seconds) is float and math.isfinite(seconds)
    return is_time and checksum(model_id, day, Counts(*values)) == stored


def damaged(connection: Connection) -> Iterator[tuple[Any, Any]]:
    """Give the (model_id, day) of rows that are not what was written."""
    for row in all_rows(connection, ALL):
        if not is_sound(row):
            yield row[:2]


def delete(connection: Connection, model_id: int) -> None:
    """Remove what is noted of a model."""
    connection.execute(DELETE, (model_id,))


def delete_all(connection: Connection) -> None:
    """Remove all that is noted."""
    connection.execute(DELETE_ALL)


def checksum(model_id: int, day: str, counts: Counts) -> int:
    """Give the checksum of a row."""
    return collection_checksum([model_id, day, *counts[:-1], repr(counts.encode_s)])
