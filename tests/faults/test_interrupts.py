"""Ctrl-C and cancelled threads at any moment: what was stored stays whole, and nothing is left locked or running."""

from __future__ import annotations

import contextlib
import ctypes
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, claims, filling
from embstore.identity import content_hash
from embstore.search import given, indexing, lock
from embstore.stores import forks
from embstore.stores.sqlite_errors import sqlite3
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally
from tests.files import rows
from tests.threads import n_background

N = 60
Work = Callable[[], object]
Counts = dict[str, int]


class Cancelled(BaseException):
    """What a thread is cancelled by."""


# --- two ways to interrupt ------------------------------------------------------------------


def by_ctrl_c(work: Work, moment_s: float) -> bool:
    """Run something in the main thread, which is sent SIGINT after a time; tell whether it was interrupted."""
    main = threading.get_ident()

    def send() -> None:
        time.sleep(moment_s)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    timer = threading.Thread(target=send, daemon=True)
    is_done = False
    try:
        timer.start()
        work()
        is_done = True
        while True:  # until it comes
            timer.join(0.01)
    except KeyboardInterrupt:
        return not is_done


def by_cancelling(work: Work, moment_s: float) -> bool:
    """Run something in a thread in which an exception is raised after a time; tell whether it was interrupted."""
    ended: list[bool] = []

    def run() -> None:
        try:
            work()
            ended.append(True)
            while True:  # until it comes
                time.sleep(0.001)
        except Cancelled:
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(moment_s)
    for _ in range(60):  # one goes astray where the thread is just beginning another
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Cancelled))
        thread.join(1)
        if not thread.is_alive():
            break
    assert not thread.is_alive(), "the thread never ended"
    return not ended


INTERRUPTS: dict[str, Callable[[Work, float], bool]] = {"Ctrl-C": by_ctrl_c, "a cancelled thread": by_cancelling}


@pytest.fixture(autouse=True)
def _interruptible(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGINT as in a terminal, and groups and windows so small that a second thread stores them."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    monkeypatch.setattr(filling, "GROUP_ROWS", 10)
    monkeypatch.setattr(given, "WINDOW", 20)
    monkeypatch.setattr(indexing, "WINDOW", 20)
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: None)  # by which that other one ends
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# --- what may be left behind ----------------------------------------------------------------


def taken_locks(cache: EmbeddingCache, engine: CachedSemanticSearchEngine | None) -> list[str]:
    """Name the locks of this process that somebody holds, asked from a thread that holds none."""
    database: Any = cache._store._database  # type: ignore[attr-defined]
    named: list[tuple[str, Any]] = [("fork", held) for held in forks._locks]
    named += [("connection", handle.lock) for handle in database._handles]
    named += [("model", known.lock) for _, of_model in cache._guard._encoders.values() for known in of_model.values()]
    named += [("claims", claims._lock), ("register", forks._registering), ("open", database._registering)]
    if engine is not None:
        named += [("writer", engine._writer), ("library", lock._guard)]
    taken: list[str] = []

    def ask() -> None:
        for name, held in named:
            if held.acquire(timeout=1):
                held.release()
            else:
                taken.append(name)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return taken


def is_free(path: Path) -> bool:
    """Tell whether nobody reads or writes the file."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
        other.rollback()
        return True


def stored_texts(path: Path, texts: list[str], encoder: CountingEncoder) -> set[str]:
    """Those whose own vector is in the file with a document that points at it; none may be there without."""
    there = dict(rows(path, "SELECT content_hash, vector FROM vectors"))
    pointed_at = {key for (key,) in rows(path, "SELECT content_hash FROM documents JOIN vectors USING (vector_id)")}
    stored = {text for text in texts if content_hash(text) in there}
    for text in stored:
        assert there[content_hash(text)] == encoder.vector(text).tobytes()
    assert {content_hash(text) for text in stored} <= pointed_at
    return stored


class Round:
    """One call that is interrupted, what it left, and the same call once more."""

    def __init__(self, cache: EmbeddingCache, engine: CachedSemanticSearchEngine | None, number: int) -> None:
        self.cache = cache
        self.engine = engine
        self.texts = [f"text {number}-{i}" for i in range(N)]
        self.ids = [f"doc {number}-{i}" for i in range(N)]

    def call(self, encoder: CountingEncoder) -> object:
        if self.engine is not None:
            return self.engine.index_documents(self.texts, self.ids)
        return self.cache.get_many(self.ids, self.texts, encoder, batch_size=5)

    def run(self, encoder: CountingEncoder, interrupt: Callable[[Work, float], bool], moment_s: float) -> Counts:
        is_interrupted = interrupt(lambda: self.call(encoder), moment_s)
        left = {
            "threads_left": n_background(),
            "locks_left": len(taken_locks(self.cache, self.engine)),
            "claims_left": len(claims._owners),
            "leases_left": len(rows(self.cache.path, "SELECT * FROM leases")),
            "transactions_left": int(not is_free(self.cache.path)),
        }
        if any(left.values()):  # the same call again could wait for ever
            return {"calls": 1, "interrupted": int(is_interrupted), **left}
        stored = stored_texts(self.cache.path, self.texts, encoder)
        n_before = encoder.n_texts
        self.call(encoder)
        again = stored & set(encoder.texts[n_before:])
        found = self.cache.get_many(self.ids, self.texts, encoder)
        return {
            "calls": 1,
            "interrupted": int(is_interrupted),
            "interrupted_with_some_stored": int(is_interrupted and 0 < len(stored) < N),
            **left,
            "encoded_again": len(again),
            "wrong_rows": int((found != encoder.vectors(self.texts)).any(axis=1).sum()),
            "problems": len(self.cache.verify()),
        }


def interrupt_again_and_again(
    cache: EmbeddingCache,
    engine: CachedSemanticSearchEngine | None,
    encoder: CountingEncoder,
    interrupt: str,
    n_rounds: int,
) -> Iterator[Counts]:
    rng = random.Random(f"{interrupt} {engine is None}")
    Round(cache, engine, -2).call(encoder)
    began = time.monotonic()
    Round(cache, engine, -1).call(encoder)
    call_s = time.monotonic() - began
    for i in range(n_rounds):
        yield Round(cache, engine, i).run(encoder, INTERRUPTS[interrupt], rng.uniform(0, call_s))


def what_is_wrong(counts: Counts) -> Counts:
    return {name: n for name, n in counts.items() if n and name != "calls" and not name.startswith("interrupted")}


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupted_get_many_leaves_whole_groups_and_a_cache_that_goes_on(
    interrupt: str, cache: EmbeddingCache, encoder: CountingEncoder, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    for counts in interrupt_again_and_again(cache, None, encoder, interrupt, rounds(6, 200)):
        tally.add(f"{interrupt} in get_many", **counts)
        assert what_is_wrong(counts) == {}


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupted_get_many_that_shares_its_work_leaves_no_lease(
    interrupt: str,
    cache_path: Path,
    encoder: CountingEncoder,
    tally: Tally,
    rounds: Callable[[int, int], int],
) -> None:
    with EmbeddingCache(cache_path, lease_s=60) as cache:
        for counts in interrupt_again_and_again(cache, None, encoder, interrupt, rounds(6, 200)):
            tally.add(f"{interrupt} in get_many with leases", **counts)
            assert what_is_wrong(counts) == {}


@pytest.mark.parametrize(
    ("interrupt", "index"),
    [
        ("Ctrl-C", "exact"),
        ("Ctrl-C", "chroma"),
        ("a cancelled thread", "exact"),
        pytest.param("a cancelled thread", "chroma", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_index_documents_is_done_by_the_same_call_again(
    interrupt: str,
    index: Any,
    library: Path,
    encoder: CountingEncoder,
    tally: Tally,
    rounds: Callable[[int, int], int],
) -> None:
    if index == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    n_rounds = rounds(3, 200)
    with CachedSemanticSearchEngine(encoder, path=library, index=index) as engine:
        for counts in interrupt_again_and_again(engine.cache, engine, encoder, interrupt, n_rounds):
            tally.add(f"{interrupt} in index_documents ({index})", **counts)
            assert what_is_wrong(counts) == {}
        texts = [f"text {number}-{i}" for number in range(-2, n_rounds) for i in range(N)]
        held = {record.doc_id: record.document for page in engine._index.records() for record in page}
        assert held == {text.replace("text", "doc"): text for text in texts}
        assert engine.reconcile().ok
        assert engine.search(texts[-1], 1)[0].document == texts[-1]
        assert np.array_equal(engine.cache.embed(texts, encoder), encoder.vectors(texts))
