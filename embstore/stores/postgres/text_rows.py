"""The table texts of a server. A row is never changed: what is written in its place has another, higher text_id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.checksums import text_checksum
from embstore.stores.postgres.arrays import ByteaArray, Int8Array, TextArray
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import check_keys, given, stored
from embstore.stores.tables.texts import check_lengths
from embstore.stores.texts import StoredText

ROWS_AT_ONCE = 1000
BYTES_AT_ONCE = 2**25  # of texts, in one statement

COLUMNS = "text_id, doc_id, content_hash, metadata, text, checksum"

IDS = """
SELECT text_id
FROM texts
WHERE collection = %s
ORDER BY text_id
"""

ANY = """
SELECT 1
FROM texts
WHERE collection = %s
LIMIT 1
"""

READ = f"""
SELECT {COLUMNS}
FROM texts
WHERE text_id = ANY(%b)
ORDER BY text_id
"""

FIND = f"""
SELECT {COLUMNS}
FROM texts
WHERE collection = %s AND doc_id = ANY(%b)
"""

# Their ids ascend as they are given.
INSERT = """
INSERT INTO texts (collection, doc_id, content_hash, metadata, text, checksum)
SELECT %s, doc_id, content_hash, metadata, text, checksum
FROM unnest(%b, %b, %b, %b, %b) WITH ORDINALITY AS given (doc_id, content_hash, metadata, text, checksum, place)
ORDER BY place
"""

DELETE = """
DELETE FROM texts
WHERE collection = %s AND doc_id = ANY(%b)
"""


def ids(connection: Connection, collection: str) -> npt.NDArray[np.int64]:
    """List the text_ids of a collection, ascending."""
    cursor = connection.execute(IDS, (stored(collection),), binary=True)
    return np.fromiter((text_id for (text_id,) in cursor), dtype=np.int64)


def has_any(connection: Connection, collection: str) -> bool:
    """Tell whether a collection has a text."""
    return bool(connection.execute(ANY, (stored(collection),)).fetchall())


def read(
    connection: Connection, collection: str, text_ids: Sequence[int] | npt.NDArray[np.int64]
) -> dict[int, StoredText | None]:
    """Read those of some ascending text_ids that are there, in this order; None where a row is damaged."""
    found: dict[int, StoredText | None] = {}
    for start in range(0, len(text_ids), ROWS_AT_ONCE):
        some = Int8Array(text_ids[start : start + ROWS_AT_ONCE])
        for text_id, *values in connection.execute(READ, (some,), binary=True):
            found[text_id] = sound(collection, values)
    return found


def find(connection: Connection, collection: str, doc_ids: Sequence[str]) -> dict[str, StoredText | None]:
    """Read those of some distinct doc_ids that are there, in this order; None where a row is damaged."""
    there: dict[str, StoredText | None] = {}
    for keys in _pieces(doc_ids):
        for _, doc_id, *values in connection.execute(FIND, (stored(collection), _array(keys)), binary=True):
            there[given(doc_id)] = sound(collection, [doc_id, *values])
    return {doc_id: there[doc_id] for doc_id in doc_ids if doc_id in there}


def put(connection: Connection, collection: str, texts: Sequence[StoredText]) -> int:
    """Write texts of distinct doc_ids in place of any there, and tell how many had none.

    Raises
    ------
    InvalidInputError
        One is longer than what is stored, or its doc_id than what can be found again; nothing was written.
    """
    check_lengths(texts)
    doc_ids = [stored(text.doc_id).encode() for text in texts]
    check_keys(stored(collection), doc_ids)
    n_before = delete(connection, collection, [text.doc_id for text in texts])
    for some in _slices(texts):
        columns = (
            TextArray(doc_ids[some]),
            ByteaArray([text.content_hash for text in texts[some]]),
            TextArray([stored(text.metadata).encode() for text in texts[some]]),
            TextArray([stored(text.text).encode() for text in texts[some]]),
            Int8Array([_checksum(collection, text) for text in texts[some]]),
        )
        connection.execute(INSERT, (stored(collection), *columns))
    return len(texts) - n_before


def delete(connection: Connection, collection: str, doc_ids: Sequence[str]) -> int:
    """Remove some doc_ids, and count them."""
    return sum(connection.execute(DELETE, (stored(collection), _array(keys))).rowcount for keys in _pieces(doc_ids))


def sound(collection: str, values: Sequence[Any]) -> StoredText | None:
    """Make a text of the columns of a row but its id; None where it is not what was written for its collection."""
    doc_id, content_hash, metadata, text, checksum = values
    found = StoredText(given(doc_id), content_hash, given(metadata), given(text))
    return found if _checksum(collection, found) == checksum else None


def _slices(texts: Sequence[StoredText]) -> Iterator[slice]:
    """Cut texts into pieces that fit one statement."""
    start = n_chars = 0
    for row, text in enumerate(texts):
        n_chars += len(text.text) + len(text.metadata)
        if row > start and (row - start == ROWS_AT_ONCE or 4 * n_chars > BYTES_AT_ONCE):
            yield slice(start, row)
            start, n_chars = row, len(text.text) + len(text.metadata)
    yield slice(start, len(texts))


def _pieces(doc_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (doc_ids[start : start + ROWS_AT_ONCE] for start in range(0, len(doc_ids), ROWS_AT_ONCE))


def _array(doc_ids: Sequence[str]) -> TextArray:
    return TextArray([stored(doc_id).encode() for doc_id in doc_ids])


def _checksum(collection: str, text: StoredText) -> int:
    return text_checksum(collection, text.doc_id, text.content_hash, text.metadata, text.text)
