"""From schema version 3 to 4, which has bytes by key and counts of use: every row stays as it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from embstore._migrations.migrations import migrations
from sqlite_utils import Database

from embstore import EmbeddingCache, StoreError
from embstore.errors import ReadOnlyError
from embstore.stores import schema
from tests.files import connection, define, dump, rows
from tests.golden import make_golden as golden

GOLDEN = golden.FOLDER / "schema_3.db"
MIGRATIONS = Path(__file__).parent.parent / "migrations"
OLD_TABLES = ("models", "vectors", "documents", "encodings", "collections", "texts", "sqlite_sequence")
NEW_TABLES = ("byte_values", "usage")

Rows = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def version_3(cache_path: Path) -> Path:
    return Path(shutil.copyfile(GOLDEN, cache_path))


def version_of(path: Path) -> int:
    version: int = rows(path, "PRAGMA user_version")[0][0]
    return version


def old_rows(path: Path) -> Rows:
    tables = dump(path)
    return {table: tables[table] for table in OLD_TABLES}


def check_migrated(path: Path, before: Rows) -> None:
    """The file has the schema of a new one, every row that it had, and none in its new tables."""
    assert version_of(path) == schema.SCHEMA_VERSION
    assert old_rows(path) == before
    tables = dump(path)
    assert [tables[table] for table in NEW_TABLES] == [[], []]
    with connection(path) as opened:
        objects = opened.execute(schema.OBJECTS).fetchall()
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert schema.fingerprint(objects) == schema.FINGERPRINTS[schema.SCHEMA_VERSION]
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []


def test_a_file_of_version_3_keeps_every_row(version_3: Path) -> None:
    before = old_rows(version_3)
    assert version_of(version_3) == 3
    assert all(before.values())
    EmbeddingCache(version_3).close()
    check_migrated(version_3, before)


def test_what_version_3_stored_is_found_and_more_is_stored_beside_it(version_3: Path) -> None:
    golden.HALF.texts.clear()
    with EmbeddingCache(version_3) as cache:
        assert cache.embed(["one"], golden.HALF).tolist() == golden.HALF.vectors(["one"]).tolist()
        cache.store.byte_values.mset({"a": b"1"})
        assert cache.store.byte_values.mget(["a", "b"]) == [b"1", None]
        assert cache.verify() == []


def test_sqlite_utils_migrates_it_the_same(version_3: Path) -> None:
    before = old_rows(version_3)
    command = [sys.executable, "-m", "sqlite_utils", "migrate", str(version_3), str(MIGRATIONS)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    check_migrated(version_3, before)


def test_processes_that_open_it_at_once_migrate_it_once(version_3: Path) -> None:
    before = old_rows(version_3)
    script = "import sys; from embstore import EmbeddingCache; EmbeddingCache(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(version_3)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    check_migrated(version_3, before)


@pytest.mark.parametrize("seed", range(3))
def test_a_migration_that_is_killed_leaves_version_3_or_4(seed: int, version_3: Path) -> None:
    before, rng = old_rows(version_3), random.Random(seed)
    script = "import sys; from embstore import EmbeddingCache; from sqlite_utils import Database; print(flush=True)"
    script += "; EmbeddingCache(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", script, str(version_3)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(rng.uniform(0, 0.08))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    EmbeddingCache(version_3).close()  # rolls back what was left, and migrates where that was not done
    check_migrated(version_3, before)


@pytest.mark.parametrize("name", NEW_TABLES)
def test_a_file_with_somebodys_table_of_such_a_name_is_left_as_it_is(name: str, version_3: Path) -> None:
    define(version_3, f"CREATE TABLE {name} (note TEXT)")
    before = dump(version_3)
    with pytest.raises(StoreError, match="somebody changed them"):
        EmbeddingCache(version_3)
    assert dump(version_3) == before


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_file_that_can_only_be_read_has_no_bytes_and_no_counts(
    version: int, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [migration.name for migration in migrations.pending(Database(memory=True))]
    database = Database(str(cache_path))
    migrations.apply(database, stop_before=names[version])
    database.close()
    before = cache_path.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with EmbeddingCache(cache_path) as cache:
        values = cache.store.byte_values
        assert (values.mget(["a"]), list(values.keys()), values.mdelete(["a"])) == ([None], [], 0)
        assert (cache.verify(), cache.stats().models) == ([], ())
        with pytest.raises(ReadOnlyError):
            values.mset({"a": b"1"})
    assert cache_path.read_bytes() == before
