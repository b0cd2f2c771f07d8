"""From schema version 2 to 3, which has models whose vectors are float16: every row stays as it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from embstore._migrations.migrations import migrations
from sqlite_utils import Database

from embstore import EmbeddingCache, ModelIdentity, SemanticSearchEngine
from embstore.checksums import collection_checksum, model_checksum
from embstore.errors import DamagedStoreError, ReadOnlyError
from embstore.inputs import hash_texts
from embstore.stores import schema
from embstore.stores.tables import documents, models, vector_writes
from tests.fakes import CountingEncoder
from tests.files import change, connection, define, dump, rows
from tests.golden import make_golden as golden

GOLDEN = golden.FOLDER / "schema_2.db"
MIGRATIONS = Path(__file__).parent.parent / "migrations"
OWN = ("models", "vectors", "documents", "encodings", "collections", "texts", "sqlite_sequence")
TEXTS = ["größer", "", "a\0b", "\ud800"]

Rows = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def version_2(cache_path: Path) -> Path:
    """The golden file of version 2, with models of which the last was forgotten: its id is not to be given again."""
    shutil.copyfile(GOLDEN, cache_path)
    with connection(cache_path, "rw") as opened:
        opened.execute("UPDATE sqlite_sequence SET seq = 9 WHERE name = 'models'")
        opened.commit()
    return cache_path


def version_of(path: Path) -> int:
    version: int = rows(path, "PRAGMA user_version")[0][0]
    return version


def own_rows(path: Path) -> Rows:
    tables = dump(path)
    return {table: tables[table] for table in OWN}


def check_migrated(path: Path, before: Rows) -> None:
    """The file has the schema of a new one, every row that it had, and no reference to one that it has not."""
    assert version_of(path) == schema.SCHEMA_VERSION
    assert own_rows(path) == before
    with connection(path) as opened:
        objects = opened.execute(schema.OBJECTS).fetchall()
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert schema.fingerprint(objects) == schema.FINGERPRINTS[schema.SCHEMA_VERSION]
    assert {name for _, name, _, _ in objects if "kept" in name} == set()
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []


def test_a_file_of_version_2_keeps_every_row(version_2: Path) -> None:
    before = own_rows(version_2)
    assert all(before.values())
    assert ("models", 9) in before["sqlite_sequence"]
    EmbeddingCache(version_2).close()
    check_migrated(version_2, before)
    with EmbeddingCache(version_2) as cache:
        cache.put_many(["a"], ["a"], np.ones((1, 2)), model_name="new")
    assert rows(version_2, "SELECT model_id FROM models WHERE model_name = 'new'") == [(10,)]


def test_what_version_2_stored_is_found_searched_and_converted(version_2: Path) -> None:
    golden.PLAIN.texts.clear()
    text_of = {doc_id: text for (collection, doc_id), text in golden.DOCUMENTS.items() if collection == "other"}
    with EmbeddingCache(version_2) as cache:
        ids, found = cache.matrix("plain", collection="other")
        assert found.tolist() == golden.PLAIN.vectors([text_of[doc_id] for doc_id in ids]).tolist()
        assert cache.convert("plain", dtype="float16") == 8  # whose values need no more than 8 bits
        ids, found = cache.matrix("plain", collection="other")
        assert found.tolist() == golden.PLAIN.vectors([text_of[doc_id] for doc_id in ids]).tolist()
        assert cache.verify() == []
    folder = version_2.parent / "library"
    folder.mkdir()
    shutil.move(version_2, folder / "embeddings.db")
    with SemanticSearchEngine(golden.PLAIN, path=folder, index="exact", collection_name=golden.TEXTS_OF) as engine:
        (hit, *_) = engine.search(text_of["first"])
        assert (hit.doc_id, hit.document, hit.metadata) == ("first", text_of["first"], golden.METADATA)


def test_sqlite_utils_migrates_it_the_same(version_2: Path) -> None:
    before = own_rows(version_2)
    command = [sys.executable, "-m", "sqlite_utils", "migrate", str(version_2), str(MIGRATIONS)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    check_migrated(version_2, before)


def test_a_connection_that_enforces_foreign_keys_migrates_it_the_same(version_2: Path) -> None:
    before = own_rows(version_2)
    with connection(version_2, "rw") as opened:
        opened.isolation_level = None
        opened.execute("PRAGMA foreign_keys = ON")
        opened.execute("BEGIN IMMEDIATE")
        migrations.apply(Database(opened))
        opened.execute("COMMIT")
        assert opened.execute("PRAGMA defer_foreign_keys").fetchone() == (0,)
        assert opened.execute("PRAGMA ignore_check_constraints").fetchone() == (0,)
    check_migrated(version_2, before)


def test_processes_that_open_it_at_once_migrate_it_once(version_2: Path) -> None:
    before = own_rows(version_2)
    script = "import sys; from embstore import EmbeddingCache; EmbeddingCache(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(version_2)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    check_migrated(version_2, before)


def test_a_migration_that_fails_leaves_version_2(version_2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, checks = version_2.read_bytes(), []

    def fails(*_: object) -> None:
        checks.append(1)
        raise KeyboardInterrupt

    from embstore._migrations import migrations as module

    monkeypatch.setattr(module, "_rename_dtype_setting", fails)
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(version_2)
    assert (checks, version_of(version_2), version_2.read_bytes()) == ([1], 2, before)


@pytest.mark.parametrize("seed", range(5))
def test_a_migration_that_is_killed_leaves_version_2_or_3(seed: int, version_2: Path) -> None:
    before, rng = own_rows(version_2), random.Random(seed)
    script = "import sys; from embstore import EmbeddingCache; from sqlite_utils import Database; print(flush=True)"
    script += "; EmbeddingCache(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", script, str(version_2)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(rng.uniform(0, 0.08))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    EmbeddingCache(version_2).close()  # rolls back what was left, and migrates where that was not done
    check_migrated(version_2, before)


def test_a_damaged_model_is_as_damaged_afterwards_and_the_others_as_sound(version_2: Path) -> None:
    with connection(version_2, "rw") as opened:
        opened.execute("PRAGMA ignore_check_constraints = ON")
        opened.execute("UPDATE models SET dtype = 'gloat32' WHERE model_id = 2")
        opened.commit()
    before = own_rows(version_2)
    with EmbeddingCache(version_2) as cache:
        assert "models" in {problem.table for problem in cache.verify()}
        assert cache.get("first", golden.DOCUMENTS["", "first"], golden.PLAIN) is not None
        with pytest.raises(DamagedStoreError):
            cache.models()
    assert own_rows(version_2) == before
    with EmbeddingCache(version_2) as cache:
        cache.clear(model_name="asymmetric")
        assert cache.verify() == []


def test_what_somebody_added_stays(version_2: Path) -> None:
    define(version_2, "CREATE INDEX by_dtype ON models (dtype)")
    define(version_2, "CREATE TABLE kept_models (note TEXT)")
    define(version_2, "CREATE VIEW named AS SELECT model_name FROM models")
    EmbeddingCache(version_2).close()
    names = [name for (name,) in rows(version_2, "SELECT name FROM sqlite_master")]
    assert {"by_dtype", "kept_models", "named"} <= set(names)
    assert len(rows(version_2, "SELECT * FROM named")) == 4


# --- a setting that was called "dtype" -------------------------------------------------------


def with_dtype_setting(path: Path) -> None:
    """Let the model "plain", and the collection of it, have had a setting of that name."""
    settings = '{"dtype":"bfloat16","model_dtype":1}'
    (row,) = rows(path, "SELECT model_id, model_name, dim, dtype, created_at, canary FROM models WHERE model_id = 1")
    model_id, name, dim, dtype, created_at, canary = row
    checksum = model_checksum(model_id, [name, settings, dim, dtype, created_at], canary)
    change(path, "UPDATE models SET settings = ?, checksum = ? WHERE model_id = 1", settings, checksum)
    (row,) = rows(path, "SELECT collection, model_name, n_texts, texts_version, vectors_version FROM collections")
    checksum = collection_checksum([row[0], row[1], settings, *row[2:]])
    change(path, "UPDATE collections SET settings = ?, checksum = ?", settings, checksum)


def test_an_encoders_own_setting_of_that_name_gets_another_and_nothing_is_encoded_again(version_2: Path) -> None:
    with_dtype_setting(version_2)
    encoder = golden.GoldenEncoder("plain", dim=7, model_dtype=1, model_dtype_="bfloat16")
    with EmbeddingCache(version_2) as cache:
        assert cache.models()[0].settings == {"model_dtype": 1, "model_dtype_": "bfloat16"}
        assert cache.missing(list(golden.DOCUMENTS.values()), encoder) == []
        found = cache.store.texts.find_collection(golden.TEXTS_OF)
        assert found is not None
        assert found.identity == ModelIdentity.of("plain", encoder.model_settings)
        assert cache.verify() == []


def test_a_row_of_it_that_was_damaged_is_not_made_sound(version_2: Path) -> None:
    with_dtype_setting(version_2)
    change(version_2, "UPDATE models SET checksum = checksum + 1 WHERE model_id = 1")
    with EmbeddingCache(version_2) as cache:
        assert "models" in {problem.table for problem in cache.verify()}


# --- files that can only be read -------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_that_can_only_be_read_can_be_read(
    version: int, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [migration.name for migration in migrations.pending(Database(memory=True))]
    database = Database(str(cache_path))
    migrations.apply(database, stop_before=names[version])
    database.close()
    encoder, keys = CountingEncoder(), hash_texts(TEXTS)
    with connection(cache_path, "rw") as opened:
        model = models.insert(opened, ModelIdentity("fake"), encoder.dim, None)
        vector_writes.insert(opened, model, keys, encoder.vectors(TEXTS), standalone=False)
        documents.put(opened, model, "", ["a", "b", "c", "d"], keys)
        opened.commit()
    before = cache_path.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    for dtype in ("float32", "float16"):
        with EmbeddingCache(cache_path, dtype=dtype) as cache:  # type: ignore[arg-type]
            assert np.array_equal(cache.get("a", TEXTS[0], encoder), encoder.vector(TEXTS[0]))
            assert cache.matrix("fake")[1].shape == (4, encoder.dim)
            assert (cache.verify(), cache.models()[0].dtype) == ([], "float32")
            with pytest.raises(ReadOnlyError):
                cache.convert("fake", dtype="float16")
    assert cache_path.read_bytes() == before
