"""Bringing the tables of a server up to date, once whoever asks for it first, and what else must be as we need it."""

from __future__ import annotations

from collections import defaultdict
from importlib import resources
from typing import Any

from embstore.errors import NotAStoreError, ReadOnlyError, StoreError, UnsafeStoreError
from embstore.stores.postgres.connection import BEGIN_MIGRATING, Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.schema import MIGRATIONS, SCHEMA_VERSION, TABLES, check_known
from embstore.stores.postgres.server_errors import DUPLICATE_OBJECT, DUPLICATE_TABLE, UNIQUE_VIOLATION

# In the schema that a new table would be in, and in no other of the search_path.
COLUMNS = f"""
SELECT pg_class.relname, pg_attribute.attname
FROM pg_class
JOIN pg_attribute ON pg_attribute.attrelid = pg_class.oid
WHERE pg_class.relnamespace = current_schema()::regnamespace AND pg_class.relkind IN ('r', 'p', 'v')
    AND pg_class.relname IN ({", ".join(f"'{name}'" for name in TABLES)})
    AND pg_attribute.attnum > 0 AND NOT pg_attribute.attisdropped
ORDER BY pg_class.relname, pg_attribute.attnum
"""

SITUATION = """
SELECT current_schema(), current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('default_transaction_read_only') = 'on'
"""

MAY_CREATE = """
SELECT has_schema_privilege(current_schema(), 'CREATE')
"""

MAY_WRITE = f"""
SELECT bool_and(has_table_privilege(name::regclass, privilege))
FROM unnest(ARRAY[{", ".join(f"'{name}'" for name in TABLES if name not in ("embeddings", MIGRATIONS))}]) AS name
CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS privilege
"""

VERSION = f"""
SELECT max(version)
FROM {MIGRATIONS}
"""

CREATE_MIGRATIONS = f"""
CREATE TABLE IF NOT EXISTS {MIGRATIONS} (version INTEGER PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())
"""

ADD_VERSION = f"""
INSERT INTO {MIGRATIONS} (version)
VALUES (%s)
ON CONFLICT (version) DO NOTHING
"""

# Whoever has it migrates, and everyone else waits. A lock of a row is one everywhere; others are none on some servers.
LOCK = f"""
SELECT version
FROM {MIGRATIONS}
WHERE version = 0
FOR UPDATE
"""

_MADE_AT_ONCE = (UNIQUE_VIOLATION, DUPLICATE_TABLE, DUPLICATE_OBJECT)
_ATTEMPTS = 20


def prepare(server: Server) -> bool:
    """Make or migrate the tables where that is needed, and tell whether they can only be read.

    Raises
    ------
    NotAStoreError, NewerStoreError, UnsafeStoreError, StoreError
        Nothing was changed.
    ReadOnlyError
        There are no tables, or older ones, and this role may not make them.
    """
    with server.reading() as connection:
        schema, encoding, is_standby, is_reader = connection.execute(SITUATION).fetchall()[0]
        check_schema(schema, encoding, server.location)
        version = find_version(connection, server.location)
        can_only_read = is_standby or is_reader
        may_create = connection.execute(MAY_CREATE).fetchall()[0][0]
    if version < SCHEMA_VERSION:
        if can_only_read or not may_create:
            raise ReadOnlyError(
                f"schema {schema!r} of {server.location!r} has no tables of embstore of schema version "
                f"{SCHEMA_VERSION}, and this role cannot make them; let its owner run `embstore migrate` once",
                path=server.location,
            )
        migrate(server)
    return bool(can_only_read or not server.fetch(MAY_WRITE)[0][0])


def find_version(connection: Connection, location: str) -> int:
    """Tell the schema version of the tables, 0 where there are none.

    Raises
    ------
    NotAStoreError
        Tables of our names are not ours.
    NewerStoreError
    """
    columns_of = defaultdict[str, list[str]](list)
    for table, column in connection.execute(COLUMNS).fetchall():
        columns_of[table].append(column)
    if not columns_of:
        return 0
    if columns_of.get(MIGRATIONS) == TABLES[MIGRATIONS].split():
        version = int(connection.execute(VERSION).fetchall()[0][0] or 0)
        check_known(version, location)
        if version < SCHEMA_VERSION:
            return version
        changed = [name for name, columns in TABLES.items() if columns_of.get(name) != columns.split()]
    else:
        changed = list(columns_of)
        version = -1
    if changed:
        raise NotAStoreError(
            f"the table {changed[0]!r} of {location!r} is not the one that embstore makes; give it a schema of its "
            f"own, by options=-csearch_path%3DNAME in the URL",
            path=location,
        )
    return version


def migrate(server: Server) -> None:
    """Apply what is missing, all in one transaction, whatever others do the same at once."""
    for _ in range(_ATTEMPTS):
        try:
            server.write(_apply, begin=BEGIN_MIGRATING)
            return
        except StoreError as error:
            if getattr(error.__cause__, "sqlstate", None) not in _MADE_AT_ONCE:
                raise
    raise StoreError(f"{server.location!r}: others make its tables, again and again", path=server.location)


def _apply(connection: Connection) -> None:
    connection.execute(CREATE_MIGRATIONS)
    connection.execute(ADD_VERSION, (0,))
    connection.execute(LOCK)
    version = connection.execute(VERSION).fetchall()[0][0]
    for number, statements in _numbered():
        if number > version:
            connection.execute(statements, prepare=False)
            connection.execute(ADD_VERSION, (number,))


def _numbered() -> list[tuple[int, Any]]:
    files = [file for file in resources.files("embstore._migrations.postgres").iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name.partition("_")[0]), file.read_text(encoding="utf-8")) for file in files)


def check_schema(schema: str | None, encoding: str, location: str) -> None:
    """Refuse a database in which tables have no place, or not every text has.

    Raises
    ------
    NotAStoreError, UnsafeStoreError
    """
    if schema is None:
        raise NotAStoreError(
            f"no schema of the search_path of {location!r} is there, or this role may not use it; create one, and "
            f"grant USAGE on it",
            path=location,
        )
    if encoding != "UTF8":
        raise UnsafeStoreError(
            f"the database of {location!r} has the encoding {encoding}, which not every text can be written in; create "
            f"one with ENCODING 'UTF8'",
            path=location,
        )
