"""What a file of ours looks like, and the refusal of any other before a row is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from sqlite3 import Connection

from embstore.errors import NewerStoreError, NotAStoreError

APPLICATION_ID = 0x656D6273  # "embs"
SCHEMA_VERSION = 5
OLDEST_READABLE = 1  # what a file that cannot be written, and so not migrated, must have

# SHA-256 of what sqlite_master holds of our objects, by version; tests/test_schema.py computes them anew.
FINGERPRINTS = {
    1: "1be47dbd7965f14cb3bed86b5469b2cef65b4809c7c412f912ff83c91108565f",
    2: "e8cdf8bbe14b12853e3c77ce9fcc6e765640a95446868dfc3e9afecdc6e561f2",
    3: "c805dc1e4e0a5d779e094c575247e290cc9b017baef32a214986347bb5445423",
    4: "875c1931e410750342fef7843caa4e5f9ff88fb8901b29ce76c87f20c0d75475",
    5: "914725fd0c33aeb803fcfbb21d612a3ffb95897c416c4cefa1e42c70774c293a",
}

TABLES = ("models", "vectors", "documents", "encodings", "collections", "texts", "byte_values", "usage", "leases")
_OURS = {*TABLES, "documents_by_vector", "embeddings"}
_MIGRATIONS = "_sqlite_migrations"
_BOOKKEEPING = {_MIGRATIONS, "idx__sqlite_migrations_migration_set_name", "sqlite_sequence"}

# What holds no expression, which SQLite would work out inside our statements: names alone, in any quotes.
_NAME = r"""(?:\w+|"[^"]*"|\[[^]]*\]|`[^`]*`)"""
_COLUMN = rf"\s*{_NAME}(?:\s+COLLATE\s+{_NAME})?(?:\s+(?:ASC|DESC))?\s*"
_PLAIN_INDEX = re.compile(
    rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+{_NAME}\s+ON\s+{_NAME}\s*\({_COLUMN}(?:,{_COLUMN})*\)\s*", re.IGNORECASE
)
_PLAIN_TABLE = re.compile(rf"CREATE\s+TABLE\s+{_NAME}\s*\([^()]*\)\s*", re.IGNORECASE)

Object = tuple[str, str, str, str | None]
"""Of an object: type, name, the name of its table, and the SQL that defines it."""

OBJECTS = """
SELECT type, name, tbl_name, sql
FROM sqlite_master
ORDER BY type, name
"""


def read_version(connection: Connection, path: str) -> int:
    """Tell which version of our schema a file has; 0 for a file without tables.

    Parameters
    ----------
    connection : sqlite3.Connection
        Nothing but the header and the table of tables is read.
    path : str
        For messages.

    Raises
    ------
    NotAStoreError
        The file is another application's, has something that would run inside our statements, or our schema was
        changed.
    NewerStoreError
        It was made by a newer version.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    version = user_version(connection)
    objects = connection.execute(OBJECTS).fetchall()
    is_new = application_id == 0 and version == 0 and {name for _, name, _, _ in objects} <= _BOOKKEEPING
    if application_id != APPLICATION_ID and not is_new:
        raise NotAStoreError(
            f"{path!r} is an SQLite database of another application (application_id {application_id}); "
            f"give embstore a file of its own",
            path=path,
        )
    check_known(version, path)
    for name, what in intruders(objects):
        raise NotAStoreError(
            f"{path!r} has {what} ({name!r}), which would run inside our statements; drop it", path=path
        )
    if is_new:
        return 0
    if fingerprint(objects) != FINGERPRINTS.get(version):
        raise NotAStoreError(
            f"the tables or views of {path!r} are not those of schema version {version}: somebody changed them",
            path=path,
        )
    return int(version)


def user_version(connection: Connection) -> int:
    """Read the schema version off the header of a file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_known(version: int, path: str) -> None:
    """Raise NewerStoreError where a schema version is newer than this embstore."""
    if version > SCHEMA_VERSION:
        raise NewerStoreError(
            f"{path!r} has schema version {version}, this embstore knows up to {SCHEMA_VERSION}; "
            f"pip install --upgrade embstore",
            path=path,
            version=version,
        )


def intruders(objects: list[Object]) -> Iterator[tuple[str, str]]:
    """Name what of others SQLite would run inside our statements, and say what it is: (name, "a trigger").

    SQLite compares types and names without regard to case, and up to a NUL. Other tables and views are never asked.
    """
    for kind, name, table, sql in objects:
        if not all(type(value) is str and "\0" not in value for value in (kind, name, table)):
            yield str(name), "an entry of the schema that is none"
        elif kind not in ("table", "view", "index"):
            yield name, f"a {kind.lower()}"
        elif kind == "index" and sql and table.lower() in {*_OURS, _MIGRATIONS} and not _PLAIN_INDEX.fullmatch(sql):
            yield name, "an index with an expression"
        elif name.lower() == _MIGRATIONS and not (sql and _PLAIN_TABLE.fullmatch(sql)):
            yield name, "a table of migrations with an expression"
        elif name not in _OURS and _refers_to_ours((sql or "").lower()):
            yield name, "a table that refers to one of ours"


def _refers_to_ours(sql: str) -> bool:
    return "references" in sql and any(table in sql for table in _OURS)


def others_hold_expressions(objects: list[Object]) -> bool:
    """Tell whether tables or indexes beside ours define something that a check of the whole file would work out."""
    plain = {"table": _PLAIN_TABLE, "index": _PLAIN_INDEX}
    theirs = [(kind, sql) for kind, name, _, sql in objects if name not in _OURS and kind in plain and sql]
    return not all(plain[kind].fullmatch(sql) for kind, sql in theirs)


def our_tables(objects: list[Object]) -> list[str]:
    """List those of our tables that a file has; one of an older schema version that can only be read lacks some."""
    return [name for kind, name, _, _ in objects if kind == "table" and name in TABLES]


def fingerprint(objects: list[Object]) -> str:
    """Hash the definitions of our tables, indexes and views; others beside them do not count."""
    ours = [row for row in objects if row[1] in _OURS]
    return hashlib.sha256(repr(ours).encode("utf-8", "surrogatepass")).hexdigest()
