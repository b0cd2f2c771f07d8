"""A cache that is used for long: memory, open files and the file itself stay bounded."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally

N_THREADS = 4
N_IDS = 400  # of each thread; texts change, so that what is forgotten must make room
DIM = 32

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="only /proc tells how much memory is in use now"
)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def n_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class User:
    """A thread that puts, gets, reads and forgets documents of its own, and now and then opens the file again."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.rng = random.Random(number)
        self.cache = EmbeddingCache(path, check_canary=False)
        self.done: Counter[str] = Counter(calls=0, wrong_rows=0, problems=0, texts_encoded_twice=0)

    def use(self, until: float) -> None:
        while time.monotonic() < until:
            encoder = CountingEncoder(DIM)
            edition = self.rng.randrange(10**9)
            some = self.rng.sample(range(N_IDS), 40)
            ids = [f"{self.number}-{i}" for i in some]
            texts = [f"text {self.number}-{i}, edition {edition}" for i in some]
            given = self.cache.get_many(ids, texts, encoder)
            _, found = self.cache.matrix("fake", doc_ids=ids)
            expected = encoder.vectors(texts)
            self.done["wrong_rows"] += int(
                (given != expected).any(axis=1).sum() + (found != expected).any(axis=1).sum()
            )
            self.cache.put_many(ids[:5], texts[:5], np.ones((5, DIM), np.float32), model_name="put")
            self.cache.invalidate(ids[:10])
            self.cache.prune()
            self.done["texts_encoded_twice"] += encoder.n_texts - len(set(encoder.texts))
            self.done["calls"] += 5
            if self.rng.random() < 0.1:
                self.done["problems"] += len(self.cache.verify())
                self.cache.close()
                self.cache = EmbeddingCache(self.path, check_canary=False)
        self.cache.close()


def measure(path: Path, users: list[User], duration_s: float) -> list[tuple[int, int, int]]:
    """Let all go on for a time; give memory, open files and the size of the file at ten moments of it."""
    until = time.monotonic() + duration_s
    threads = [threading.Thread(target=user.use, args=(until,)) for user in users]
    for thread in threads:
        thread.start()
    measured = []
    for _ in range(10):
        threads[0].join(duration_s / 10)
        measured.append((resident_bytes(), n_open_files(), path.stat().st_size))
    for thread in threads:
        thread.join()
    return measured


@needs_proc
def test_long_use_takes_no_more_memory_files_and_room(cache_path: Path, tally: Tally, is_whole: bool) -> None:
    duration_s = 600.0 if is_whole else 2.0
    warm_up = [User(cache_path, number) for number in range(N_THREADS)]
    measure(cache_path, warm_up, duration_s / 10)
    n_files = n_open_files()
    users = [User(cache_path, number) for number in range(N_THREADS)]
    measured = measure(cache_path, users, duration_s)
    first, last = (np.median(half, axis=0) for half in (measured[:5], measured[5:]))
    growth_kib = max(0, int(last[0] - first[0]) // 1024)
    done = sum((user.done for user in [*warm_up, *users]), Counter())
    # A vector of each id, one more where it was put as well, and unused pages.
    most_bytes = 4 * N_THREADS * N_IDS * 2 * (4 * DIM + 200) + 2**20
    with EmbeddingCache(cache_path) as cache:
        n_problems = len(cache.verify())
        cache.compact()
    counts = {
        "seconds": int(duration_s),
        "calls": done["calls"],
        "wrong_rows": done["wrong_rows"],
        "problems": done["problems"] + n_problems,
        "texts_encoded_twice": done["texts_encoded_twice"],
        "memory_growth_kib": growth_kib,
        "open_files_left": n_open_files() - n_files,
        "file_kib": int(last[2]) // 1024,
    }
    tally.add("a soak", **counts)
    assert counts["wrong_rows"] == counts["problems"] == counts["texts_encoded_twice"] == 0
    assert counts["open_files_left"] == 0
    assert max(open_files for _, open_files, _ in measured) <= n_files + 6 * N_THREADS
    assert last[2] <= most_bytes, "the file grows"
    assert growth_kib < (4 if is_whole else 16) * 1024, "memory grows"
