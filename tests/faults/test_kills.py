"""Processes are killed while they write: what was acknowledged stays, and each batch is whole or absent."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlite_utils  # noqa: F401 - which would count as part of the first opening

from embstore import EmbeddingCache
from embstore.checksums import model_checksum
from embstore.codec import Vectors
from tests.faults import batches, jobs
from tests.faults.batches import History, counter, opened, tell
from tests.faults.tally import Tally
from tests.faults.victims import MOMENTS, Victim, has_journal, wait_for, wait_for_rollback, wait_for_write, written_at
from tests.files import Row, connection, define, dump
from tests.golden import make_golden as golden

Rounds = Callable[[int, int], int]

SERIES = 20
"""Rounds on one file before another is begun: it grows with each."""


@pytest.mark.parametrize("series", [0, 1, 2])
def test_what_was_acknowledged_stays_when_its_writer_is_killed(
    series: int, tmp_path: Path, tally: Tally, rounds: Rounds, is_whole: bool
) -> None:
    for n in range(0, rounds(SERIES, 200), SERIES):
        rng = random.Random(f"{series} {n}")
        history = History(tmp_path / str(n) / "embeddings.db")
        for i in range(SERIES):
            with Victim(batches.write, history.path, history.next_batch) as writer:
                if i:  # the first is killed while it creates the file, or soon after
                    writer.wait_for(rng.randrange(4))
                wait_for(history.path, MOMENTS[i % 5], rng, 0.02)
                acknowledged = writer.kill()
            history.counts["journals_left"] += has_journal(history.path)
            history.check(acknowledged)
        tell(tally, "killed while writing", history.counts, is_whole=is_whole)
        assert history.counts["acknowledged_batches"] > 0
        assert history.counts["journals_left"] > 0


MANY = [f"document {i}" for i in range(2_000)]
"""Documents of 2 MB, so that a journal of all of them takes a while to write and to play back."""


def vectors_of_many() -> Vectors:
    """Values that float16 has, too: either format gives them back bit for bit."""
    return np.random.default_rng(0).standard_normal((len(MANY), 256)).astype(np.float16).astype(np.float32)


def count_changed(cache: EmbeddingCache) -> int:
    """Count the documents that are not there as they were stored."""
    ids, vectors = cache.matrix("many")
    expected = dict(zip(MANY, map(np.ndarray.tobytes, vectors_of_many()), strict=True))
    stored = dict(zip(ids, map(np.ndarray.tobytes, vectors), strict=True))
    return len(expected.items() ^ stored.items())


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "cache" / "embeddings.db"
    with EmbeddingCache(path) as cache:
        cache.put_many(MANY, MANY, vectors_of_many(), model_name="many")
    return path


def test_a_process_that_is_killed_while_it_rolls_back_leaves_the_rest_to_the_next(
    many: Path, tally: Tally, rounds: Rounds, is_whole: bool
) -> None:
    counts = counter("journals_left", "killed_while_rolling_back", "changed_rows")
    rng = random.Random(0)
    for i in range(rounds(12, 200)):
        counts["rounds"] += 1
        written = written_at(many)
        with Victim(jobs.convert, many, "many") as converting:
            wait_for_write(many, written)
            converting.kill()
        counts["journals_left"] += has_journal(many)
        for _ in range(2):
            if not has_journal(many):
                break
            written = written_at(many)
            with Victim(jobs.open_file, many) as opening:
                opening.wait_for(1)
                time.sleep(rng.uniform(0, 0.01)) if i % 2 else wait_for_rollback(many, written)
                opening.kill()
            counts["killed_while_rolling_back"] += has_journal(many) and written_at(many) != written
        with opened(many, counts) as cache:
            counts["changed_rows"] += count_changed(cache)
    tell(tally, "killed while another's journal is rolled back", counts, is_whole=is_whole)
    assert counts["killed_while_rolling_back"] > 0


def test_a_process_that_is_killed_while_it_compacts_changes_nothing(
    many: Path, tally: Tally, rounds: Rounds, is_whole: bool
) -> None:
    counts, rng = counter("journals_left", "changed_rows"), random.Random(1)
    for i in range(rounds(14, 100)):
        counts["rounds"] += 1
        with Victim(jobs.compact, many, 1_000) as compacting:
            compacting.wait_for(1)
            wait_for(many, MOMENTS[i % 5], rng, 0.05)
            compacting.kill()
        counts["journals_left"] += has_journal(many)
        with opened(many, counts) as cache:
            counts["changed_rows"] += count_changed(cache)
            assert {model.model_name for model in cache.models()} <= {"many", "forgotten"}
    tell(tally, "killed while compacting", counts, is_whole=is_whole)
    assert counts["journals_left"] > 0


def test_a_process_that_is_killed_while_it_backs_up_leaves_whole_copies_only(
    many: Path, tmp_path: Path, tally: Tally, rounds: Rounds, is_whole: bool
) -> None:
    counts, rng = counter("copies", "copies_begun", "changed_rows"), random.Random(2)
    for i in range(rounds(8, 100)):
        counts["rounds"] += 1
        folder = tmp_path / str(i)
        folder.mkdir()
        with Victim(jobs.backup, many, folder) as copying:
            copying.wait_for(1)
            time.sleep(rng.uniform(0, 0.1))
            n_copied = len(copying.kill())
        parts = set(folder.glob("*.part"))
        counts["copies_begun"] += len(parts)
        copies = sorted(set(folder.iterdir()) - parts)
        assert len(copies) in (n_copied, n_copied + 1)
        for part in parts:
            part.unlink()
        for path in (many, *copies):
            with EmbeddingCache(path) as cache:
                counts["changed_rows"] += count_changed(cache)
                counts["problems"] += len(cache.verify())
        counts["copies"] += len(copies)
        counts["files_beside"] += len(set(folder.iterdir()) - set(copies)) + len(list(many.parent.iterdir())) - 1
    tell(tally, "killed while backing up", counts, is_whole=is_whole)
    assert counts["copies_begun"] > 0


INSERT_MODEL = """
INSERT INTO models (model_id, model_name, settings, dim, dtype, canary, created_at, checksum)
VALUES (?, ?, ?, 2, 'float32', NULL, ?, ?)
"""
SETTINGS = '{"dtype":"bfloat16"}'
OF_SQLITE_UTILS = "_sqlite_migrations"  # in which the time stands


def file_of_version(version: int, folder: Path) -> Path:
    """A golden file with 2,000 models more whose settings the migration to version 3 renames, one by one."""
    path = folder / f"version_{version}.db"
    shutil.copyfile(golden.FOLDER / f"schema_{version}.db", path)
    with connection(path, "rw") as opened:
        for i in range(1_000, 3_000):
            fields = [f"model {i}", SETTINGS, 2, "float32", golden.CREATED_AT]
            checksum = model_checksum(i, fields, None)
            opened.execute(INSERT_MODEL, (i, *fields[:2], golden.CREATED_AT, checksum))
        opened.commit()
    return path


def own_rows(path: Path) -> dict[str, list[Row]]:
    tables = dump(path)
    tables.pop(OF_SQLITE_UTILS)
    return tables


def rows_of_torn(path: Path, folder: Path) -> dict[str, list[Row]]:
    """What a file has for SQLite, without any program of ours: of a copy of it and of its journal."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    define(folder / path.name, "PRAGMA user_version")  # what may be written is rolled back
    return own_rows(folder / path.name)


@pytest.mark.parametrize("version", [1, 2])
def test_a_process_that_is_killed_while_it_migrates_leaves_the_old_version_or_the_new(
    version: int, tmp_path: Path, tally: Tally, rounds: Rounds, is_whole: bool
) -> None:
    counts, rng = counter("journals_left", "changed_rows"), random.Random(version)
    old = file_of_version(version, tmp_path)
    new = shutil.copyfile(old, tmp_path / "new.db")
    EmbeddingCache(new).close()
    of_old, of_new = own_rows(old), own_rows(new)
    for i in range(rounds(7, 50)):
        counts["rounds"] += 1
        path = tmp_path / str(i) / "embeddings.db"
        path.parent.mkdir()
        shutil.copyfile(old, path)
        with Victim(jobs.open_file, path) as migrating:
            migrating.wait_for(1)
            wait_for(path, MOMENTS[i % 5], rng, 0.2)
            migrating.kill()
        counts["journals_left"] += has_journal(path)
        counts["changed_rows"] += rows_of_torn(path, tmp_path / f"{i} as it was left") not in (of_old, of_new)
        with opened(path, counts):
            counts["changed_rows"] += own_rows(path) != of_new
    tell(tally, "killed while migrating", counts, is_whole=is_whole)
    assert counts["journals_left"] > 0
