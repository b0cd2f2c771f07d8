"""A library, and every call that reads it, run where memory and time are bounded: ``python -m tests.faults.reading``.

Each file is read in a child of its own, so that whatever it does there ends with the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from embstore import CachedSemanticSearchEngine, EmbeddingCache, EmbstoreError, repair
from embstore.cli import main
from embstore.search.defaults import CACHE_NAME
from tests.fakes import CountingEncoder

MEMORY_BYTES = 256 * 2**20
PATIENCE_S = 60

ENCODER = CountingEncoder(dim=8)
TEXTS = {f"doc {i}": f"text {i}" for i in range(6)}
BYTES = {f"key {i}": bytes([i]) * 9 for i in range(6)}
HALVES = CountingEncoder(dim=4, model_name="halves")


class WrongVectorError(Exception):
    """A vector came back that is not the one of its text."""


def make_library(folder: Path) -> Path:
    """A closed library with an exact index, and in its cache a model of each format; gives the path of the file."""
    doc_ids, texts = list(TEXTS), list(TEXTS.values())
    metadatas = [{"year": 2000 + i, "tags": ["a", "b"]} for i in range(len(TEXTS))]
    with CachedSemanticSearchEngine(ENCODER, path=folder, index="exact") as engine:
        engine.index_documents(texts, doc_ids, metadatas)
    with EmbeddingCache(folder / CACHE_NAME, dtype="float16") as cache:
        cache.get_many(doc_ids, texts, HALVES)
        cache.embed(["bare"], ENCODER)
        cache.store.byte_values.mset(BYTES)
    return folder / CACHE_NAME


def check(doc_ids: list[str], vectors: Any) -> None:
    """Raise where one of the documents that were made has another vector than its own."""
    for doc_id, vector in zip(doc_ids, vectors, strict=True):
        if doc_id in TEXTS and not np.array_equal(vector, ENCODER.vector(TEXTS[doc_id])):
            raise WrongVectorError(doc_id)


def _matrix(cache: EmbeddingCache) -> None:
    check(*cache.matrix(ENCODER.model_name))


def _iter_matrix(cache: EmbeddingCache) -> None:
    for doc_ids, vectors in cache.iter_matrix(ENCODER.model_name, batch_rows=4):
        check(doc_ids, vectors)


def _get_many(cache: EmbeddingCache) -> None:
    check(list(TEXTS), cache.get_many(list(TEXTS), list(TEXTS.values()), ENCODER))


def _get(cache: EmbeddingCache) -> None:
    for _ in range(2):  # the second finds the model that the first has found
        check(["doc 1"], [cache.get("doc 1", TEXTS["doc 1"], ENCODER)])


def _embed(cache: EmbeddingCache) -> None:
    check(["doc 2"], cache.embed([TEXTS["doc 2"]], ENCODER))


def _bytes(cache: EmbeddingCache) -> None:
    for key, value in zip(BYTES, cache.store.byte_values.mget(list(BYTES)), strict=True):
        if value not in (None, BYTES[key]):
            raise WrongVectorError(key)


CALLS: dict[str, Callable[[EmbeddingCache], object]] = {
    "verify": lambda cache: [str(problem) for problem in cache.verify()],
    "stats": lambda cache: cache.stats().n_documents,
    "models": lambda cache: len(cache.models()),
    "documents": lambda cache: len(list(cache.documents())),
    "contains": lambda cache: "doc 3" in cache,
    "matrix": _matrix,
    "iter_matrix": _iter_matrix,
    "matrix of halves": lambda cache: len(cache.matrix("halves")[0]),
    "matrix by id": lambda cache: check(*cache.matrix(ENCODER.model_name, doc_ids=list(TEXTS))),
    "bytes": _bytes,
    "keys of bytes": lambda cache: list(cache.store.byte_values.keys("key")),
    "prune": lambda cache: cache.prune(dry_run=True).n_vectors,
    "get": _get,
    "embed": _embed,
    "get_many": _get_many,
    "get new": lambda cache: (
        check([], [])
        or cache.get("new", "a text that is new", ENCODER).tolist() == ENCODER.vector("a text that is new").tolist()
    ),
    "invalidate": lambda cache: cache.invalidate("doc 4"),
}


def _search(folder: Path) -> object:
    with CachedSemanticSearchEngine(ENCODER, path=folder, index="exact") as engine:
        engine.search("a query", where={"year": {"$gte": 2001}})
        return [hit.doc_id for hit in engine.search("a query", n_results=9)]


def _command(*arguments: str) -> object:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code


def _repair(folder: Path) -> object:
    shutil.rmtree(folder / "repaired", ignore_errors=True)
    with EmbeddingCache(repair(folder / CACHE_NAME, folder / "repaired" / "new.db").path) as cache:
        assert cache.verify() == []
        if ENCODER.model_name in [model.model_name for model in cache.models()]:
            _matrix(cache)
    return None


FOLDER_CALLS: dict[str, Callable[[Path], object]] = {
    "search": _search,
    "repair": _repair,
    "embstore stats": lambda folder: _command("stats", str(folder)),
    "embstore ls": lambda folder: _command("ls", str(folder)),
    "embstore verify": lambda folder: _command("verify", str(folder)),
}


def outcome(call: Callable[[], object]) -> list[object]:
    """What came of a call: ["gave", what], ["refused", error, message] or ["leaked", error, message]."""
    try:
        return ["gave", call()]
    except EmbstoreError as error:
        return ["refused", type(error).__name__, error.message]
    except Exception as error:
        return ["leaked", type(error).__name__, f"{error}"]


def read_everything(folder: Path, without: Collection[str] = ()) -> dict[str, list[object]]:
    """The outcome of every call but some on the library of a folder; a cache that is not opened is not asked."""
    opened: list[EmbeddingCache] = []
    outcomes = {"open": outcome(lambda: opened.append(EmbeddingCache(folder / CACHE_NAME, timeout_s=5)))}
    for name, of_folder in FOLDER_CALLS.items():
        if name in without:
            continue
        outcomes[name] = outcome(partial(of_folder, folder))
    for cache in opened:
        with cache:
            outcomes |= {name: outcome(partial(call, cache)) for name, call in CALLS.items()}
    return outcomes


def _used_bytes(field: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


def _read_in_child(folder: Path, pipe: int) -> None:
    """Read a library with as much more memory as a stranger's file may take."""
    limit = _used_bytes(0) + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.alarm(PATIENCE_S)
    before, started = _used_bytes(1), time.monotonic()
    outcomes = read_everything(folder)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    said = {"outcomes": outcomes, "peak_bytes": peak_bytes, "seconds": time.monotonic() - started}
    with os.fdopen(pipe, "w") as file:
        json.dump(said, file)


def read_bounded(folder: Path) -> dict[str, Any]:
    """What reading a library came to: its outcomes, "peak_bytes" and "seconds", or the signal that ended it."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(read_end)
            _read_in_child(folder, write_end)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(said) if said else {"ended_by": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(read_bounded(Path(line.strip()))) + "\n")
        sys.stdout.flush()
