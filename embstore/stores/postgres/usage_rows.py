"""The tables usage and encodings of a server. Damaged rows begin anew; their checksums are of all of a row.

A row is locked before it is read to be added to, and made empty where it was not there, so that of two who add at once
neither loses what it counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from embstore.stores.postgres.arrays import Int8Array
from embstore.stores.postgres.pool import Connection
from embstore.stores.tables import encodings
from embstore.stores.tables import usage as sqlite_usage
from embstore.stores.tables.encodings import Totals
from embstore.stores.usage import Counts, DayUsage

# Skipped: a model that somebody removes or converts at this moment. What was found of it is not noted.
LOCK_MODELS = """
SELECT model_id
FROM models
WHERE model_id = ANY(%b)
ORDER BY model_id
FOR KEY SHARE SKIP LOCKED
"""

DAYS = """
SELECT model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum
FROM usage
WHERE model_id = %s
ORDER BY day
"""

DAY = """
SELECT model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum
FROM usage
WHERE model_id = %s AND day = %s
FOR UPDATE
"""

ALL_DAYS = """
SELECT model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum
FROM usage
"""

NEW_DAY = """
INSERT INTO usage (model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum)
VALUES (%s, %s, 0, 0, 0, 0, 0, %s)
ON CONFLICT (model_id, day) DO NOTHING
"""

UPDATE_DAY = """
UPDATE usage
SET n_hits = %s, n_hit_chars = %s, n_encoded = %s, n_stored = %s, encode_s = %s, checksum = %s
WHERE model_id = %s AND day = %s
"""

TOTALS = """
SELECT model_id, n_texts, n_chars, seconds, checksum
FROM encodings
WHERE model_id = %s
"""

ALL_TOTALS = """
SELECT model_id, n_texts, n_chars, seconds, checksum
FROM encodings
"""

NEW_TOTALS = """
INSERT INTO encodings (model_id, n_texts, n_chars, seconds, checksum)
VALUES (%s, 0, 0, 0, %s)
ON CONFLICT (model_id) DO NOTHING
"""

UPDATE_TOTALS = """
UPDATE encodings
SET n_texts = %s, n_chars = %s, seconds = %s, checksum = %s
WHERE model_id = %s
"""

NOTHING: Totals = (0, 0, 0.0)


def lock_models(connection: Connection, model_ids: Sequence[int]) -> list[int]:
    """Give those models that are stored, which nobody removes before this transaction has ended."""
    if not model_ids:
        return []
    return [model_id for (model_id,) in connection.execute(LOCK_MODELS, (Int8Array(model_ids),), binary=True)]


def days(connection: Connection, model_id: int) -> list[DayUsage]:
    """Read the days of a model, ascending, without those that are damaged."""
    rows = connection.execute(DAYS, (model_id,), binary=True).fetchall()
    return [DayUsage(*row[1:-1]) for row in rows if sqlite_usage.is_sound(row)]


def totals(connection: Connection, model_id: int) -> Totals | None:
    """Read what a model has encoded: texts, characters, seconds; None where there is nothing, or it is damaged."""
    rows = connection.execute(TOTALS, (model_id,), binary=True).fetchall()
    return rows[0][1:-1] if rows and encodings.is_sound(rows[0]) else None


def add(connection: Connection, model_id: int, day: str, counts: Counts, n_chars: int) -> None:
    """Add to what is noted of a model, and of a day of it; of the characters those of what was encoded."""
    _add_to_day(connection, model_id, day, counts)
    if counts.n_encoded:
        _add_to_totals(connection, model_id, (counts.n_encoded, n_chars, counts.encode_s))


def damaged(connection: Connection) -> Iterator[tuple[str, str]]:
    """Give the tables and keys of rows that are not what was written."""
    for row in connection.execute(ALL_TOTALS, binary=True):
        if not encodings.is_sound(row):
            yield "encodings", f"model_id {row[0]}"
    for row in connection.execute(ALL_DAYS, binary=True):
        if not sqlite_usage.is_sound(row):
            yield "usage", f"model_id {row[0]}, day {row[1]!r:.40}"


def _add_to_day(connection: Connection, model_id: int, day: str, more: Counts) -> None:
    (row,) = _row(connection, DAY, (model_id, day), NEW_DAY, sqlite_usage.checksum(model_id, day, Counts()))
    before = Counts(*row[2:-1]) if sqlite_usage.is_sound(row) else Counts()
    counts = before.plus(more)
    connection.execute(UPDATE_DAY, (*counts, sqlite_usage.checksum(model_id, day, counts), model_id, day))


def _add_to_totals(connection: Connection, model_id: int, more: Totals) -> None:
    statement = f"{TOTALS}FOR UPDATE"
    (row,) = _row(connection, statement, (model_id,), NEW_TOTALS, encodings.checksum(model_id, NOTHING))
    n_texts, n_chars, seconds = row[1:-1] if encodings.is_sound(row) else NOTHING
    now = (n_texts + more[0], n_chars + more[1], seconds + more[2])
    connection.execute(UPDATE_TOTALS, (*now, encodings.checksum(model_id, now), model_id))


def _row(
    connection: Connection, statement: str, key: tuple[object, ...], new: str, checksum: int
) -> list[tuple[Any, ...]]:
    """Lock a row, made where it was not there."""
    rows = connection.execute(statement, key, binary=True).fetchall()
    if rows:
        return rows
    connection.execute(new, (*key, checksum))
    return connection.execute(statement, key, binary=True).fetchall()
