"""What a file of ours looks like, and the refusal of any other before a row is read."""

from __future__ import annotations

import hashlib
from sqlite3 import Connection

from embstore.errors import NewerStoreError, NotAStoreError

APPLICATION_ID = 0x656D6273  # "embs"
SCHEMA_VERSION = 3
OLDEST_READABLE = 1  # what a file that cannot be written, and so not migrated, must have

# SHA-256 of what sqlite_master holds of our objects, by version; tests/test_schema.py computes them anew.
FINGERPRINTS = {
    1: "1be47dbd7965f14cb3bed86b5469b2cef65b4809c7c412f912ff83c91108565f",
    2: "e8cdf8bbe14b12853e3c77ce9fcc6e765640a95446868dfc3e9afecdc6e561f2",
    3: "c805dc1e4e0a5d779e094c575247e290cc9b017baef32a214986347bb5445423",
}

_OURS = {
    *("models", "vectors", "documents", "documents_by_vector", "embeddings"),
    *("encodings", "collections", "texts"),
}
_BOOKKEEPING = {"_sqlite_migrations", "idx__sqlite_migrations_migration_set_name", "sqlite_sequence"}

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
        The file is another application's, has a trigger, or our schema was changed.
    NewerStoreError
        It was made by a newer version.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    version = user_version(connection)
    objects = connection.execute(OBJECTS).fetchall()
    if application_id == 0 and version == 0 and {name for _, name, _, _ in objects} <= _BOOKKEEPING:
        return 0
    if application_id != APPLICATION_ID:
        raise NotAStoreError(
            f"{path!r} is an SQLite database of another application (application_id {application_id}); "
            f"give embstore a file of its own",
            path=path,
        )
    check_known(version, path)
    for name in triggers(objects):
        raise NotAStoreError(
            f"{path!r} has a trigger ({name!r}), which would run inside our writes; drop it", path=path
        )
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


def triggers(objects: list[tuple[str, str, str, str | None]]) -> list[str]:
    """Name the triggers of a file."""
    return [name for kind, name, _, _ in objects if kind == "trigger"]


def fingerprint(objects: list[tuple[str, str, str, str | None]]) -> str:
    """Hash the definitions of our tables, indexes and views; others beside them do not count."""
    ours = [row for row in objects if row[1] in _OURS]
    return hashlib.sha256(repr(ours).encode("utf-8", "surrogatepass")).hexdigest()
