"""Files as somebody makes them who means harm: each a way to change a sound library."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embstore.checksums import document_checksums, model_checksum, text_checksum, vector_checksums
from embstore.identity import content_hash
from embstore.stores.opening import wal_is_fixed
from tests.faults.pages import Claimed, claim, lead_back
from tests.faults.reading import TEXTS

Make = Callable[[Path], object]

# Raises wherever it is worked out: "integer overflow".
TRAP = "abs(-9223372036854775808)"

LOOSE = {
    "models": "CREATE TABLE models (model_id INTEGER PRIMARY KEY AUTOINCREMENT, model_name, settings, dim, dtype, "
    "canary, created_at, checksum, UNIQUE (model_name, settings))",
    "vectors": "CREATE TABLE vectors (vector_id INTEGER PRIMARY KEY, model_id, content_hash, dim, standalone, "
    "checksum, vector, UNIQUE (model_id, content_hash))",
    "documents": "CREATE TABLE documents (model_id, collection, doc_id, vector_id, checksum, "
    "PRIMARY KEY (model_id, collection, doc_id)) WITHOUT ROWID",
    "encodings": "CREATE TABLE encodings (model_id INTEGER PRIMARY KEY, n_texts, n_chars, seconds, checksum)",
    "collections": "CREATE TABLE collections (collection PRIMARY KEY, model_name, settings, n_texts, texts_version, "
    "vectors_version, checksum) WITHOUT ROWID",
    "texts": "CREATE TABLE texts (text_id INTEGER PRIMARY KEY AUTOINCREMENT, collection, doc_id, content_hash, "
    "metadata, text, checksum, UNIQUE (collection, doc_id))",
    "byte_values": "CREATE TABLE byte_values (key PRIMARY KEY NOT NULL, value, checksum)",
    "usage": "CREATE TABLE usage (model_id, day, n_hits, n_hit_chars, n_encoded, n_stored, encode_s, checksum, "
    "PRIMARY KEY (model_id, day)) WITHOUT ROWID",
    "leases": "CREATE TABLE leases (identity_hash, content_hash, owner, since, until, "
    "PRIMARY KEY (identity_hash, content_hash)) WITHOUT ROWID",
}


@dataclass(frozen=True)
class Hostile:
    """A hostile file, and what is to come of it.

    Attributes
    ----------
    error : str
        With which it is refused; "" where it is opened.
    tells : str
        What the error says or, of a file that is opened, a problem that `verify` finds; "" where there is none.
    fails : str
        Of a file in which `verify` finds nothing, the call that is refused.
    """

    make: Make
    error: str = ""
    tells: str = ""
    fails: str = ""


@contextlib.contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that may change everything, the schema too."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        yield connection


def run(*statements: str) -> Make:
    """Run statements, of the schema too."""

    def make(path: Path) -> None:
        with edited(path) as connection:
            connection.execute("CREATE TABLE loot (x)")
            for statement in statements:
                connection.execute(statement)

    return make


def loosely(*statements: str, values: tuple[Any, ...] = ()) -> Make:
    """Change rows as if the tables took everything."""

    def make(path: Path) -> None:
        with edited(path) as connection:
            kept = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
            connection.executemany(
                "UPDATE sqlite_master SET sql = ?2 WHERE type = 'table' AND name = ?1", list(LOOSE.items())
            )
        with edited(path) as connection:
            for statement in statements:
                assert connection.execute(statement, values).rowcount > 0, statement
            connection.executemany("UPDATE sqlite_master SET sql = ?2 WHERE type = 'table' AND name = ?1", kept)

    return make


def model_id(path: Path) -> int:
    with edited(path) as connection:
        return int(connection.execute("SELECT model_id FROM models WHERE model_name = 'fake'").fetchone()[0])


def forged_model(**changed: Any) -> Make:
    """Change the row of the model, its checksum made to fit."""

    def make(path: Path) -> None:
        with edited(path) as connection:
            columns = ["model_id", "model_name", "settings", "dim", "dtype", "created_at", "canary"]
            row = connection.execute(f"SELECT {', '.join(columns)} FROM models WHERE model_name = 'fake'").fetchone()
            fields = {**dict(zip(columns, row, strict=True)), **changed}
        checked = [fields[name] for name in columns[1:6]]
        fields["checksum"] = model_checksum(fields["model_id"], checked, fields["canary"])
        assigned = ", ".join(f"{name} = ?" for name in fields)
        loosely(f"UPDATE models SET {assigned} WHERE model_name = 'fake'", values=tuple(fields.values()))(path)

    return make


def forged_vector(vector: np.ndarray) -> Make:
    """Give a document another vector, its checksum made to fit."""

    def make(path: Path) -> None:
        key = content_hash(TEXTS["doc 1"])
        (checksum,) = vector_checksums(model_id(path), [key], [False], vector[np.newaxis]).tolist()
        loosely(
            "UPDATE vectors SET checksum = ?, vector = ? WHERE content_hash = ? AND dim = 8",
            values=(checksum, vector.tobytes(), key),
        )(path)

    return make


def forged_text(column: str, value: str) -> Make:
    """Change a text of the index or its metadata, the checksum made to fit."""

    def make(path: Path) -> None:
        with edited(path) as connection:
            columns = ["collection", "doc_id", "content_hash", "metadata", "text"]
            row = connection.execute(f"SELECT {', '.join(columns)} FROM texts WHERE doc_id = 'doc 1'").fetchone()
        fields = {**dict(zip(columns, row, strict=True)), column: value}
        checksum = text_checksum(*fields.values())
        loosely(f"UPDATE texts SET {column} = ?, checksum = ? WHERE doc_id = 'doc 1'", values=(value, checksum))(path)

    return make


def many_pointers(path: Path) -> None:
    """Say of a model that its vectors are enormous, and point at more of them than there are bytes."""
    forged_model(dim=2**20, canary=None)(path)
    owner = model_id(path)
    doc_ids = [f"far {i}" for i in range(5000)]
    checksums = document_checksums(owner, "far", doc_ids, [bytes(32)] * len(doc_ids)).tolist()
    with edited(path) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO documents (model_id, collection, doc_id, vector_id, checksum) VALUES (?, 'far', ?, ?, ?)",
            [(owner, doc_id, 10**6 + i, checksums[i]) for i, doc_id in enumerate(doc_ids)],
        )
        connection.execute("COMMIT")


def header(offset: int, value: int) -> Make:
    """Change a number in the header of the file."""

    def make(path: Path) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into(">I", data, offset, value)
        path.write_bytes(data)

    return make


def in_place(make: Make) -> Make:
    """Something else in the place of the file."""

    def without(path: Path) -> None:
        path.unlink()
        make(path)

    return without


def beside(suffix: str, make: Make) -> Make:
    return lambda path: make(path.with_name(path.name + suffix))


def evil_journal(path: Path) -> None:
    """A journal that is to be rolled back, of a transaction over several files whose list is one of the user's."""
    page = path.stat().st_size // 65536
    victim = path.with_name("victim.txt")
    victim.write_text("what the user has beside it")
    magic = bytes.fromhex("d9d505f920a163d7")
    head = magic + struct.pack(">5I", 0, 0, page, 512, 65536)
    name = os.fsencode(victim)
    lock_page = (1 << 30) // 65536 + 1
    tail = struct.pack(">I", lock_page) + name + struct.pack(">2I", len(name), sum(name)) + magic
    path.with_name(path.name + "-journal").write_bytes(head.ljust(512, b"\0") + tail)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def new_file(*statements: str) -> Make:
    """A file without tables of ours, in the place of the library's."""

    def make(path: Path) -> None:
        with edited(path) as connection:
            for statement in statements:
                connection.execute(statement)

    return in_place(make)


APPLIED = "CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)"
STEAL = "INSERT INTO loot VALUES (1)"
TRIGGER = f"CREATE TRIGGER sneaky AFTER INSERT ON vectors BEGIN {STEAL}; END"


def renamed(kind: str, of: str) -> str:
    return f"UPDATE sqlite_master SET type = '{kind}' WHERE name = '{of}'"


def endless(of: str) -> str:
    return f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS {of} FROM n"


REFUSED = "NotAStoreError"

HOSTILE: dict[str, Hostile] = {
    # --- code: triggers, expressions, views, virtual tables
    "a trigger": Hostile(run(TRIGGER), REFUSED, "trigger"),
    "a trigger whose type is written in capitals": Hostile(
        run(TRIGGER, renamed("TRIGGER", "sneaky")), REFUSED, "trigger"
    ),
    "a trigger on the table of migrations": Hostile(
        run(f"CREATE TRIGGER sneaky AFTER INSERT ON _sqlite_migrations BEGIN {STEAL}; END"), REFUSED, "trigger"
    ),
    "a trigger in a file without tables": Hostile(
        new_file(
            APPLIED,
            "CREATE TRIGGER idx__sqlite_migrations_migration_set_name AFTER INSERT ON _sqlite_migrations "
            "BEGIN UPDATE _sqlite_migrations SET applied_at = 'stolen'; END",
        ),
        REFUSED,
        "trigger",
    ),
    "an index on an expression": Hostile(run("CREATE INDEX i ON documents (hex(vector_id))"), REFUSED, "expression"),
    "an index on an expression without brackets": Hostile(
        run("CREATE INDEX i ON vectors (-dim)"), REFUSED, "expression"
    ),
    "a partial index": Hostile(run("CREATE INDEX i ON vectors (dim) WHERE hex(dim) = 8"), REFUSED, "expression"),
    "an index on an expression, of a table in capitals": Hostile(
        run("CREATE INDEX i ON VECTORS (-dim)", "UPDATE sqlite_master SET tbl_name = 'VECTORS' WHERE name = 'i'"),
        REFUSED,
        "expression",
    ),
    "migrations with a CHECK": Hostile(
        new_file(
            "CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set, name, applied_at CHECK (1 > 0))"
        ),
        REFUSED,
        "expression",
    ),
    "migrations that are a view": Hostile(
        new_file("CREATE VIEW _sqlite_migrations AS SELECT 1 AS migration_set, 2 AS name, 3 AS applied_at"),
        REFUSED,
        "expression",
    ),
    "migrations that were never run": Hostile(
        new_file(
            APPLIED,
            "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('embstore', 'm001_initial'), "
            "('embstore', 'm002_speeds_and_texts'), ('embstore', 'm003_float16'), "
            "('embstore', 'm004_bytes_and_usage'), ('embstore', 'm005_leases')",
        ),
        REFUSED,
        "list of migrations",
    ),
    "a table that deletes with ours": Hostile(
        run("CREATE TABLE theirs (x REFERENCES vectors ON DELETE CASCADE)"), REFUSED, "refers to one of ours"
    ),
    "a generated column in our table": Hostile(
        run(
            "UPDATE sqlite_master SET sql = replace(sql, 'checksum INTEGER NOT NULL', "
            f"'checksum INTEGER NOT NULL, g INTEGER AS ({TRAP})') WHERE name = 'vectors'"
        ),
        REFUSED,
        "changed",
    ),
    "a CHECK of theirs in our table": Hostile(
        run(f"UPDATE sqlite_master SET sql = replace(sql, 'dim > 0', 'dim > {TRAP}') WHERE name = 'vectors'"),
        REFUSED,
        "changed",
    ),
    "a default of theirs in our table": Hostile(
        run("UPDATE sqlite_master SET sql = replace(sql, 'text TEXT NOT NULL', 'text TEXT DEFAULT (hex(9))')"),
        REFUSED,
        "changed",
    ),
    "another collation in our table": Hostile(
        run("UPDATE sqlite_master SET sql = replace(sql, 'doc_id TEXT NOT NULL', 'doc_id TEXT COLLATE NOCASE')"),
        REFUSED,
        "changed",
    ),
    "a view in the place of our table": Hostile(
        run("DROP VIEW embeddings", "DROP TABLE encodings", "CREATE VIEW encodings AS SELECT 1 AS model_id"),
        REFUSED,
        "changed",
    ),
    "an endless view in the place of ours": Hostile(
        run("DROP VIEW embeddings", f"CREATE VIEW embeddings AS {endless('doc_id')}"), REFUSED, "changed"
    ),
    "a virtual table in the place of ours": Hostile(
        run("DROP TABLE encodings", "CREATE VIRTUAL TABLE encodings USING fts5(model_id, n_texts)"), REFUSED, "changed"
    ),
    "an endless view beside ours": Hostile(run(f"CREATE VIEW theirs AS {endless('x')}")),
    "tables named like SQLite's functions": Hostile(
        run(*(f"CREATE TABLE {name} (x CHECK ({TRAP} > 0))" for name in ("json_each", "pragma_table_info", "csv")))
    ),
    "a virtual table beside ours": Hostile(
        run("CREATE VIRTUAL TABLE theirs USING fts5(x)", "INSERT INTO theirs VALUES ('a')")
    ),
    "a virtual table of no known module": Hostile(
        run(
            "INSERT INTO sqlite_master "
            "VALUES ('table', 'theirs', 'theirs', 0, 'CREATE VIRTUAL TABLE theirs USING evil(x)')"
        )
    ),
    "a CHECK in a table beside ours": Hostile(
        run(
            f"CREATE TABLE theirs (x CHECK ({TRAP} > 0))",
            "PRAGMA ignore_check_constraints = ON",
            "INSERT INTO theirs VALUES (1)",
        )
    ),
    "statistics that lie": Hostile(
        run(
            "ANALYZE",
            "DELETE FROM sqlite_stat1",
            "INSERT INTO sqlite_stat1 VALUES ('documents', 'documents_by_vector', '1 1'), "
            "('vectors', 'sqlite_autoindex_vectors_1', '9000000000 9000000000 1'), ('models', NULL, 'sz=-1 x'), "
            "('documents', 'documents', hex(zeroblob(100000)))",
        )
    ),
    "ids that are used up": Hostile(run("UPDATE sqlite_sequence SET seq = 9223372036854775807")),
    # --- whose file it is
    "a newer schema": Hostile(run("PRAGMA user_version = 99"), "NewerStoreError", "upgrade embstore"),
    "another application's": Hostile(run("PRAGMA application_id = 7"), REFUSED, "another application"),
    "a version that lies": Hostile(run("PRAGMA user_version = 1"), REFUSED, "changed"),
    "our version without our tables": Hostile(run("DROP VIEW embeddings", "DROP TABLE vectors"), REFUSED, "changed"),
    "an entry of the schema with a NUL": Hostile(
        run(TRIGGER, "UPDATE sqlite_master SET type = CAST(x'7472696767657200' AS TEXT) WHERE name = 'sneaky'"),
        REFUSED,
        "schema",
    ),
    "a name that is not UTF-8": Hostile(
        run("CREATE TABLE theirs (x)", "UPDATE sqlite_master SET name = CAST(x'ff41' AS TEXT) WHERE name = 'theirs'"),
        "DamagedStoreError",
        "verify",
    ),
    "SQL that leads into itself": Hostile(
        run(f"INSERT INTO sqlite_master VALUES ('view', 'v', 'v', 0, 'CREATE VIEW v AS SELECT {'(' * 5000}1')"),
        "DamagedStoreError",
        "",
    ),
    "an enormous number of pages": Hostile(header(28, 2**31 - 1), "DamagedStoreError", "damaged"),
    "not a database": Hostile(lambda path: path.write_bytes(os.urandom(10_000)), REFUSED, "not an SQLite database"),
    # --- rows with checksums that fit
    "a dim of 2**31": Hostile(forged_model(dim=2**31, canary=None), tells="model"),
    "a dim of 0": Hostile(forged_model(dim=0, canary=None), tells="model"),
    "a negative dim": Hostile(forged_model(dim=-8, canary=None), tells="model"),
    "a dim that is a text": Hostile(forged_model(dim="8"), tells="model"),
    "a dim that is more than the file": Hostile(many_pointers, tells="vectors"),
    "a canary of NaN": Hostile(forged_model(canary=np.full(8, np.nan, np.float32).tobytes()), tells="model"),
    "a canary of another length": Hostile(forged_model(canary=bytes(4)), tells="model"),
    "a date that is a number": Hostile(forged_model(created_at=1), tells="model"),
    "a name that is a number": Hostile(forged_model(settings=7), tells="model"),
    "settings that are deep": Hostile(
        forged_model(settings='{"a":' + "[" * 30_000 + "]" * 30_000 + "}"), tells="model"
    ),
    "settings that are long": Hostile(forged_model(settings=json.dumps({"a": "x" * 10**6})), tells="model"),
    "settings of a long number": Hostile(forged_model(settings='{"a":' + "9" * 20_000 + "}"), tells="model"),
    "NaN in a vector": Hostile(forged_vector(np.array([np.nan] + [0] * 7, np.float32)), tells="vectors"),
    "infinity in a vector": Hostile(forged_vector(np.array([0] * 7 + [-np.inf], np.float32)), tells="vectors"),
    "metadata that are deep": Hostile(
        forged_text("metadata", '{"year":' + "[" * 10**5 + "]" * 10**5 + "}"), fails="search"
    ),
    "metadata that are no JSON": Hostile(forged_text("metadata", "__import__('os')"), fails="search"),
    "metadata that are a list": Hostile(forged_text("metadata", "[1]"), fails="search"),
    # --- rows of other types and lengths
    **{
        f"{kind} in {table}.{column}": Hostile(
            loosely(f"UPDATE {table} SET {column} = {value} WHERE {where}"),
            tells=table if table != "models" else "model",
        )
        for table, column, where in [
            ("models", "model_name", "model_name = 'fake'"),
            ("vectors", "content_hash", "vector_id = 1"),
            ("vectors", "vector", "vector_id = 1"),
            ("vectors", "model_id", "vector_id = 2"),
            ("documents", "doc_id", "doc_id = 'doc 2'"),
            ("documents", "collection", "doc_id = 'doc 2'"),
            ("documents", "vector_id", "doc_id = 'doc 3'"),
            ("documents", "checksum", "doc_id = 'doc 3'"),
            ("texts", "metadata", "doc_id = 'doc 2'"),
            ("texts", "doc_id", "doc_id = 'doc 2'"),
            ("collections", "n_texts", "1"),
            ("encodings", "seconds", "1"),
            ("byte_values", "value", "1"),
            ("usage", "encode_s", "1"),
        ]
        for kind, value in {
            "a blob": "x'00ff'",
            "no UTF-8": "CAST(x'ff00fe' AS TEXT)",
            "a fraction": "1e300",
            "a NUL": "CAST(x'610062' AS TEXT)",
        }.items()
    },
}


def oversized(n_bytes: int) -> dict[str, Hostile]:
    """Values of such a length, in a file that is small itself."""
    key = content_hash(TEXTS["doc 1"])

    def vector(path: Path) -> None:
        claim(path, "vectors", 2, [None, model_id(path), key, n_bytes // 4, 0, 0, Claimed(n_bytes)])

    def settings(path: Path) -> None:
        claim(path, "models", model_id(path), [None, "fake", Claimed(n_bytes, is_text=True)])

    def canary(path: Path) -> None:
        claim(path, "models", model_id(path), [None, "fake", "{}", 8, "float32", Claimed(n_bytes)])

    def text(path: Path) -> None:
        claim(path, "texts", 2, [None, "documents", "doc 1", key, "{}", Claimed(n_bytes, is_text=True)])

    def doc_id(path: Path) -> None:
        claim(path, "texts", 2, [None, "documents", Claimed(n_bytes, is_text=True)])

    return {
        "a vector of that length": Hostile(vector, tells="vectors"),
        "settings of that length": Hostile(settings, tells="models"),
        "a canary of that length": Hostile(canary, tells="models"),
        "a text of that length": Hostile(text, tells="texts"),
        "a doc_id of that length": Hostile(doc_id, tells="texts"),
    }


ENDLESS: dict[str, Hostile] = {
    f"pages of {table} that lead back to themselves": Hostile(
        lambda path, table=table: lead_back(path, table), tells=f"{table}: cannot be read"
    )
    for table in ("vectors", "documents", "texts")
}

PLACES: dict[str, Hostile] = {
    "a pipe": Hostile(in_place(pipe), "StorePathError", "not a file"),
    "a folder": Hostile(in_place(Path.mkdir), "StorePathError", "not a file"),
    "a device": Hostile(in_place(lambda path: path.symlink_to("/dev/zero")), "StorePathError", "not a file"),
    "a link to itself": Hostile(in_place(lambda path: path.symlink_to(path)), "StorePathError", ""),
    "a pipe for a journal": Hostile(beside("-journal", pipe), "StorePathError", "no file"),
    "a pipe for a WAL": Hostile(beside("-wal", pipe), "StorePathError", "no file"),
    "a device for an index of the WAL": Hostile(
        beside("-shm", lambda path: path.symlink_to("/dev/zero")), "StorePathError", "no file"
    ),
    "a journal that deletes a file": Hostile(evil_journal, "UnsafeStoreError", "several files"),
    "a journal of nonsense": Hostile(beside("-journal", lambda path: path.write_bytes(os.urandom(5000)))),
    "a WAL of nonsense": Hostile(
        beside("-wal", lambda path: path.write_bytes(os.urandom(5000))),
        "" if wal_is_fixed(sqlite3.sqlite_version_info) else "UnsafeStoreError",
        "" if wal_is_fixed(sqlite3.sqlite_version_info) else "WAL mode",
    ),
}
