"""From schema version 4 to 5, which has leases on texts: every row stays as it was."""

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

from embstore import EmbeddingCache, StoreError
from embstore.errors import ReadOnlyError
from embstore.stores import schema
from tests.files import connection, define, dump, rows
from tests.golden import make_golden as golden

GOLDEN = golden.FOLDER / "schema_4.db"
MIGRATIONS = Path(__file__).parent.parent / "migrations"
OLD_TABLES = ("models", "vectors", "documents", "encodings", "collections", "texts", "byte_values", "usage")
NEW_TABLES = ("leases",)

Rows = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def version_4(cache_path: Path) -> Path:
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
    assert [tables[table] for table in NEW_TABLES] == [[]]
    with connection(path) as opened:
        objects = opened.execute(schema.OBJECTS).fetchall()
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert schema.fingerprint(objects) == schema.FINGERPRINTS[schema.SCHEMA_VERSION]
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []


def test_a_file_of_version_4_keeps_every_row(version_4: Path) -> None:
    before = old_rows(version_4)
    assert version_of(version_4) == 4
    assert all(before.values())
    EmbeddingCache(version_4).close()
    check_migrated(version_4, before)


def test_what_version_4_stored_is_found(version_4: Path) -> None:
    golden.HALF.texts.clear()
    with EmbeddingCache(version_4) as cache:
        assert cache.embed(["one"], golden.HALF).tolist() == golden.HALF.vectors(["one"]).tolist()
        assert "one" not in golden.HALF.texts
        assert cache.store.byte_values.mget(list(golden.BYTE_VALUES)) == list(golden.BYTE_VALUES.values())
        assert cache.verify() == []


def test_sqlite_utils_migrates_it_the_same(version_4: Path) -> None:
    before = old_rows(version_4)
    command = [sys.executable, "-m", "sqlite_utils", "migrate", str(version_4), str(MIGRATIONS)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    check_migrated(version_4, before)


def test_processes_that_open_it_at_once_migrate_it_once(version_4: Path) -> None:
    before = old_rows(version_4)
    script = "import sys; from embstore import EmbeddingCache; EmbeddingCache(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(version_4)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    check_migrated(version_4, before)


@pytest.mark.parametrize("seed", range(3))
def test_a_migration_that_is_killed_leaves_version_4_or_5(seed: int, version_4: Path) -> None:
    before, rng = old_rows(version_4), random.Random(seed)
    script = "import sys; from embstore import EmbeddingCache; from sqlite_utils import Database; print(flush=True)"
    script += "; EmbeddingCache(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", script, str(version_4)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(rng.uniform(0, 0.08))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    EmbeddingCache(version_4).close()  # rolls back what was left, and migrates where that was not done
    check_migrated(version_4, before)


@pytest.mark.parametrize("name", NEW_TABLES)
def test_a_file_with_somebodys_table_of_such_a_name_is_left_as_it_is(name: str, version_4: Path) -> None:
    define(version_4, f"CREATE TABLE {name} (note TEXT)")
    before = dump(version_4)
    with pytest.raises(StoreError, match="somebody changed them"):
        EmbeddingCache(version_4)
    assert dump(version_4) == before


def test_a_file_of_version_4_that_can_only_be_read_is_left_as_it_is(
    version_4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = version_4.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with EmbeddingCache(version_4) as cache:
        assert cache.embed(["one"], golden.HALF).tolist() == golden.HALF.vectors(["one"]).tolist()
        assert cache.verify() == []
        with pytest.raises(ReadOnlyError):
            cache.embed(["new"], golden.HALF)
    assert version_4.read_bytes() == before
