"""The table texts. A row is never changed: what is written in its place has another, higher text_id."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection, DatabaseError
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.checksums import text_checksum
from embstore.errors import InvalidInputError
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import LONGEST_VALUE_BYTES, all_rows, chunks, has_table, places
from embstore.stores.texts import StoredText

IDS = """
SELECT text_id
FROM texts
WHERE collection = ?
"""

ANY = """
SELECT 1
FROM texts
WHERE collection = ?
LIMIT 1
"""

READ = """
SELECT text_id, doc_id, content_hash, metadata, text, checksum
FROM texts
WHERE text_id IN ({places})
ORDER BY text_id
"""

READ_RANGE = """
SELECT text_id, doc_id, content_hash, metadata, text, checksum
FROM texts
WHERE text_id BETWEEN ? AND ?
ORDER BY text_id
"""

FIND_IDS = """
SELECT doc_id, text_id
FROM texts
WHERE collection = ? AND doc_id IN ({places})
"""

INSERT = """
INSERT INTO texts (collection, doc_id, content_hash, metadata, text, checksum)
VALUES (?, ?, ?, ?, ?, ?)
"""

DELETE = """
DELETE FROM texts
WHERE collection = ? AND doc_id IN ({places})
"""

Row = tuple[Any, ...]
"""(text_id, doc_id, content_hash, metadata, text, checksum)."""

_NULLS = (None,) * 5

_ROW_BYTES = 2**21  # all else in a row: the name of a collection, and some numbers


def ids(connection: Connection, collection: str) -> npt.NDArray[np.int64]:
    """List the text_ids of a collection, ascending."""
    rows = all_rows(connection, IDS, (collection,)) if has_table(connection, "texts") else []
    found = [text_id for (text_id,) in rows]
    return np.sort(np.array(found, dtype=np.int64))


def has_any(connection: Connection, collection: str) -> bool:
    """Tell whether a collection has a text."""
    return has_table(connection, "texts") and connection.execute(ANY, (collection,)).fetchone() is not None


def read(connection: Connection, collection: str, text_ids: Sequence[int]) -> dict[int, StoredText | None]:
    """Read those of some ascending text_ids that are there, in this order; None where a row is damaged."""
    return {
        text_id: _sound(collection, values, checksum)
        for keys in chunks(text_ids)
        for text_id, *values, checksum in _fetch(connection, keys)
    }


def find(connection: Connection, collection: str, doc_ids: Sequence[str]) -> dict[str, StoredText | None]:
    """Read those of some distinct doc_ids that are there; None where a row is damaged, or another's."""
    if not has_table(connection, "texts"):
        return {}
    id_of: dict[str, int] = {}
    for keys in chunks(doc_ids):
        id_of.update(connection.execute(FIND_IDS.format(places=places(keys)), (collection, *keys)))
    rows = read(connection, collection, sorted(set(id_of.values())))
    found = {doc_id: rows.get(id_of[doc_id]) for doc_id in doc_ids if doc_id in id_of}  # damaged keys: others too
    return {doc_id: text if text and text.doc_id == doc_id else None for doc_id, text in found.items()}


def put(connection: Connection, collection: str, texts: Sequence[StoredText]) -> int:
    """Write texts of distinct doc_ids in place of any there, and tell how many had none.

    Raises
    ------
    InvalidInputError
        One is longer than what can be read back; nothing was written.
    """
    check_lengths(texts)
    n_before = delete(connection, collection, [text.doc_id for text in texts])
    connection.executemany(
        INSERT,
        (
            (collection, text.doc_id, text.content_hash, text.metadata, text.text, _checksum(collection, text))
            for text in texts
        ),
    )
    return len(texts) - n_before


def check_lengths(texts: Sequence[StoredText]) -> None:
    """Refuse texts that are longer than what can be read back.

    Raises
    ------
    InvalidInputError
    """
    for text in texts:
        if 4 * (len(text.text) + len(text.metadata) + len(text.doc_id)) > LONGEST_VALUE_BYTES:
            _check_length(text)


def _check_length(text: StoredText) -> None:
    n_bytes = sum(len(part.encode()) for part in (text.text, text.metadata, text.doc_id))
    if n_bytes > LONGEST_VALUE_BYTES - _ROW_BYTES:
        raise InvalidInputError(
            f"doc_id {text.doc_id!r:.80}: its text and metadata take {n_bytes} bytes, more than the "
            f"{LONGEST_VALUE_BYTES} that are stored; cut it into several documents",
            doc_id=text.doc_id,
        )


def delete(connection: Connection, collection: str, doc_ids: Sequence[str]) -> int:
    """Remove some doc_ids, and count them."""
    return sum(
        connection.execute(DELETE.format(places=places(keys)), (collection, *keys)).rowcount for keys in chunks(doc_ids)
    )


def _fetch(connection: Connection, text_ids: Sequence[int]) -> list[Row]:
    """Fetch rows; where one cannot be read, search for it by halving, and give it as one of NULLs."""
    try:
        if text_ids[-1] - text_ids[0] + 1 == len(text_ids):
            cursor = connection.execute(READ_RANGE, (text_ids[0], text_ids[-1]))
        else:
            cursor = connection.execute(READ.format(places=places(text_ids)), text_ids)
        rows = cursor.fetchmany(len(text_ids) + 1)
        if len(rows) > len(text_ids):
            raise DatabaseError("more rows than were asked for: pages lead back to themselves")
        return rows
    except DatabaseError as error:
        if not is_damage(error):
            raise
        if len(text_ids) == 1:
            return [(text_ids[0], *_NULLS)]
        middle = len(text_ids) // 2
        return _fetch(connection, text_ids[:middle]) + _fetch(connection, text_ids[middle:])


def _sound(collection: str, values: Sequence[Any], checksum: int) -> StoredText | None:
    text = StoredText(*values)
    try:
        return text if _checksum(collection, text) == checksum else None
    except (AttributeError, TypeError):  # values of other types than their columns
        return None


def _checksum(collection: str, text: StoredText) -> int:
    return text_checksum(collection, text.doc_id, text.content_hash, text.metadata, text.text)
