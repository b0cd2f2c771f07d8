"""From schema version 1 to 2: every row as it was, and files that cannot be migrated can be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embstore._migrations.migrations import migrations
from sqlite_utils import Database

from embstore import EmbeddingCache, ModelIdentity, SemanticSearchEngine
from embstore.errors import ReadOnlyError
from embstore.inputs import hash_texts
from embstore.stores import schema
from embstore.stores.tables import documents, models, vector_writes
from tests.fakes import CountingEncoder
from tests.files import Row, connection, dump, rows

GOLDEN = Path(__file__).parent / "golden" / "schema_1.db"
OLD_TABLES = ("models", "vectors", "documents")
NEW_TABLES = ("encodings", "collections", "texts")
TEXTS = ["größer", "", "a\0b", "\ud800"]


@pytest.fixture
def version_1(cache_path: Path) -> Path:
    """A file as version 1 of the schema made it, with a model, four vectors and five documents."""
    database = Database(str(cache_path))
    migrations.apply(database, stop_before="m002_speeds_and_texts")
    database.close()
    encoder, keys = CountingEncoder(), hash_texts(TEXTS)
    with connection(cache_path, "rw") as opened:
        model = models.insert(opened, ModelIdentity("fake"), encoder.dim, None)
        vector_writes.insert(opened, model, keys, encoder.vectors(TEXTS), standalone=False)
        documents.put(opened, model, "", ["a", "b", "c", "d"], keys)
        documents.put(opened, model, "documents", ["a"], keys[:1])
        opened.commit()
    assert version_of(cache_path) == 1
    return cache_path


def version_of(path: Path) -> int:
    version: int = rows(path, "PRAGMA user_version")[0][0]
    return version


def old_rows(path: Path) -> dict[str, list[Row]]:
    tables = dump(path)
    return {table: tables[table] for table in OLD_TABLES}


def check_migrated(path: Path, before: dict[str, list[Row]]) -> None:
    """The file has the new schema, and every row that it had."""
    tables = dump(path)
    assert version_of(path) == schema.SCHEMA_VERSION
    assert {table: tables[table] for table in OLD_TABLES} == before
    assert [tables[table] for table in NEW_TABLES] == [[], [], []]
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []


def test_a_file_of_version_1_keeps_every_row(version_1: Path) -> None:
    before = old_rows(version_1)
    assert [len(found) for found in before.values()] == [1, 4, 5]
    EmbeddingCache(version_1).close()
    check_migrated(version_1, before)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden file of schema version 1 is not there")
def test_the_file_that_version_1_made_keeps_every_row(cache_path: Path) -> None:
    shutil.copyfile(GOLDEN, cache_path)
    before = old_rows(cache_path)
    assert all(before.values())
    EmbeddingCache(cache_path).close()
    check_migrated(cache_path, before)


def test_what_version_1_stored_is_not_encoded_again(version_1: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(version_1) as cache:
        assert np.array_equal(cache.get_many(["a", "b", "c", "d"], TEXTS, encoder), encoder.vectors(TEXTS))
        assert encoder.texts == TEXTS[:1]  # the oldest hit, by which a model without a canary is recognised
    with SemanticSearchEngine(encoder, path=version_1.parent, index="exact") as engine:
        engine.index_documents(TEXTS)
        assert len(engine.search("q")) == len(TEXTS)


def test_sqlite_utils_migrates_it_the_same(version_1: Path) -> None:
    before = old_rows(version_1)
    folder = Path(__file__).parent.parent / "migrations"
    command = [sys.executable, "-m", "sqlite_utils", "migrate", str(version_1), str(folder)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    check_migrated(version_1, before)


def test_processes_that_open_it_at_once_migrate_it_once(version_1: Path) -> None:
    before = old_rows(version_1)
    script = "import sys; from embstore import EmbeddingCache; EmbeddingCache(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(version_1)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    check_migrated(version_1, before)


def test_a_file_of_version_1_that_can_only_be_read_can_be_read(
    version_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, encoder = version_1.read_bytes(), CountingEncoder()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with EmbeddingCache(version_1) as cache:
        assert np.array_equal(cache.get("a", TEXTS[0], encoder), encoder.vector(TEXTS[0]))
        doc_ids, matrix = cache.matrix("fake", collection="")
        assert sorted(doc_ids) == ["a", "b", "c", "d"]
        assert matrix.shape == (4, encoder.dim)
        assert (len(cache), cache.stats().n_vectors, cache.verify()) == (5, 4, [])
        assert cache.missing(["new", *TEXTS], encoder) == ["new"]
        assert cache.estimate_s(100, encoder) is None
        assert cache.prune(dry_run=True).n_vectors == 0
        with pytest.raises(ReadOnlyError):
            cache.get("new", "new", encoder)
    with SemanticSearchEngine(encoder, path=version_1.parent, index="exact") as engine:
        assert engine.search("q") == []
        with pytest.raises(ReadOnlyError, match="can only be read"):
            engine.index_documents(["new"])
    assert version_1.read_bytes() == before
