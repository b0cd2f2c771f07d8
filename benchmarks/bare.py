"""Plain sqlite3 on a file of embstore's schema: the least that writing and removing the same rows costs.

Journal mode and page size are those of the file, and the connection has the settings that embstore's has. Nothing is
looked up, computed or checked in Python: rows, checksums and ids are there already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embstore import EmbeddingCache
from embstore.stores.sqlite_errors import sqlite3

SETTINGS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = EXTRA",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA cache_size = -32768",
)
MODEL_TABLES = ("models", "encodings")

VECTOR_IDS = """
SELECT doc_id, vector_id
FROM documents
"""

# One statement for all: faster than one for each, by a tenth.
DELETE_DOCUMENTS = """
DELETE FROM documents
WHERE model_id = ? AND collection = ? AND doc_id IN ({places})
"""

DELETE_VECTORS = """
DELETE FROM vectors
WHERE vector_id IN ({places})
"""

Rows = list[tuple[Any, ...]]


def connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    for setting in SETTINGS:
        connection.execute(setting)
    return connection


class BareFill:
    """Puts the very rows of another file into a new one, batch by batch, each its own transaction."""

    def __init__(self, source: Path, batch_size: int) -> None:
        connection = connect(source)
        self._inserts = {table: self._insert(connection, table) for table in (*MODEL_TABLES, "vectors", "documents")}
        self._of_models = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in MODEL_TABLES}
        vectors = connection.execute("SELECT * FROM vectors ORDER BY vector_id").fetchall()
        documents = connection.execute("SELECT * FROM documents ORDER BY vector_id").fetchall()
        assert len(vectors) == len(documents), "a batch is to hold documents and their own vectors"
        connection.close()
        self._batches: list[tuple[Rows, Rows]] = [
            (vectors[i : i + batch_size], documents[i : i + batch_size]) for i in range(0, len(vectors), batch_size)
        ]

    @staticmethod
    def _insert(connection: sqlite3.Connection, table: str) -> str:
        names = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
        return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"

    def open(self, file: Path) -> None:
        EmbeddingCache(file).close()
        self.connection = connect(file)

    def fill(self) -> None:
        connection = self.connection
        for number, (vectors, documents) in enumerate(self._batches):
            connection.execute("BEGIN IMMEDIATE")
            if number == 0:
                for table, rows in self._of_models.items():
                    connection.executemany(self._inserts[table], rows)
            connection.executemany(self._inserts["vectors"], vectors)
            connection.executemany(self._inserts["documents"], documents)
            connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()


class BareDelete:
    """Removes documents and their vectors by their keys, in one transaction."""

    def __init__(self, file: Path) -> None:
        self.connection = connect(file)
        self._vector_id_of = dict(self.connection.execute(VECTOR_IDS))
        ((self._model_id,),) = self.connection.execute("SELECT model_id FROM models")

    def prepare(self, doc_ids: list[str]) -> None:
        self._places = ",".join("?" * len(doc_ids))
        self._documents = [self._model_id, "", *doc_ids]
        self._vectors = [self._vector_id_of[doc_id] for doc_id in doc_ids]

    def delete(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        n_documents = self.connection.execute(DELETE_DOCUMENTS.format(places=self._places), self._documents).rowcount
        n_vectors = self.connection.execute(DELETE_VECTORS.format(places=self._places), self._vectors).rowcount
        self.connection.execute("COMMIT")
        assert n_documents == n_vectors == len(self._vectors)

    def close(self) -> None:
        self.connection.close()
