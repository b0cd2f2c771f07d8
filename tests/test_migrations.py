"""The schema as sqlite-utils migrations: what the command line makes is a cache file too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embstore._migrations.migrations import migrations
from sqlite_utils import Database

from embstore import EmbeddingCache
from embstore.stores import schema
from tests.fakes import CountingEncoder
from tests.files import connection, rows

MIGRATIONS = Path(__file__).parent.parent / "migrations"


def sqlite_utils(*arguments: object) -> str:
    command = [sys.executable, "-m", "sqlite_utils", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sqlite_utils_migrate_makes_a_file_that_a_cache_opens_and_fills(
    cache_path: Path, encoder: CountingEncoder
) -> None:
    sqlite_utils("migrate", cache_path, MIGRATIONS)
    with EmbeddingCache(cache_path) as cache:
        assert len(cache) == 0
        assert np.array_equal(cache.get("a", "text", encoder), encoder.vector("text"))
        assert cache.verify() == []
    assert len(rows(cache_path, "SELECT * FROM embeddings")) == 1


def test_sqlite_utils_migrate_on_a_file_of_a_cache_changes_nothing(cache_path: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
    before = cache_path.read_bytes()
    sqlite_utils("migrate", cache_path, MIGRATIONS)
    assert cache_path.read_bytes() == before
    assert "m001_initial" in sqlite_utils("migrate", cache_path, MIGRATIONS, "--list")


def test_a_file_that_sqlite_utils_made_is_the_same_as_one_that_a_cache_made(tmp_path: Path) -> None:
    by_tool, by_cache = tmp_path / "tool.db", tmp_path / "cache.db"
    sqlite_utils("migrate", by_tool, MIGRATIONS)
    EmbeddingCache(by_cache).close()
    found = []
    for path in (by_tool, by_cache):
        with connection(path) as opened:
            found.append(
                (
                    schema.fingerprint(opened.execute(schema.OBJECTS).fetchall()),
                    opened.execute("PRAGMA application_id").fetchone(),
                    opened.execute("PRAGMA user_version").fetchone(),
                    opened.execute("SELECT migration_set, name FROM _sqlite_migrations").fetchall(),
                )
            )
    assert found[0] == found[1]


def test_an_empty_file_counts_as_new(cache_path: Path, encoder: CountingEncoder) -> None:
    cache_path.touch()
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
        assert cache.verify() == []
    assert rows(cache_path, "PRAGMA page_size") == [(65536,)]


def test_a_database_without_tables_counts_as_new(cache_path: Path, encoder: CountingEncoder) -> None:
    sqlite_utils("create-database", cache_path)
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
        assert cache.verify() == []


@pytest.mark.parametrize("n", range(1, schema.SCHEMA_VERSION + 1))
def test_each_migration_leads_to_the_version_of_its_number(n: int, cache_path: Path) -> None:
    names = [migration.name for migration in migrations.pending(Database(memory=True))]
    assert len(names) == schema.SCHEMA_VERSION
    database = Database(str(cache_path))
    migrations.apply(database, stop_before=names[n] if n < len(names) else None)
    database.close()
    with connection(cache_path) as opened:
        objects = opened.execute(schema.OBJECTS).fetchall()
        assert opened.execute("PRAGMA user_version").fetchone() == (n,)
    assert schema.fingerprint(objects) == schema.FINGERPRINTS[n]


def test_opening_a_file_that_needs_no_migration_loads_no_sqlite_utils(cache_path: Path) -> None:
    EmbeddingCache(cache_path).close()
    script = "import sys; from embstore import EmbeddingCache; EmbeddingCache(sys.argv[1]).close();"
    script += "print('sqlite_utils' in sys.modules)"
    command = [sys.executable, "-c", script, str(cache_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    assert done.stdout == "False\n"
