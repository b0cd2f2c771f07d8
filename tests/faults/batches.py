"""Batches that a process stores and acknowledges until it dies, and what must be there of them afterwards.

Batch k is stored by `put_many`, `get_many` or `embed`, in turn. `put_many` also gives eight texts that are in each of
its batches a new vector, so that rows of two batches that were mixed would show.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from embstore import EmbeddingCache, UnknownModelError
from embstore.canary import CANARY_TEXT
from embstore.codec import Vectors
from embstore.errors import StoreError
from embstore.stores import opening
from tests.faults.tally import Tally

N_ROWS = 16
DIM = 96
HOT = [f"hot {i}" for i in range(8)]
FOUND = ("lost_batches", "torn_batches", "wrong_vectors", "changed_rows", "problems", "files_beside")
OPEN_MS = 1000

Stored = dict[str, bytes]


def texts_of(batch: int) -> list[str]:
    return [f"batch {batch} row {row}" for row in range(N_ROWS)]


def vectors_of(batch: int) -> Vectors:
    return np.random.default_rng(batch).standard_normal((N_ROWS, DIM)).astype(np.float32)


def hot_vectors_of(batch: int) -> Vectors:
    return np.random.default_rng([batch, 1]).standard_normal((len(HOT), DIM)).astype(np.float32)


class BatchEncoder:
    """Gives the text of each row its vector."""

    model_name = "encoded"

    def __init__(self) -> None:
        self.n_encoded = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        if texts == [CANARY_TEXT]:
            return np.ones((1, DIM), np.float32)
        self.n_encoded += len(texts)
        return np.stack([vectors_of(int(text.split()[1]))[int(text.split()[3])] for text in texts])


def is_put(batch: int) -> bool:
    return batch % 3 == 0


def is_embedded(batch: int) -> bool:
    return batch % 3 == 2


def store(cache: EmbeddingCache, batch: int, encoder: BatchEncoder) -> None:
    texts = texts_of(batch)
    if is_put(batch):
        vectors = np.concatenate([vectors_of(batch), hot_vectors_of(batch)])
        cache.put_many([*texts, *HOT], [*texts, *HOT], vectors, model_name="put")
    elif is_embedded(batch):
        cache.embed(texts, encoder, progress=False)
    else:
        cache.get_many(texts, texts, encoder, progress=False)


def write(acknowledge: Connection, path: Path, first: int) -> None:
    """Store batches from the first on, and acknowledge each when it is stored, until this process is killed."""
    encoder = BatchEncoder()
    with EmbeddingCache(path) as cache:
        for batch in count(first):
            store(cache, batch, encoder)
            acknowledge.send(batch)


def counter(*names: str) -> Counter[str]:
    """Counts that begin at 0, in this order."""
    return Counter(dict.fromkeys(("rounds", *names, "problems", "files_beside"), 0))


def write_until_it_fails(acknowledge: Connection, path: Path, first: int) -> None:
    """Do the same where every write begins to fail."""
    with suppress(StoreError):
        write(acknowledge, path, first)


def write_unsynced(acknowledge: Connection, path: Path, first: int) -> None:
    """Do the same without waiting for the disk, as the cache never does: what a power loss then takes is a control."""
    opening.PER_CONNECTION = tuple(pragma.replace("EXTRA", "OFF") for pragma in opening.PER_CONNECTION)
    write_until_it_fails(acknowledge, path, first)


@contextmanager
def opened(path: Path, counts: Counter[str]) -> Iterator[EmbeddingCache]:
    """Open a file that somebody died on; count how long that takes, what `verify` finds, and what is left beside it."""
    start = time.perf_counter()
    with EmbeddingCache(path) as cache:
        len(cache)
        counts["slowest_open_ms"] = max(counts["slowest_open_ms"], round((time.perf_counter() - start) * 1000))
        yield cache
        counts["problems"] += len(cache.verify())
    counts["files_beside"] += len([file for file in path.parent.iterdir() if file != path])


def stored_in(cache: EmbeddingCache, batches: set[int]) -> Stored:
    """Read the vectors of all documents, and of those of the batches' texts that have no id and are there."""
    stored: Stored = {}
    for model_name in ("put", "encoded"):
        try:
            ids, vectors = cache.matrix(model_name)
        except UnknownModelError:
            continue
        stored.update(zip(ids, map(np.ndarray.tobytes, vectors), strict=True))
    encoder = BatchEncoder()
    texts = [text for batch in sorted(batches) if is_embedded(batch) for text in texts_of(batch)]
    missing = set(cache.missing(texts, encoder))
    there = [text for text in texts if text not in missing]
    if there:
        stored.update(zip(there, map(np.ndarray.tobytes, cache.embed(there, encoder, progress=False)), strict=True))
    assert encoder.n_encoded == 0
    return stored


def count_batches(stored: Stored, must: set[int], may: set[int], counts: Counter[str]) -> set[int]:
    """Count the batches that must be there and are not, and all that is there and should not be; give what is there.

    `stored` is without the eight texts of every put.
    """
    present = set()
    for batch in sorted(must | may):
        found = [stored.get(text) for text in texts_of(batch)]
        n_there = N_ROWS - found.count(None)
        if n_there:
            present.add(batch)
        counts["torn_batches"] += 0 < n_there < N_ROWS
        counts["lost_batches"] += batch in must and n_there == 0
        expected = map(np.ndarray.tobytes, vectors_of(batch))
        counts["wrong_vectors"] += sum(row is not None and row != one for row, one in zip(found, expected, strict=True))
    counts["wrong_vectors"] += len(stored.keys() - {text for batch in present for text in texts_of(batch)})
    return present


def hot_vectors_in(stored: Stored) -> list[bytes]:
    """Take the vectors of the eight texts of every put out of what is stored; [] where there was no put."""
    return [stored.pop(text) for text in HOT if text in stored]


def hot_bytes_of(batch: int) -> list[bytes]:
    return [vector.tobytes() for vector in hot_vectors_of(batch)]


class History:
    """A file, the batches that must be in it, and what was found wrong after each death."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next_batch = 0
        self.present: set[int] = set()
        self.counts = counter("acknowledged_batches", "journals_left", "lost_batches", "torn_batches", "wrong_vectors")

    def check(self, acknowledged: list[int]) -> None:
        """Look at the file after a writer died that began at `next_batch`; its last batch may be whole or absent."""
        in_flight = self.next_batch + len(acknowledged)
        assert acknowledged == list(range(self.next_batch, in_flight))
        self.counts["rounds"] += 1
        self.counts["acknowledged_batches"] += len(acknowledged)
        must = self.present | set(acknowledged)
        with opened(self.path, self.counts) as cache:
            stored = stored_in(cache, must | {in_flight})
        hot = hot_vectors_in(stored)
        self.present = must | count_batches(stored, must, {in_flight}, self.counts)
        last_put = max(filter(is_put, self.present), default=None)
        self.counts["torn_batches"] += hot != ([] if last_put is None else hot_bytes_of(last_put))
        self.next_batch = in_flight + 1


def tell(tally: Tally, fault: str, counts: Counter[str], *, is_whole: bool) -> None:
    """Give counts to the tally, then raise where something was found."""
    tally.add(fault, **counts)
    found = {name: counts[name] for name in FOUND if name in counts}
    assert found == dict.fromkeys(found, 0)
    if is_whole:  # where nothing else keeps the machine busy
        assert counts["slowest_open_ms"] < OPEN_MS
