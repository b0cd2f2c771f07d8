"""A server for a run, which survives power cuts as one in production does, or the one that is named."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote

from benchmarks.corpus import Documents
from benchmarks.postgres.rivals import OnServer, PgvectorColumn
from tests.postgres import NAMED, in_schema, own_server

MEMORY = {"shared_buffers": "512MB", "max_wal_size": "4GB"}

SIZES = """
SELECT sum(pg_total_relation_size(oid)), sum(pg_indexes_size(oid))
FROM pg_class
WHERE relkind = 'r' AND relnamespace = %s::regnamespace
"""


class Server:
    """Where each competitor gets a schema of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _connection(self) -> Any:
        import psycopg

        connection = psycopg.connect(self.url, autocommit=True)
        connection.execute("SET client_min_messages = warning")
        return connection

    def rival(self, kind: type[OnServer], documents: Documents) -> OnServer:
        """Give one, closed, in a schema that is new."""
        schema = f"embstore_bench_{secrets.token_hex(6)}"
        self._connection.execute(f"CREATE SCHEMA {schema}")
        if kind is PgvectorColumn:
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            return kind(in_schema(self.url, f"{schema},public"), kind.share(documents))
        return kind(in_schema(self.url, schema), kind.share(documents))

    def drop(self, rival: OnServer) -> None:
        self._connection.execute(f"DROP SCHEMA {schema_of(rival)} CASCADE")

    def bytes_a_row(self, rival: OnServer, n: int) -> tuple[float, float]:
        """Give what each of n rows takes in tables with their indexes, and in indexes alone; no write-ahead log."""
        self._connection.execute("VACUUM")
        (whole, indexes) = self._connection.execute(SIZES, (schema_of(rival),)).fetchone()
        return int(whole) / n, int(indexes) / n

    def settle(self) -> None:
        """Have what others wrote in its place before it is somebody's turn."""
        self._connection.execute("CHECKPOINT")

    def analyze(self) -> None:
        """Have the planner know all tables, as it does some time after they were filled."""
        self._connection.execute("VACUUM ANALYZE")

    def describe(self) -> dict[str, str]:
        """Give what tells how fast it can be."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
        return {name: self._connection.execute(f"SHOW {name}").fetchone()[0] for name in names}

    def close(self) -> None:
        self._connection.close()


def schema_of(rival: OnServer) -> str:
    """Give the schema at the end of its URL."""
    return rival.url.rpartition(quote("search_path=", safe=""))[2].split("%2C")[0]


@contextmanager
def running() -> Iterator[Server]:
    if NAMED in os.environ:
        server = Server(os.environ[NAMED])
        yield server
        server.close()
        return
    with own_server(durable=True, settings=MEMORY) as own:
        server = Server(own.url)
        yield server
        server.close()
