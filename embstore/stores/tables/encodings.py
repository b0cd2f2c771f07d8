"""The table encodings: what each model has encoded, and how long it took."""

from __future__ import annotations

import math
from sqlite3 import Connection, DatabaseError

from embstore.checksums import model_checksum
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import has_table, is_count

FIND = """
SELECT n_texts, n_chars, seconds, checksum
FROM encodings
WHERE model_id = ?
"""

UPSERT = """
INSERT INTO encodings (model_id, n_texts, n_chars, seconds, checksum)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (model_id) DO UPDATE
SET n_texts = excluded.n_texts, n_chars = excluded.n_chars, seconds = excluded.seconds, checksum = excluded.checksum
"""

DELETE = """
DELETE FROM encodings
WHERE model_id = ?
"""

DELETE_ALL = """
DELETE FROM encodings
"""

MODEL_IDS = """
SELECT model_id
FROM encodings
"""

Totals = tuple[int, int, float]
"""Texts, characters, seconds."""


def find(connection: Connection, model_id: int) -> Totals | None:
    """Read the totals of a model; None where there are none, or they are damaged."""
    if not exists(connection):
        return None
    try:
        row = connection.execute(FIND, (model_id,)).fetchone()
    except (DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        return None
    if row is None or checksum(model_id, row[:3]) != row[3]:
        return None
    n_texts, n_chars, seconds = row[:3]
    if not (is_count(n_texts) and is_count(n_chars) and type(seconds) is float and math.isfinite(seconds)):
        return None
    return n_texts, n_chars, seconds


def exists(connection: Connection) -> bool:
    """Tell whether the file has the table: one of schema version 1 that can only be read has not."""
    return has_table(connection, "encodings")


def can_be_read(connection: Connection) -> bool:
    """Tell whether the pages of the table, a row in each of which may be damaged, are whole."""
    try:
        connection.execute(MODEL_IDS).fetchall()
    except DatabaseError as error:
        if not is_damage(error):
            raise
        return False
    return True


def is_sound(row: tuple[int, int, int, float, int]) -> bool:
    """Tell whether a row (model_id, n_texts, n_chars, seconds, checksum) is what was written."""
    return checksum(row[0], row[1:4]) == row[4]


def add(connection: Connection, model_id: int, n_texts: int, n_chars: int, seconds: float) -> None:
    """Add to the totals of a model; damaged ones begin anew."""
    texts, chars, before_s = find(connection, model_id) or (0, 0, 0.0)
    totals = (texts + n_texts, chars + n_chars, before_s + seconds)
    connection.execute(UPSERT, (model_id, *totals, checksum(model_id, totals)))


def damaged(connection: Connection) -> list[int]:
    """List the models whose totals are not what was written."""
    model_ids = [model_id for (model_id,) in connection.execute(MODEL_IDS)]
    return [model_id for model_id in model_ids if find(connection, model_id) is None]


def delete(connection: Connection, model_id: int) -> None:
    """Remove the totals of a model."""
    connection.execute(DELETE, (model_id,))


def delete_all(connection: Connection) -> None:
    """Remove all totals."""
    connection.execute(DELETE_ALL)


def checksum(model_id: int, totals: Totals) -> int:
    """Give the checksum of a row."""
    return model_checksum(model_id, list(map(repr, totals)), None)
