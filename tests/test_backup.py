"""Copies of a cache in use: whole or absent, of one moment, private, and in nobody's way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embstore import (
    DamagedStoreError,
    EmbeddingCache,
    StoreBusyError,
    StoreClosedError,
    StoreFullError,
    StorePathError,
    UnsafeStoreError,
)
from embstore.stores import committing, copying, opening
from embstore.stores.connection import Database
from tests.fakes import CountingEncoder
from tests.files import change, connection, define, dump, rows

IDS = [f"doc {i}" for i in range(1_000)]
DIM = 512


def fill(cache: EmbeddingCache, seed: int = 0) -> np.ndarray:
    """Two megabytes, of more than 32 pages."""
    vectors = np.random.default_rng(seed).standard_normal((len(IDS), DIM)).astype(np.float32)
    cache.put_many(IDS, [f"{doc_id} of {seed}" for doc_id in IDS], vectors, model_name="big")
    return vectors


@pytest.fixture
def filled(cache: EmbeddingCache, encoder: CountingEncoder) -> EmbeddingCache:
    fill(cache)
    cache.get("a", "text", encoder)
    cache.embed(["without an id"], encoder)
    return cache


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "copy.db"


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "STEP_BYTES", 4 * opening.PAGE_SIZE)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def steps(cache: EmbeddingCache, copy: Path, at_each: Callable[[int, int], object]) -> list[tuple[int, int]]:
    """Back up, do something after each step, and give what was reported of the steps."""
    seen: list[tuple[int, int]] = []

    def on_progress(n_copied: int, n_pages: int) -> None:
        seen.append((n_copied, n_pages))
        at_each(n_copied, n_pages)

    assert cache.store.backup(copy, allow_network_filesystem=False, on_progress=on_progress) == []
    return seen


# --- what it gives --------------------------------------------------------------------------


def test_a_backup_has_every_row_and_is_a_cache_of_its_own(
    filled: EmbeddingCache, copy: Path, encoder: CountingEncoder
) -> None:
    assert filled.backup(copy) == []
    assert dump(copy) == dump(filled.path)
    assert rows(copy, "PRAGMA page_size") == rows(filled.path, "PRAGMA page_size")
    assert names(copy.parent) == ["copy.db"]
    encoder.calls.clear()
    with EmbeddingCache(copy) as copied:
        assert np.array_equal(copied.get("a", "text", encoder), encoder.vector("text"))
        copied.get("new", "new", encoder)
        assert (encoder.texts, copied.verify()) == (["new"], [])
    assert "new" not in filled


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_only_its_owner_can_read_it(filled: EmbeddingCache, copy: Path) -> None:
    before = os.umask(0)
    try:
        filled.backup(copy)
    finally:
        os.umask(before)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_file_that_can_only_be_read_can_be_backed_up(
    filled: EmbeddingCache, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled.path.read_bytes()
    monkeypatch.setattr(opening.os, "access", lambda path, mode: not mode & os.W_OK)
    with EmbeddingCache(filled.path) as cache:
        assert cache.backup(copy) == []
    assert filled.path.read_bytes() == before
    assert dump(copy) == dump(filled.path)


def test_the_copy_of_a_file_in_wal_mode_has_what_is_in_its_log_and_none_itself(
    cache_path: Path, copy: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "wal_is_fixed", lambda version: True)
    with EmbeddingCache(cache_path) as cache:
        define(cache_path, "PRAGMA journal_mode = WAL")
        cache.get("a", "text", encoder)
        assert cache.backup(copy) == []
        assert dump(copy) == dump(cache_path)
    assert rows(copy, "PRAGMA journal_mode") == [("delete",)]
    assert names(copy.parent) == ["copy.db"]


def test_an_empty_cache_can_be_backed_up(cache: EmbeddingCache, copy: Path) -> None:
    assert cache.backup(copy) == []
    with EmbeddingCache(copy) as copied:
        assert (len(copied), copied.verify()) == (0, [])


def test_what_another_transaction_of_the_thread_has_not_committed_is_not_in_it(
    filled: EmbeddingCache, copy: Path, encoder: CountingEncoder
) -> None:
    before = dump(filled.path)
    with filled.store.writing():
        filled.get("not yet", "not yet", encoder)
        assert filled.backup(copy) == []
    assert dump(copy) == before
    assert "not yet" in filled


def test_a_bar_shows_how_far_it_is(filled: EmbeddingCache, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled.backup(copy, progress=True)
    n_pages = filled.path.stat().st_size // opening.PAGE_SIZE
    assert f"copying: 100%|██████████| {n_pages}/{n_pages}" in capsys.readouterr().err
    filled.backup(copy.with_name("silent.db"))
    assert capsys.readouterr().err == ""


# --- while others write ---------------------------------------------------------------------


@pytest.mark.usefixtures("small_steps")
def test_a_write_between_its_steps_is_not_held_up_and_makes_it_begin_anew(
    filled: EmbeddingCache, copy: Path, encoder: CountingEncoder
) -> None:
    n_pages = filled.path.stat().st_size // opening.PAGE_SIZE
    half = n_pages // 8 * 4

    def write_once(n_copied: int, _: int) -> None:
        if n_copied == half and "meanwhile" not in filled:
            filled.get("meanwhile", "meanwhile", encoder)

    seen = [n_copied for n_copied, _ in steps(filled, copy, write_once)]
    assert seen == [*range(4, half + 1, 4), *range(4, n_pages, 4), n_pages]
    assert dump(copy) == dump(filled.path)


@pytest.mark.usefixtures("small_steps")
def test_it_ends_though_somebody_writes_after_every_step(
    filled: EmbeddingCache, copy: Path, encoder: CountingEncoder
) -> None:
    n_pages = filled.path.stat().st_size // opening.PAGE_SIZE
    written: list[bool] = []

    with EmbeddingCache(filled.path, timeout_s=0.02) as writer:

        def write(*_: int) -> None:
            try:
                writer.get("again", f"text {len(written)}", encoder)
                written.append(True)
            except StoreBusyError:  # a commit, which waits
                written.append(False)

        seen = [n_copied for n_copied, _ in steps(filled, copy, write)]
    loose = [4] * copying.LOOSE_ATTEMPTS
    assert seen == [*loose, *range(4, n_pages, 4), n_pages]
    assert written == [True] * len(loose) + [False] * (len(seen) - len(loose))
    with EmbeddingCache(copy) as copied:
        assert copied.matrix("fake", doc_ids=["again"])[1].tolist() == encoder.vectors(["text 1"]).tolist()


@pytest.mark.usefixtures("small_steps")
def test_readers_read_while_it_holds_the_file(
    filled: EmbeddingCache, copy: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LOOSE_ATTEMPTS", 0)
    steps(
        filled, copy, lambda *_: np.testing.assert_array_equal(filled.get("a", "text", encoder), encoder.vector("text"))
    )
    assert dump(copy) == dump(filled.path)


# --- what it refuses ------------------------------------------------------------------------


def test_it_replaces_nothing(filled: EmbeddingCache, copy: Path) -> None:
    copy.write_bytes(b"something else")
    for there in (copy, copy.parent, filled.path):
        before = filled.path.read_bytes()
        with pytest.raises(StorePathError, match="exists already, and a backup replaces nothing"):
            filled.backup(there)
        assert filled.path.read_bytes() == before
    assert copy.read_bytes() == b"something else"
    assert names(copy.parent) == ["copy.db"]


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_a_link_to_nowhere_is_not_followed(filled: EmbeddingCache, copy: Path) -> None:
    copy.symlink_to(copy.with_name("elsewhere.db"))
    with pytest.raises(StorePathError, match="exists already"):
        filled.backup(copy)
    assert names(copy.parent) == ["copy.db"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_what_came_to_its_place_meanwhile_is_not_replaced(
    filled: EmbeddingCache, copy: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hard_links:
        monkeypatch.setattr(copying.os, "link", without_links)
    with pytest.raises(StorePathError, match=r"copy\.db' (exists already|cannot be written)"):
        steps(filled, copy, lambda *_: copy.write_bytes(b"something else"))
    assert copy.read_bytes() == b"something else"
    assert names(copy.parent) == ["copy.db"]


def without_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_hard_links_can_have_it(
    filled: EmbeddingCache, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying.os, "link", without_links)
    assert filled.backup(copy) == []
    assert dump(copy) == dump(filled.path)
    assert names(copy.parent) == ["copy.db"]


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_the_journal_of_a_former_database_would_be_played_into_it(
    suffix: str, filled: EmbeddingCache, copy: Path
) -> None:
    copy.with_name(copy.name + suffix).write_bytes(b"left by a crash")
    with pytest.raises(StorePathError, match=f"copy.db{suffix}' of a former database"):
        filled.backup(copy)


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_it_is_not_put_where_sqlite_puts_the_journal_of_the_source(
    suffix: str, filled: EmbeddingCache, tmp_path: Path
) -> None:
    with pytest.raises(StorePathError, match="SQLite lays beside the source"):
        filled.backup(filled.path.with_name(filled.path.name + suffix))
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [filled.path.name]


def test_a_folder_that_is_not_there_is_not_made(filled: EmbeddingCache, tmp_path: Path) -> None:
    with pytest.raises(StorePathError, match=r"not-mounted' is no folder"):
        filled.backup(tmp_path / "not-mounted" / "copy.db")
    assert not (tmp_path / "not-mounted").exists()


def test_a_network_file_system_is_refused_unless_allowed(
    filled: EmbeddingCache, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "network_filesystem", lambda path: "nfs4")
    with pytest.raises(UnsafeStoreError, match="nfs4"):
        filled.backup(copy)
    assert not copy.exists()
    assert filled.backup(copy, allow_network_filesystem=True) == []


def test_a_closed_cache_says_so(cache_path: Path, copy: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        pass
    with pytest.raises(StoreClosedError):
        cache.backup(copy)
    assert not copy.exists()


# --- what goes wrong ------------------------------------------------------------------------


def test_a_cache_that_stays_locked_is_waited_for_no_longer_than_asked(filled: EmbeddingCache, copy: Path) -> None:
    def lock(database: Database, part: Path, on_progress: copying.OnProgress) -> None:
        with connection(filled.path, "rw") as writer:  # between what is looked at before, and the copying
            writer.execute("BEGIN EXCLUSIVE")
            copy_file(database, part, on_progress)

    copy_file = copying._copy_file
    with EmbeddingCache(filled.path, timeout_s=0.05) as cache, pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_copy_file", lock)
        with pytest.raises(StoreBusyError, match=r"locked by another process for more than 0\.05 s"):
            cache.backup(copy)
    assert names(copy.parent) == []


def test_an_interrupt_leaves_nothing(filled: EmbeddingCache, copy: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps(filled, copy, interrupt)
    assert names(copy.parent) == []
    assert filled.backup(copy) == []


def test_a_full_disk_leaves_nothing(filled: EmbeddingCache, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying.os, "fsync", full)
    with pytest.raises(StoreFullError, match=r"no room for a backup at '.*copy\.db'"):
        filled.backup(copy)
    assert names(copy.parent) == []


def test_a_copy_that_cannot_grow_leaves_nothing(
    filled: EmbeddingCache, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit on pages stands for that of a disk."""
    copy_pages = copying._copy_pages

    def limited(database: Database, source: object, target: object, on_progress: object) -> None:
        target.execute(f"PRAGMA page_size = {opening.PAGE_SIZE}")  # type: ignore[attr-defined]
        target.execute("PRAGMA max_page_count = 20")  # type: ignore[attr-defined]
        copy_pages(database, source, target, on_progress)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "_copy_pages", limited)
    with pytest.raises(StoreFullError, match=r"no room to write '.*copy\.db'"):
        filled.backup(copy)
    assert names(copy.parent) == []


def test_damage_is_copied_as_it_is_and_said(cache_path: Path, copy: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b"], ["text a", "text b"], encoder)
    change(cache_path, "UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = 1")
    with EmbeddingCache(cache_path) as cache:
        problems = cache.backup(copy)
        assert problems == cache.verify() != []
    assert dump(copy) == dump(cache_path)


def test_a_file_that_was_cut_off_cannot_be_backed_up(filled: EmbeddingCache, copy: Path) -> None:
    cut = copy.with_name("cut.db")
    filled.backup(cut)
    with EmbeddingCache(cut) as cache:
        os.truncate(cut, cut.stat().st_size // 2)
        with pytest.raises(DamagedStoreError, match=r"cut\.db' is damaged"):
            cache.backup(copy)
    assert names(copy.parent) == ["cut.db"]


@pytest.mark.skipif(os.name != "posix", reason="Windows syncs no folders")
def test_a_backup_whose_folder_cannot_be_synced_is_none(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    cache.get("a", "text", encoder)
    monkeypatch.setattr(committing, "sync_folder", refuse)
    with pytest.raises(StorePathError, match="Input/output error"):
        cache.backup(tmp_path / "backup.db")
    assert [file.name for file in tmp_path.iterdir()] == [cache.path.name]
