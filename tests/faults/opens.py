"""A process that uses everything on a cache that is open, and tells which files it opened, by whom.

    python -m tests.faults.opens FOLDER [SHIM | rogue]

One JSON object is printed: `python`, the files that Python code opened, with where; `libraries`, those that any code
opened, with the library that did (only under LD_PRELOAD=SHIM); `unlocked`, the acts after which a lock was gone. With
"rogue" it does once what must not be done, and prints what came of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from embstore import CachedSemanticSearchEngine, EmbeddingCache, EmbstoreError, repair
from embstore.cli import main as command
from tests.fakes import CountingEncoder
from tests.faults.locks import locked_by

ENCODER = CountingEncoder()
FILE = "traced.db"


# --- what Python opens ----------------------------------------------------------------------


class Opened:
    """The opens of Python code, with the lines that did them, of files whose real path is one of those given."""

    def __init__(self, files: list[Path]) -> None:
        self._files = {os.path.realpath(file) for file in files}
        self.found: list[list[str]] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            # A file that is made anew by this call has been opened by nobody else.
            if os.path.realpath(path) in self._files and not flags & os.O_EXCL:
                self.found.append([path, "".join(traceback.format_stack(limit=8))])


# --- acts -----------------------------------------------------------------------------------


def texts(n: int) -> list[str]:
    return [f"text {i}" for i in range(n)]


Act = Callable[[EmbeddingCache, Path], object]

# By the names of the public methods: a test looks that none is left out.
ACTS: dict[str, Act] = {
    "put_many": lambda cache, _: cache.put_many(texts(9), texts(9), ENCODER.vectors(texts(9)), model_name="put"),
    "get": lambda cache, _: cache.get("text 1", "text 1", ENCODER),
    "get_many": lambda cache, _: cache.get_many(texts(30), texts(30), ENCODER),
    "fill": lambda cache, _: cache.fill(texts(40), texts(40), ENCODER),
    "embed": lambda cache, _: cache.embed(texts(50), ENCODER),
    "embed_query": lambda cache, _: cache.embed_query("a query", ENCODER),
    "canary": lambda cache, _: cache.canary(ENCODER),
    "missing": lambda cache, _: cache.missing(texts(60), ENCODER),
    "estimate_s": lambda cache, _: cache.estimate_s(100, ENCODER),
    "stored_vectors": lambda cache, _: cache.stored_vectors([bytes(32)], ENCODER),
    "matrix": lambda cache, _: cache.matrix("fake"),
    "iter_matrix": lambda cache, _: list(cache.iter_matrix("fake")),
    "documents": lambda cache, _: list(cache.documents()),
    "models": lambda cache, _: cache.models(),
    "identity_of": lambda cache, _: cache.identity_of(ENCODER),
    "stored_model": lambda cache, _: cache.stored_model("fake"),
    "stats": lambda cache, _: cache.stats(),
    "verify": lambda cache, _: cache.verify(),
    "backup": lambda cache, folder: cache.backup(folder / "backup.db"),
    "invalidate": lambda cache, _: cache.invalidate("text 3"),
    "prune": lambda cache, _: cache.prune(standalone=True),
    "convert": lambda cache, _: cache.convert("put", dtype="float16"),
    "rename_model": lambda cache, _: cache.rename_model("put", "put elsewhere"),
    "clear": lambda cache, _: cache.clear(model_name="put elsewhere"),
    "compact": lambda cache, _: cache.compact(),
    "close": lambda cache, _: EmbeddingCache(cache.path).close(),  # of another on the same file
}
BESIDE_METHODS: dict[str, Act] = {
    "repair": lambda cache, folder: repair(cache.path, folder / "repaired.db"),
    "open and fail": lambda cache, _: fail_to_open(cache.path),
    "open through a link": lambda cache, folder: open_through_link(cache.path, folder / "link.db"),
    "embstore stats": lambda cache, _: run("stats", cache.path),
    "embstore ls": lambda cache, _: run("ls", cache.path),
    "embstore verify": lambda cache, _: run("verify", cache.path),
    "embstore backup": lambda cache, folder: run("backup", cache.path, folder / "backup 2.db"),
    "embstore repair": lambda cache, folder: run("repair", cache.path, "-o", folder / "repaired 2.db"),
    "embstore convert": lambda cache, _: run("convert", cache.path, "fake", "--dtype", "float16"),
    "embstore compact": lambda cache, _: run("compact", cache.path),
}
# Those that can be done while somebody writes; the others would wait for that.
READING = (
    *("get", "canary", "missing", "estimate_s", "stored_vectors", "matrix", "iter_matrix", "documents", "models"),
    *("stats", "verify", "close", "open and fail", "open through a link"),
    *("embstore stats", "embstore ls", "embstore verify"),
)


def fail_to_open(path: Path) -> None:
    with contextlib.suppress(EmbstoreError):
        EmbeddingCache(path.parent)
    with contextlib.suppress(EmbstoreError):
        EmbeddingCache(path, timeout_s=-1)


def open_through_link(path: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    with EmbeddingCache(link) as cache:
        len(cache)


def run(*arguments: object) -> None:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def use_engine(library: Path, index: Any) -> None:
    """All of an engine, with another cache open on its file."""
    ids = texts(30)
    with CachedSemanticSearchEngine(ENCODER, path=library, index=index) as engine:
        with EmbeddingCache(library / "embeddings.db") as other:
            engine.index_documents(ids, ids, progress=False)
            engine.index_documents(["changed", *ids[1:20]], ids[:20], progress=False)
            engine.reindex_document("text 1", "changed too")
            engine.plan(ids, ids)
            engine.search("text 1")
            engine.reconcile(ids, ids, repair=True)
            engine.delete_documents(["text 2"])
            engine.rename_model("fake", "renamed")
            engine.rename_model("renamed", "fake")
            assert len(other)
        engine.search("text 2")


def lost_locks(cache: EmbeddingCache, folder: Path) -> Iterator[str]:
    """Do what reads while a transaction writes, and name that after which its lock is gone."""
    acts = {**ACTS, **BESIDE_METHODS}
    for name in READING:
        with EmbeddingCache(cache.path) as writer, writer._store.writing() as connection:
            connection.execute("UPDATE models SET created_at = created_at")
            assert locked_by(cache.path) == os.getpid()
            acts[name](cache, folder)
            if locked_by(cache.path) != os.getpid():
                yield name


def main(folder: Path, shim: str | None) -> None:
    folder.mkdir(exist_ok=True)
    path, libraries = folder / FILE, {kind: folder / kind for kind in ("exact", "chroma")}
    EmbeddingCache(path).close()
    opened = Opened([path, *(library / "embeddings.db" for library in libraries.values())])
    with EmbeddingCache(path) as cache:
        cache.get_many(texts(20), texts(20), ENCODER)
        for act in (*ACTS.values(), *BESIDE_METHODS.values()):
            act(cache, folder)
        unlocked = list(lost_locks(cache, folder))
        assert np.allclose(cache.get("text 1", "text 1", ENCODER), ENCODER.vector("text 1"), atol=0.001)  # float16
        for kind, library in libraries.items():
            if kind == "exact" or has_chroma():
                use_engine(library, kind)
    print(json.dumps({"python": opened.found, "libraries": openers(shim), "unlocked": unlocked}))  # noqa: T201


def be_rogue(folder: Path) -> None:
    """Open the file while a transaction writes, and let another process write."""
    folder.mkdir(exist_ok=True)
    path = folder / FILE
    opened = Opened([path])
    with EmbeddingCache(path) as cache:
        cache.put_many(["ours"], ["ours"], np.ones((1, 8)), model_name="m")
        with contextlib.suppress(EmbstoreError), cache._store.writing():  # the other removes our journal
            cache.put_many(["more of ours"], ["more of ours"], np.ones((1, 8)), model_name="m")
            before = locked_by(path) == os.getpid()
            path.open("rb").close()
            after = locked_by(path)
            other = "import sys, numpy as np, embstore; "
            other += "cache = embstore.EmbeddingCache(sys.argv[1], timeout_s=0.2); "
            other += "cache.put_many(['theirs'], ['theirs'], np.ones((1, 8)), model_name='m'); print('acknowledged')"
            told = subprocess.run([sys.executable, "-c", other, path], stdout=subprocess.PIPE, text=True).stdout
    with EmbeddingCache(path) as cache:
        kept = "theirs" in cache
    result = {"before": before, "after": after, "told": told, "kept": kept, "python": opened.found}
    print(json.dumps(result))  # noqa: T201


def openers(shim: str | None) -> list[list[str]]:
    """Who opened what, each once, by the names of the library and of the file."""
    if shim is None:
        return []
    library = ctypes.CDLL(shim)
    library.shim_opens.restype = ctypes.c_char_p
    lines = {tuple(line.split("\t")) for line in library.shim_opens().decode().splitlines()}
    return sorted([Path(who).name, Path(path).name] for who, path in lines)


def has_chroma() -> bool:
    try:
        import chromadb  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[2:] == ["rogue"]:
        be_rogue(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
