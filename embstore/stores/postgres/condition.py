"""What can be told of a server and its tables without changing them."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from embstore.stores.opening import checked_timeout
from embstore.stores.postgres.connecting import Connector
from embstore.stores.postgres.migrating import MAY_CREATE, MAY_WRITE, SITUATION, check_schema, find_version
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.schema import SCHEMA_VERSION, TABLES
from embstore.stores.postgres.server_errors import translated
from embstore.stores.postgres.url import read_url

SERVER = """
SELECT version(), current_user, pg_backend_pid(), current_setting('default_transaction_isolation'),
    current_setting('synchronous_commit'), current_setting('statement_timeout')
"""

SIZE = f"""
SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
FROM pg_class
WHERE pg_class.relnamespace = current_schema()::regnamespace AND pg_class.relkind IN ('r', 'p')
    AND pg_class.relname IN ({", ".join(f"'{name}'" for name in TABLES)})
"""


@dataclass(frozen=True)
class ServerCondition:
    """A server as it is.

    Attributes
    ----------
    location : str
        The URL without secrets.
    version : str
        As the server says it, with what it is built for.
    role, schema : str
        Who is connected, and where its tables are.
    isolation : str
        That of transactions that say none; embstore says it in each.
    synchronous_commit, statement_timeout : str
        Of this role.
    has_pooler : bool
        Something between lends connections.
    is_standby : bool
    schema_version : int
        Of its tables, 0 where there are none.
    size_bytes : int
        Of its tables with their indexes.
    can_write, can_create : bool
        What the role may do with its tables, and whether it may make or migrate them.
    """

    location: str
    version: str
    role: str
    schema: str
    isolation: str
    synchronous_commit: str
    statement_timeout: str
    has_pooler: bool
    is_standby: bool
    schema_version: int
    size_bytes: int
    can_write: bool
    can_create: bool


def read_condition(url: str, *, timeout_s: float = 30.0) -> ServerCondition:
    """Tell how a server is, without changing anything there.

    Raises
    ------
    StoreError, InvalidInputError
        It cannot be used; the subclass and the message say why.
    """
    read, timeout_s = read_url(url), checked_timeout(timeout_s)
    with Connector(read, timeout_s)() as connection:
        try:
            return _read(connection, read.location)
        except psycopg.Error as error:
            raise translated(error, read.location, timeout_s) from error


def _read(connection: Connection, location: str) -> ServerCondition:
    version, role, pid, isolation, synchronous_commit, statement_timeout = connection.execute(SERVER).fetchall()[0]
    schema, encoding, is_standby, is_reader = connection.execute(SITUATION).fetchall()[0]
    check_schema(schema, encoding, location)
    schema_version = find_version(connection, location)
    can_change = not (is_standby or is_reader)
    is_current = schema_version == SCHEMA_VERSION
    return ServerCondition(
        location=location,
        version=version,
        role=role,
        schema=schema,
        isolation=isolation,
        synchronous_commit=synchronous_commit,
        statement_timeout=statement_timeout,
        has_pooler=connection.info.backend_pid != pid,
        is_standby=is_standby,
        schema_version=schema_version,
        size_bytes=connection.execute(SIZE).fetchall()[0][0],
        can_write=can_change and is_current and connection.execute(MAY_WRITE).fetchall()[0][0],
        can_create=can_change and connection.execute(MAY_CREATE).fetchall()[0][0],
    )
