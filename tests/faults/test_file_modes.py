"""What is written is for its owner alone, whatever the umask; modes that somebody chose are left alone."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, repair
from embstore.search.lock import LOCK_NAME
from embstore.search.note import HOLDER_NAME
from embstore.stores.tables import vector_writes
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")

TEXTS = [f"text {i}" for i in range(300)]


@pytest.fixture(params=[0, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes_of(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir() if file.is_file()}


def modes_of_temporary_files() -> dict[str, int]:
    """Those of SQLite's that this process has open; they have no name by now."""
    modes = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if "/etilqs_" in os.readlink(descriptor):  # noqa: PTH115 - the name, not a path
                modes[descriptor.name] = stat.S_IMODE(descriptor.stat().st_mode)
    return modes


def assert_private(modes: dict[str, int], tally: Tally) -> None:
    public = {name: oct(mode) for name, mode in modes.items() if mode & 0o177}
    tally.add("file modes", files=len(modes), readable_by_others=len(public))
    assert modes
    assert public == {}


@pytest.mark.usefixtures("umask")
def test_a_database_its_journal_and_its_backup_are_private(
    cache_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_writes, "CACHE_KIB", 128)  # so that the journal is written before the commit
    during: dict[str, int] = {}
    with EmbeddingCache(cache_path) as cache:
        with cache._store.writing():
            cache.put_many(TEXTS, TEXTS, np.ones((300, 256)), model_name="m")
            during.update(modes_of(cache_path.parent))
        assert set(during) == {cache_path.name, f"{cache_path.name}-journal"}
        cache.backup(cache_path.with_name("backup.db"), progress=False)
        repair(cache_path, cache_path.with_name("repaired.db"))
    assert_private(during, tally)
    assert set(modes_of(cache_path.parent)) == {cache_path.name, "backup.db", "repaired.db"}
    assert_private(modes_of(cache_path.parent), tally)


@pytest.mark.usefixtures("umask")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for open files in /proc")
def test_temporary_files_are_private(cache_path: Path, tally: Tally) -> None:
    with EmbeddingCache(cache_path) as cache, cache._store.writing() as connection:
        connection.execute("PRAGMA temp.cache_size = 1")
        connection.execute("CREATE TEMP TABLE large (x)")
        connection.executemany("INSERT INTO large VALUES (?)", [(bytes(5000),)] * 500)
        modes = modes_of_temporary_files()
        connection.execute("DROP TABLE large")
    assert_private(modes, tally)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("index", ["chroma", "exact"])
def test_files_of_a_library_are_private(index: str, tmp_path: Path, tally: Tally) -> None:
    if index == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    library = tmp_path / "library"
    library.mkdir(0o755)  # one that is made with the library lets nobody in: what Chroma writes has modes of its own
    with CachedSemanticSearchEngine(CountingEncoder(), path=library, index=index) as engine:  # type: ignore[arg-type]
        engine.index_documents(TEXTS[:3], TEXTS[:3])
        modes = modes_of(library)
    ours = {"embeddings.db", *((LOCK_NAME, HOLDER_NAME) if index == "chroma" else ())}
    assert ours <= set(modes)
    assert_private({name: mode for name, mode in modes.items() if not name.startswith("chroma.sqlite3")}, tally)


def test_a_folder_that_is_made_for_a_library_lets_nobody_else_in(tmp_path: Path) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path / "library").close()
    assert stat.S_IMODE((tmp_path / "library").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666])
def test_modes_that_somebody_chose_are_left_alone(mode: int, tmp_path: Path, tally: Tally) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    library = tmp_path / "library"
    for _ in range(2):
        with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
            engine.index_documents(TEXTS[:3], TEXTS[:3])
        chosen = {library / "embeddings.db", library / LOCK_NAME}
        for file in chosen:
            file.chmod(mode)
    with EmbeddingCache(library / "embeddings.db") as cache:
        cache.put_many(["a"], ["a"], np.ones((1, 8)), model_name="m")
        cache.compact()
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.search("text")
        changed = [file for file in chosen if stat.S_IMODE(file.stat().st_mode) != mode]
    tally.add("file modes", chosen_modes=len(chosen), changed_modes=len(changed))
    assert changed == []


def test_a_journal_has_the_mode_of_its_database(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_writes, "CACHE_KIB", 128)
    with EmbeddingCache(cache_path) as cache:
        cache_path.chmod(0o640)
        with cache._store.writing():
            cache.put_many(TEXTS, TEXTS, np.ones((300, 256)), model_name="m")
            assert modes_of(cache_path.parent) == dict.fromkeys((cache_path.name, f"{cache_path.name}-journal"), 0o640)
