"""What a cache is asked to do while something fails, and the states of its file before and afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from embstore import EmbeddingCache
from embstore.stores.tables import vector_writes
from tests.fakes import CountingEncoder
from tests.files import Row, connection, dump
from tests.golden import make_golden as golden

TIMEOUT_S = 0.3
DIM = 128

BACKUP = "backup.db"

State = dict[str, list[Row]]

# When a row came about differs from run to run, and so its checksum, which `verify` looks at. How fast models are is
# noted where that can be.
VARYING: dict[str, tuple[str, ...]] = {"models": ("created_at", "checksum")}
LEFT_OUT = ("encodings", "usage", "_sqlite_migrations")


# --- operations -----------------------------------------------------------------------------


def encoder() -> CountingEncoder:
    return CountingEncoder(DIM)


def names(start: int, stop: int) -> list[str]:
    return [f"{i}" for i in range(start, stop)]


def put(cache: EmbeddingCache) -> None:
    """Replace some vectors, add some."""
    ids = names(30, 90)
    cache.put_many(ids, ids, encoder().vectors([f"other {i}" for i in ids]), model_name="fake")


def put_much(cache: EmbeddingCache) -> None:
    """Put more than the connection may hold in memory, so that the file is written to before the commit."""
    with mock.patch.object(vector_writes, "CACHE_KIB", 512), cache._store.writing():
        put(cache)
        ids = names(500, 800)
        cache.put_many(ids, ids, encoder().vectors(ids), model_name="fake")


def fill(cache: EmbeddingCache) -> None:
    ids, counting = names(50, 80), encoder()
    assert np.array_equal(cache.get_many(ids, ids, counting), counting.vectors(ids))


def record(cache: EmbeddingCache) -> None:
    """Ask for a text that is known under an id that is not: a document is stored, nothing is encoded."""
    counting = encoder()
    assert np.array_equal(cache.get("new id", "7", counting), counting.vector("7"))
    assert counting.calls == []


def read(cache: EmbeddingCache) -> None:
    """Ask for what is there in every way; nothing else may come back, and nothing is encoded."""
    counting, ids = encoder(), names(0, 60)
    expected = dict(zip(ids, counting.vectors(ids), strict=True))
    for doc_id in ("3", "4"):
        assert np.array_equal(cache.get(doc_id, doc_id, counting), expected[doc_id])
    assert np.array_equal(cache.get_many(ids, ids, counting), counting.vectors(ids))
    found, matrix = cache.matrix("fake", collection="")
    assert sorted(found) == sorted(ids)
    assert all(np.array_equal(expected[doc_id], vector) for doc_id, vector in zip(found, matrix, strict=True))
    assert sum(1 for _ in cache.documents()) == len(cache) == 65
    assert counting.calls == []


def reads_only(cache: EmbeddingCache) -> None:
    """Open the file, and look at all of it."""
    cache.stats()


# Those of the first list open the file themselves while calls fail; of the others, only the operation's own calls do.
Operation = Callable[[EmbeddingCache], object]
OPENING: dict[str, tuple[str, Operation]] = {
    "create": ("none", reads_only),
    "open and put": ("cache", put),
    "open and read": ("cache", read),
    "migrate from version 1": ("version 1", reads_only),
    "migrate from version 2": ("version 2", reads_only),
    "recover": ("killed", reads_only),
}
OPENED: dict[str, tuple[str, Operation]] = {
    "put": ("cache", put),
    "put much": ("cache", put_much),
    "get_many": ("cache", fill),
    "record": ("cache", record),
    "read": ("cache", read),
    "invalidate": ("cache", lambda cache: cache.invalidate(names(0, 20))),
    "clear": ("cache", lambda cache: cache.clear(collection="")),
    "prune": ("cache", lambda cache: cache.prune(standalone=True)),
    "rename_model": ("cache", lambda cache: cache.rename_model("fake", "renamed")),
    "convert": ("cache", lambda cache: cache.convert("fake", dtype="float16")),
    "compact": ("cache", lambda cache: cache.compact()),
    "backup": ("cache", lambda cache: cache.backup(cache.path.with_name(BACKUP))),
}
OPERATIONS = {**OPENING, **OPENED}


# --- files ----------------------------------------------------------------------------------


def make_templates(folder: Path) -> None:
    """Make a folder for each file that an operation begins with."""
    for name in {template for template, _ in OPERATIONS.values()}:
        (folder / name).mkdir(parents=True)
    for version in (1, 2):
        shutil.copyfile(golden.FOLDER / f"schema_{version}.db", folder / f"version {version}" / "embeddings.db")
    make_template(folder / "cache" / "embeddings.db")
    make_killed(folder / "cache" / "embeddings.db", folder / "killed")


def make_template(path: Path) -> None:
    """Make a file with several of everything, and with room in it."""
    with EmbeddingCache(path) as cache:
        ids = names(0, 60)
        cache.get_many(ids, ids, encoder())
        cache.get_many(names(0, 5), names(0, 5), encoder(), collection="other")
        cache.embed(["a query"], encoder())
        ids = names(1000, 2000)
        cache.put_many(ids, ids, encoder().vectors(ids), model_name="forgotten")
        cache.clear(model_name="forgotten")


def make_killed(path: Path, folder: Path) -> None:
    """Copy a file as a process leaves it that is killed when half of a transaction is in it."""
    copy = folder / "copied.db"
    shutil.copyfile(path, copy)
    with EmbeddingCache(copy) as cache, cache._store.writing():
        put_much(cache)
        shutil.copyfile(f"{copy}-journal", folder / "embeddings.db-journal")
        # By another process: to open a file that this one has open would drop its locks.
        subprocess.run(["cp", copy, folder / "embeddings.db"], check=True)
    copy.unlink()


def state_of(path: Path) -> State:
    """Every row, without what varies."""
    tables = {table: found for table, found in dump(path).items() if table not in LEFT_OUT}
    for table, varying in VARYING.items():
        with connection(path) as opened:
            columns = [row[1] for row in opened.execute(f"PRAGMA table_info({table})")]
        kept = [i for i, column in enumerate(columns) if column not in varying]
        tables[table] = [tuple(row[i] for i in kept) for row in tables[table]]
    backup = path.with_name(BACKUP)
    return {**tables, BACKUP: [(table, *found) for table, found in dump(backup).items()] if backup.exists() else []}


def look(path: Path) -> tuple[State, list[str], list[str]]:
    """Open a file that nothing fails for, and give its state, what is wrong, and what lies beside it."""
    with EmbeddingCache(path, timeout_s=TIMEOUT_S) as cache:
        problems = list(map(str, cache.verify()))
    return state_of(path), problems, beside(path)


def beside(path: Path) -> list[str]:
    """Name what lies in the folder of a file, and in that of SQLite's temporary files."""
    folder = path.parent
    return sorted({file.name for file in (*folder.iterdir(), *(folder / "tmp").iterdir())} - {path.name, "tmp", BACKUP})


def difference(state: State, before: State, after: State) -> str:
    if state == before:
        return "both" if before == after else "before"
    if state == after:
        return "after"
    tables = [table for table in {*state, *after} if state.get(table) not in (before.get(table), after.get(table))]
    return f"neither: {sorted(tables) or 'a mixture'}"


# --- operating ------------------------------------------------------------------------------


def temporary_files(folder: Path) -> dict[str, str]:
    """Give what the environment of a process must have for SQLite's temporary files to be in the folder, too."""
    return {"SQLITE_TMPDIR": str(folder / "now" / "tmp")}


class Operating:
    """An operation on a copy of its file, and what it leads to.

    FOLDER/now is where the file is, FOLDER/now/tmp for SQLite's temporary files.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.template, self.act = OPERATIONS[name]
        self.path = folder / "now" / "embeddings.db"
        self.templates = folder / "templates"
        self.prepare("cache" if self.template == "killed" else self.template)
        n_before = self.path.stat().st_size if self.path.exists() else 0
        self.before = look(self.path)[0]
        self.prepare()
        with EmbeddingCache(self.path) as cache:
            self.act(cache)
        self.after = look(self.path)[0]
        self.sizes = (n_before, self.path.stat().st_size)

    def prepare(self, template: str | None = None) -> None:
        """Make the folder anew."""
        for old in self.path.parent.glob("*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(self.templates / (template or self.template), self.path.parent, dirs_exist_ok=True)
        (self.path.parent / "tmp").mkdir()

    def opened(self) -> EmbeddingCache | None:
        """Give the cache of an operation on one that is open; None where it opens the file itself."""
        if self.name in OPENING:
            return None
        cache = EmbeddingCache(self.path, timeout_s=TIMEOUT_S)
        len(cache)  # its connection is open
        return cache

    def operate(self, cache: EmbeddingCache | None) -> None:
        if cache is not None:
            self.act(cache)
            return
        with EmbeddingCache(self.path, timeout_s=TIMEOUT_S) as opened:
            self.act(opened)
