"""Rows of one file that are put into another as they are."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Literal

from embstore.stores.tables import byte_values, models

Values = tuple[Any, ...]
Table = Literal["vectors", "documents", "texts", "byte_values"]

INSERT_MODEL = f"""
INSERT INTO models ({models.COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

INSERT_VECTOR = """
INSERT INTO vectors (vector_id, model_id, content_hash, dim, standalone, checksum, vector)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""

FIND_VECTOR = """
SELECT standalone, checksum, vector
FROM vectors
WHERE model_id = ? AND content_hash = ?
"""

DELETE_VECTOR = """
DELETE FROM vectors
WHERE model_id = ? AND content_hash = ?
"""

HAS_VECTOR_ID = """
SELECT 1
FROM vectors
WHERE vector_id = ?
"""

CONTENTS = """
SELECT content_hash, vector_id
FROM vectors
WHERE model_id = ?
"""

INSERT_DOCUMENT = """
INSERT INTO documents (model_id, collection, doc_id, vector_id, checksum)
VALUES (?, ?, ?, ?, ?)
"""

FIND_DOCUMENT = """
SELECT vector_id, checksum
FROM documents
WHERE model_id = ? AND collection = ? AND doc_id = ?
"""

DELETE_DOCUMENT = """
DELETE FROM documents
WHERE model_id = ? AND collection = ? AND doc_id = ?
"""

COUNT_OF_VECTOR = """
SELECT count(*)
FROM documents
WHERE vector_id = ?
"""

COUNTED = ("models", "vectors", "documents", "collections", "texts", "byte_values")

COUNT = """
SELECT count(*)
FROM {table}
"""

INSERT_TEXT = """
INSERT INTO texts (collection, doc_id, content_hash, metadata, text, checksum)
VALUES (?, ?, ?, ?, ?, ?)
"""

FIND_TEXT = """
SELECT content_hash, metadata, text, checksum
FROM texts
WHERE collection = ? AND doc_id = ?
"""

DELETE_TEXT = """
DELETE FROM texts
WHERE collection = ? AND doc_id = ?
"""

FIND_BYTES = """
SELECT value, checksum
FROM byte_values
WHERE key = ?
"""

DELETE_BYTES = """
DELETE FROM byte_values
WHERE key = ?
"""

_STATEMENTS = {
    "vectors": (INSERT_VECTOR, FIND_VECTOR, DELETE_VECTOR),
    "documents": (INSERT_DOCUMENT, FIND_DOCUMENT, DELETE_DOCUMENT),
    "texts": (INSERT_TEXT, FIND_TEXT, DELETE_TEXT),
    "byte_values": (byte_values.UPSERT, FIND_BYTES, DELETE_BYTES),
}


class CarriedRows:
    """Rows of a new file.

    Parameters
    ----------
    connection : sqlite3.Connection
        To a file without rows, in a transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._doubtful = set[tuple[Table, Values]]()

    def put_model(self, row: Values) -> None:
        """Insert a row of the table models."""
        self._connection.execute(INSERT_MODEL, row)

    def put(self, table: Table, row: Values, key: Values, rest: Values) -> None:
        """Insert a row, unless it is there.

        Where another row has its key, one of the two was removed before, and nobody knows which: neither is kept.

        Parameters
        ----------
        row : tuple
            All its columns, as the statement has them.
        key, rest : tuple
            What makes it the only one, and what it says of that.
        """
        insert, find, delete = _STATEMENTS[table]
        if (table, key) in self._doubtful:
            return
        there = self._connection.execute(find, key).fetchone()
        if there is None:
            self._connection.execute(insert, row)
        elif there != rest:
            self._connection.execute(delete, key)
            self._doubtful.add((table, key))

    def has(self, table: Table, key: Values) -> bool:
        """Tell whether there is a row of a key."""
        return self._connection.execute(_STATEMENTS[table][1], key).fetchone() is not None

    def has_vector_id(self, vector_id: int) -> bool:
        """Tell whether a vector has this number."""
        return self._connection.execute(HAS_VECTOR_ID, (vector_id,)).fetchone() is not None

    def contents(self, model_id: int) -> tuple[Sequence[bytes], Sequence[int]]:
        """List the contents of a model, and the numbers of their vectors."""
        rows = self._connection.execute(CONTENTS, (model_id,)).fetchall()
        return [row[0] for row in rows], [row[1] for row in rows]

    def count_of_vector(self, vector_id: int) -> int:
        """Count the documents that point at a vector."""
        return int(self._connection.execute(COUNT_OF_VECTOR, (vector_id,)).fetchone()[0])

    def counts(self) -> dict[str, int]:
        """Count the rows of each table."""
        return {table: self._connection.execute(COUNT.format(table=table)).fetchone()[0] for table in COUNTED}
