"""A program that forks again and again with an open cache, and tells what became of its children's work and its own.

    python -m tests.faults.forker FILE N_FORKS SEED

One line of JSON on stdout: the forks by the state in which they came, and what was found wrong.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

STATES = ("idle", "in a transaction", "another thread writes", "another thread reads")
WORKS = ("nothing", "read", "write", "close", "forget")
ENDS = ("os._exit", "sys.exit", "an exception", "exec", "return")
CODES = {"os._exit": 7, "sys.exit": 7, "an exception": 1, "exec": 7, "return": 0}
WRONG = 99

TEXTS = [f"text {i}" for i in range(20)]

# Another program, which tells each time that it is asked whether it could write now.
PROBE = """
import sys
from embstore.stores.sqlite_errors import sqlite3
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
for _ in sys.stdin:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
        print("free", flush=True)
    except sqlite3.OperationalError:
        print("busy", flush=True)
"""


class ChildError(Exception):
    """By which a child ends."""


class Forker:
    """A process with an open cache.

    Attributes
    ----------
    found : Counter
        Forks, and what was wrong after them.
    """

    def __init__(self, path: Path) -> None:
        self.caches = [EmbeddingCache(path)]  # a child can forget it
        self.encoder = CountingEncoder()
        self.found: Counter[str] = Counter(forks=0, children_that_failed=0, locks_lost=0, journals_lost=0)
        self.expected: set[str] = set()
        self.journal = path.with_name(f"{path.name}-journal")
        self.probe = subprocess.Popen(
            [sys.executable, "-c", PROBE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.caches[0].embed(TEXTS, self.encoder)

    def put(self, name: str) -> None:
        """Store a document; it is expected to be there at the end."""
        self.caches[0].get(name, f"text of {name}", self.encoder)
        self.expected.add(name)

    def is_busy(self) -> bool:
        assert self.probe.stdin is not None
        assert self.probe.stdout is not None
        self.probe.stdin.write("\n")
        self.probe.stdin.flush()
        return self.probe.stdout.readline() == "busy\n"

    def fork(self, number: int, state: str, work: str, end: str) -> None:
        with self.state(state, number) as leave:
            pid = os.fork()
            if pid == 0:
                self.be_a_child(number, work, end)
            if work == "write":
                self.expected.add(f"child {number}")
                leave()  # or the child would wait for its lock for ever
            _, status = os.waitpid(pid, 0)
            self.found["forks"] += 1
            self.found["children_that_failed"] += os.waitstatus_to_exitcode(status) != CODES[end]
            if state == "in a transaction":
                self.found["locks_lost"] += not self.is_busy()
                self.found["journals_lost"] += not self.journal.exists()
        self.put(f"after {number}")

    @contextlib.contextmanager
    def state(self, state: str, number: int) -> Iterator[Callable[[], None]]:
        """The state in which a fork comes; what is given ends it before the block does."""
        store = self.caches[0]._store
        if state == "in a transaction":
            with contextlib.ExitStack() as transaction:
                transaction.enter_context(store.writing())
                self.put(f"during {number}")
                yield transaction.close
        elif state == "idle":
            yield lambda: None
        else:
            begun, release = threading.Event(), threading.Event()

            def hold() -> None:
                with store.writing() if state == "another thread writes" else store.reading():
                    if state == "another thread writes":
                        self.put(f"during {number}")
                    else:
                        list(self.caches[0].documents())
                    begun.set()
                    release.wait(0.01)  # nothing tells when fork() has begun to wait

            thread = threading.Thread(target=hold)
            thread.start()
            begun.wait()
            yield release.set
            thread.join()

    def be_a_child(self, number: int, work: str, end: str) -> None:
        """Do something with the cache, and end; what goes wrong ends with a code of its own."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # an exception is told there
        try:
            cache = self.caches[0]
            if work in ("read", "write"):
                vectors = cache.embed(TEXTS, CountingEncoder())
                assert np.array_equal(vectors, self.encoder.vectors(TEXTS))
                assert cache.verify() == []
            if work == "write":
                name = f"child {number}"
                cache.get(name, f"text of {name}", CountingEncoder())
                cache.invalidate("nobody")
            if work == "close":
                cache.close()
            if work == "forget":
                self.caches.clear()
                del cache
                gc.collect()
        except BaseException:
            os._exit(WRONG)
        if end == "os._exit":
            os._exit(7)
        if end == "exec":
            os.execv(sys.executable, [sys.executable, "-S", "-c", "raise SystemExit(7)"])
        if end == "an exception":
            raise ChildError
        sys.exit(CODES[end])  # through every block that the fork came in

    def close(self) -> None:
        cache = self.caches[0]
        held = {row.doc_id for row in cache.documents()}
        ids, vectors = cache.matrix("fake")
        expected = self.encoder.vectors([f"text of {name}" for name in ids])
        self.found["documents_lost"] = len(self.expected - held)
        self.found["documents_too_many"] = len(held - self.expected)
        self.found["wrong_rows"] = int((vectors != expected).any(axis=1).sum())
        self.found["problems"] = len(cache.verify())
        cache.close()
        self.found["journals_left"] = int(self.journal.exists())
        self.probe.communicate()


def main(path: Path, n_forks: int, seed: str) -> None:
    rng = random.Random(seed)
    forker = Forker(path)
    for number in range(n_forks):
        state = STATES[number % len(STATES)]
        # A child inherits SQLite's list of the locks of its process, and never hears that they were let go: forked
        # inside of a transaction it cannot write. Only the library's own blocks are that; a fork waits for others.
        works = [work for work in WORKS if (state, work) != ("in a transaction", "write")]
        forker.fork(number, state, rng.choice(works), rng.choice(ENDS))
    forker.close()
    sys.stdout.write(json.dumps(forker.found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
