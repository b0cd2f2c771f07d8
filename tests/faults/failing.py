"""A process in which system calls fail: the n-th of a kind, in a child of its own for each n.

    LD_PRELOAD=SHIM EMBSTORE_SHIM_MARKER=MARKER python -m tests.faults.failing SHIM FOLDER SHARE SEED

Each case becomes a line of JSON: the fields of `Case`. FOLDER must have MARKER in its name; of the calls that each
operation makes, one in SHARE is made to fail, with SHARE = 1 each one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from embstore import EmbeddingCache, EmbstoreError
from embstore.stores.tables import vectors
from tests.fakes import CountingEncoder
from tests.files import Row, connection, dump
from tests.golden import make_golden as golden

TIMEOUT_S = 0.3
DIM = 128

KINDS = ("write", "sync", "truncate", "open", "unlink", "read", "close", "lock", "stat", "mkdir")
HALF, HALF_THEN_FULL = -1, -2

# What a call of each kind can say. `HALF` and EINTR are no failures: they must go unnoticed.
FAULTS: dict[str, list[int]] = {
    "write": [errno.EIO, errno.ENOSPC, errno.EFBIG, HALF, HALF_THEN_FULL, errno.EINTR],
    "sync": [errno.EIO, errno.ENOSPC],
    "truncate": [errno.EIO],
    "open": [errno.EACCES, errno.EMFILE, errno.EIO, errno.ENOSPC, errno.EINTR],
    "unlink": [errno.EIO, errno.EACCES],
    "read": [errno.EIO, HALF, errno.EINTR],
    "close": [errno.EIO],
    "lock": [errno.EIO, errno.ENOLCK],
    "stat": [errno.EIO],
    "mkdir": [errno.EACCES, errno.ENOSPC],
}
MAGIC = bytes.fromhex("d9d505f920a163d7")  # that a rollback journal begins with
UNNOTICED = (HALF, errno.EINTR)
COMMITTING = ("sync", "unlink")  # few calls, around the moment that decides: more of them are made to fail
MOST_CALLS = 60  # of a kind; of more, every second, third, ... fails

State = dict[str, list[Row]]

# When a row came about differs from run to run, and so its checksum, which `verify` looks at. How fast models are is
# noted where that can be.
VARYING: dict[str, tuple[str, ...]] = {"models": ("created_at", "checksum")}
LEFT_OUT = ("encodings", "_sqlite_migrations")


@dataclass(frozen=True)
class Case:
    """What became of one operation of which a call failed."""

    operation: str
    fault: str
    n: int
    n_failed: int
    error: str  # the class, "" where there was none
    is_typed: bool
    state: str  # "before", "after", "both" where they are the same, else what differs
    problems: list[str]
    beside: list[str]
    again: str  # what the same operation led to when it was done once more without the fault: "after"
    trace: str = ""


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
    with mock.patch.object(vectors, "CACHE_KIB", 512), cache._store.writing():
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
}
OPERATIONS = {**OPENING, **OPENED}


# --- files ----------------------------------------------------------------------------------


def make_templates(folder: Path) -> None:
    """Make a folder for each file that an operation begins with."""
    for name in {template for template, _ in OPERATIONS.values()}:
        (folder / name).mkdir(parents=True)
    for version in (1, 2):
        shutil.copyfile(golden.FOLDER / f"schema_{version}.db", folder / f"version {version}" / "embeddings.db")
    with EmbeddingCache(folder / "cache" / "embeddings.db") as cache:
        ids = names(0, 60)
        cache.get_many(ids, ids, encoder())
        cache.get_many(names(0, 5), names(0, 5), encoder(), collection="other")
        cache.embed(["a query"], encoder())
        ids = names(1000, 2000)  # room to give back
        cache.put_many(ids, ids, encoder().vectors(ids), model_name="forgotten")
        cache.clear(model_name="forgotten")
    make_killed(folder / "cache" / "embeddings.db", folder / "killed")


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
    return tables


def look(path: Path) -> tuple[State, list[str], list[str]]:
    """Open a file that nothing fails for, and give its state, what is wrong, and what lies beside it."""
    with EmbeddingCache(path, timeout_s=TIMEOUT_S) as cache:
        problems = list(map(str, cache.verify()))
    return state_of(path), problems, [name for name in beside(path) if not is_cold(path.with_name(name))]


def beside(path: Path) -> list[str]:
    """Name what lies in the folder of a file, and in that of SQLite's temporary files."""
    folder = path.parent
    return sorted({file.name for file in (*folder.iterdir(), *(folder / "tmp").iterdir())} - {path.name, "tmp"})


def is_cold(journal: Path) -> bool:
    """A journal that says nothing, as it was never synced: SQLite leaves it until it next needs one.

    Source: https://sqlite.org/fileformat2.html#the_rollback_journal
    """
    return journal.name.endswith("-journal") and journal.read_bytes()[: len(MAGIC)] != MAGIC


def write_once(path: Path) -> None:
    """Whatever was left is used up."""
    with EmbeddingCache(path, timeout_s=TIMEOUT_S) as cache:
        cache.put_many(["a"], ["a"], np.ones((1, 2)), model_name="yet another")


def difference(state: State, before: State, after: State) -> str:
    if state == before:
        return "both" if before == after else "before"
    if state == after:
        return "after"
    tables = [table for table in {*state, *after} if state.get(table) not in (before.get(table), after.get(table))]
    return f"neither: {sorted(tables) or 'a mixture'}"


# --- cases ----------------------------------------------------------------------------------


class Shim:
    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def arm(self, kind: str, n: int, error: int, *, lasting: bool) -> None:
        self._library.shim_arm(KINDS.index(kind), ctypes.c_long(n), error, int(lasting))

    def disarm(self) -> int:
        return int(self._library.shim_disarm())

    def n_calls(self) -> dict[str, int]:
        """Tell how many calls of each kind there were since `arm`."""
        return {kind: int(self._library.shim_calls(i)) for i, kind in enumerate(KINDS)}


def fault_name(kind: str, error: int, *, lasting: bool) -> str:
    what = {HALF: "half", HALF_THEN_FULL: "half, then ENOSPC"}.get(error) or errno.errorcode[error]
    return f"{kind} {what}{', all from then on' if lasting else ''}"


class Operating:
    """An operation on a copy of its file, and what it leads to."""

    def __init__(self, name: str, folder: Path, shim: Shim) -> None:
        self.name = name
        self.template, self.act = OPERATIONS[name]
        self.path = folder / "now" / "embeddings.db"
        self.templates = folder / "templates"
        self.shim = shim
        self.prepare("cache" if self.template == "killed" else self.template)
        self.before = look(self.path)[0]
        self.prepare()
        with EmbeddingCache(self.path) as cache:
            self.act(cache)
        self.after = look(self.path)[0]

    def prepare(self, template: str | None = None) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
        shutil.copytree(self.templates / (template or self.template), self.path.parent)
        (self.path.parent / "tmp").mkdir()

    def count(self) -> dict[str, int]:
        """Tell how many calls of each kind there are."""
        self.prepare()
        ours, theirs = Pipe()
        if os.fork() == 0:
            self._do(theirs, "write", 1 << 40, errno.EIO, lasting=False)
        error, _, _, n_calls, trace = self._told(ours, theirs)
        assert not error, trace
        ours.send("end")
        os.wait()
        return dict(n_calls)

    def case(self, kind: str, n: int, error: int, *, lasting: bool) -> Case:
        """Let a child operate while calls fail, look at the file, and let the child do it once more."""
        self.prepare()
        ours, theirs = Pipe()
        if os.fork() == 0:
            self._do(theirs, kind, n, error, lasting=lasting)
        name, is_typed, n_failed, _, trace = self._told(ours, theirs)
        try:
            state, problems, others = look(self.path)
            found = difference(state, self.before, self.after)
        except EmbstoreError as failed:
            found, problems, others = f"{type(failed).__name__}: {failed}", [], []
        is_done = not name or found == "after"
        ours.send("end" if is_done else "again")
        again = "after" if is_done else ours.recv()
        os.wait()
        if not again:
            state, more, _ = look(self.path)
            again = "after" if state == self.after and not more else difference(state, self.before, self.after)
        if beside(self.path):
            write_once(self.path)
            others += beside(self.path)
        fault = fault_name(kind, error, lasting=lasting)
        return Case(self.name, fault, n, n_failed, name, is_typed, found, problems, others, again, trace)

    @staticmethod
    def _told(ours: Connection, theirs: Connection) -> Any:
        theirs.close()
        return ours.recv()

    def _do(self, told: Connection, kind: str, n: int, error: int, *, lasting: bool) -> None:
        """What the child does; it never returns."""
        try:
            cache = None if self.name in OPENING else EmbeddingCache(self.path, timeout_s=TIMEOUT_S)
            if cache is not None:
                len(cache)  # its connection is open
            self.shim.arm(kind, n, error, lasting=lasting)
            outcome: tuple[str, bool, str] = ("", True, "")
            try:
                self._operate(cache)
            except Exception as raised:
                outcome = (type(raised).__name__, isinstance(raised, EmbstoreError), traceback.format_exc())
            n_failed = self.shim.disarm()
            told.send((*outcome[:2], n_failed, self.shim.n_calls(), outcome[2]))
            if told.recv() == "again":
                try:
                    self._operate(cache)
                    told.send("")
                except Exception:
                    told.send(traceback.format_exc())
            if cache is not None:
                cache.close()
        finally:
            os._exit(0)

    def _operate(self, cache: EmbeddingCache | None) -> None:
        if cache is not None:
            self.act(cache)
            return
        with EmbeddingCache(self.path, timeout_s=TIMEOUT_S) as opened:
            self.act(opened)


def cases_of(operating: Operating, share: int, rng: random.Random) -> Iterator[Case]:
    """Every fault at every call, one in `share` of them; where all are asked for, also the n at which none fails."""
    counts = operating.count()
    for kind, errors in FAULTS.items():
        n_calls = counts[kind]
        step = max(1, n_calls // MOST_CALLS)
        one_in = max(1, share // 10) if kind in COMMITTING else share
        for error in errors:
            for lasting in (False, True):
                if lasting and error in (*UNNOTICED, HALF_THEN_FULL):
                    continue
                for n in range(1, n_calls + 1, step):
                    if rng.randrange(one_in) == 0:
                        yield operating.case(kind, n, error, lasting=lasting)
        if share == 1:
            yield operating.case(kind, n_calls + 1, errors[0], lasting=True)


def main(shim: str, folder: Path, share: int, seed: int) -> None:
    templates = folder / "templates"
    make_templates(templates)
    os.environ["TMPDIR"] = os.environ["SQLITE_TMPDIR"] = str(folder / "now" / "tmp")
    for name in sys.argv[5:] or OPERATIONS:
        operating = Operating(name, folder, Shim(shim))
        for case in cases_of(operating, share, random.Random(f"{seed} {name}")):
            print(json.dumps(asdict(case)), flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
