"""Closing any descriptor of a file drops all locks that a process has on it: none of our code opens one that is open.

Source: fcntl(2), "Record locking and file descriptors", and https://sqlite.org/howtocorrupt.html, 2.2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embstore import EmbeddingCache, UnsafeStoreError
from embstore.stores.sqlite_errors import sqlite3
from tests.fakes import CountingEncoder
from tests.faults.opens import ACTS, BESIDE_METHODS, FILE
from tests.faults.shim import can_compile, compiled, needs_shim
from tests.faults.tally import Tally
from tests.files import define, rows

needs_locks = pytest.mark.skipif(
    not sys.platform.startswith("linux") or sys.maxsize < 2**32, reason="asks for locks as Linux on 64 bits does"
)
DATABASES = (FILE, "embeddings.db")


def run_opens(folder: Path, *arguments: object, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.opens", folder, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_every_public_method_is_among_the_acts() -> None:
    methods = {
        name for name in dir(EmbeddingCache) if not name.startswith("_") and callable(getattr(EmbeddingCache, name))
    }
    assert set(ACTS) == methods


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What everything on an open cache opens; of libraries, only where the shim can be compiled."""
    folder = tmp_path_factory.mktemp("traced")
    if not can_compile():
        return run_opens(folder / "files")
    shim = compiled(folder)
    return run_opens(folder / "files", shim, LD_PRELOAD=str(shim), EMBSTORE_SHIM_MARKER=str(folder / "files"))


@needs_locks
def test_nothing_of_ours_opens_the_file_of_a_cache_that_is_open(traced: dict[str, Any], tally: Tally) -> None:
    opens, unlocked = traced["python"], traced["unlocked"]
    tally.add(
        "locks dropped", acts=len(ACTS) + len(BESIDE_METHODS), rogue_opens=len(opens), dropped_locks=len(unlocked)
    )
    assert (opens, unlocked) == ([], [])


@needs_shim
@needs_locks
def test_of_all_libraries_sqlite_alone_opens_it(traced: dict[str, Any], tally: Tally) -> None:
    openers = {name: {who for who, file in traced["libraries"] if file == name} for name in DATABASES}
    others = [who for libraries in openers.values() for who in libraries if "sqlite" not in who]
    tally.add("locks dropped", rogue_libraries=len(others))
    assert others == []
    assert all(openers.values())


@needs_locks
def test_what_a_rogue_open_does(tmp_path: Path, tally: Tally) -> None:
    """The reason for these tests, and that they would see one."""
    seen = run_opens(tmp_path / "rogue", "rogue")
    ((path, where),) = seen.pop("python")
    assert (Path(path).name, 'path.open("rb").close()' in where) == (FILE, True)
    # The lock is gone, another process writes and is told that it has; then ours writes over it.
    assert seen == {"before": True, "after": 0, "told": "acknowledged\n", "kept": False}
    tally.add("locks dropped", control_batches_lost_to_a_rogue_open=1)


# --- write-ahead logs -----------------------------------------------------------------------

AFFECTED = [(3, 37, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 46, 1), (3, 50, 6), (3, 51, 2)]
FIXED = [(3, 44, 6), (3, 50, 7), (3, 51, 3), (3, 52, 0), (3, 53, 1)]


@pytest.fixture
def wal(cache_path: Path) -> Path:
    """A file that somebody put in WAL mode; closed."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b", "c"], ["one", "two", "three"], CountingEncoder())
    define(cache_path, "PRAGMA journal_mode = WAL")
    return cache_path


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("version", AFFECTED)
def test_a_write_ahead_log_is_refused_on_an_affected_version(
    version: tuple[int, ...], wal: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    before = files_of(wal.parent)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    with pytest.raises(UnsafeStoreError, match=r"sqlite3 .* 'PRAGMA journal_mode=DELETE'"):
        EmbeddingCache(wal)
    assert files_of(wal.parent) == before
    define(wal, "PRAGMA journal_mode = DELETE")
    with EmbeddingCache(wal) as cache:
        assert (len(cache), cache.verify()) == (3, [])
    tally.add("locks dropped", write_ahead_logs_refused=1)


@pytest.mark.parametrize("version", FIXED)
def test_a_write_ahead_log_is_used_on_a_fixed_version(
    version: tuple[int, ...], wal: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    with EmbeddingCache(wal) as cache:
        cache.get("d", "four", CountingEncoder())
        assert (len(cache), cache.verify()) == (4, [])
    assert rows(wal, "PRAGMA journal_mode") == [("wal",)]
    tally.add("locks dropped", write_ahead_logs_used=1)


# --- network file systems -------------------------------------------------------------------

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone")
LOCAL = ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuse.ntfs", "fuseblk", "apfs")


def mounted_as(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Linux's table of mounts say that a folder is a file system of some type."""
    real = Path.read_text

    def table(self: Path, **options: Any) -> str:
        if str(self) != "/proc/self/mountinfo":
            return real(self, **options)
        return f"30 1 0:1 / / rw - ext4 disk rw\n31 30 0:2 / {folder} rw shared:1 - {kind} there:/share rw\n"

    monkeypatch.setattr(Path, "read_text", table)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's table of mounts")
@pytest.mark.parametrize("kind", NETWORK)
def test_a_network_file_system_is_refused_unless_overridden(
    kind: str, cache_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", CountingEncoder())
    before = files_of(cache_path.parent)
    mounted_as(kind, cache_path.parent, monkeypatch)
    for path in (cache_path, cache_path.with_name("new.db")):
        with pytest.raises(UnsafeStoreError, match=rf"{kind}.*allow_network_filesystem=True"):
            EmbeddingCache(path)
    assert files_of(cache_path.parent) == before
    with EmbeddingCache(cache_path, allow_network_filesystem=True) as cache:
        assert (len(cache), cache.verify()) == (1, [])
    tally.add("locks dropped", network_file_systems_refused=1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's table of mounts")
@pytest.mark.parametrize("kind", LOCAL)
def test_a_local_file_system_is_used(kind: str, cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted_as(kind, cache_path.parent, monkeypatch)
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", CountingEncoder())
        assert (len(cache), cache.verify()) == (1, [])
