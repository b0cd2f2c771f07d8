"""Many processes and threads on the same keys: nobody is turned away, no row is mixed, none that was stored is lost."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embstore import EmbeddingCache, EmbstoreError
from embstore.identity import content_hash
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally

spawn = multiprocessing.get_context("spawn")

DIM = 16
HALF = 25  # of the keys of a group, which are always put together; half keep their text, half get another each time

Told = npt.NDArray[np.float32]


# --- rows that tell who wrote them ----------------------------------------------------------


def row_of(key: int, writer: int, sequence: int) -> Told:
    """A vector of which every bit depends on its key, its writer and when it was written."""
    told = np.array([key, writer, sequence], dtype=np.uint64)
    mixed = (told * np.array([2654435761, 40503, 97], np.uint64)).sum() + np.arange(DIM - 3, dtype=np.uint64) * told[2]
    return np.concatenate([told, mixed % np.uint64(2**24)]).astype(np.float32)


def n_mixed(keys: list[int], vectors: Told) -> int:
    """Count rows that are not, bit for bit, what one writer put there in one call."""
    return sum(
        vector.tobytes() != row_of(key, int(vector[1]), int(vector[2])).tobytes()
        for key, vector in zip(keys, vectors, strict=True)
    )


def n_calls(vectors: Told) -> int:
    """Count the calls that rows of one group were put by: 1, or a call was seen half done."""
    return len({(int(vector[1]), int(vector[2])) for vector in vectors})


def keys_of(group: int) -> list[int]:
    return list(range(2 * HALF * group, 2 * HALF * (group + 1)))


def ids_of(group: int) -> list[str]:
    return [f"doc {key}" for key in keys_of(group)]


def texts_of(group: int, writer: int, sequence: int) -> list[str]:
    keys = keys_of(group)
    return [f"text {key}" for key in keys[:HALF]] + [f"text {key}, {writer}, {sequence}" for key in keys[HALF:]]


def put(cache: EmbeddingCache, group: int, writer: int, sequence: int) -> None:
    vectors = np.stack([row_of(key, writer, sequence) for key in keys_of(group)])
    cache.put_many(ids_of(group), texts_of(group, writer, sequence), vectors, model_name="hot")


class Silent(CountingEncoder):
    """Everything is a hit: it has nothing to encode."""

    def __init__(self) -> None:
        super().__init__(DIM, "hot")

    def encode(self, texts: list[str]) -> np.ndarray:
        raise AssertionError(f"{texts[0]!r} was not found")


# --- processes ------------------------------------------------------------------------------


def write_much(begin: Barrier, folder: Path, writer: int, n_batches: int, n_groups: int) -> None:
    """Put groups in random order; each call that returned becomes a line of a file outside."""
    rng = random.Random(writer)
    counts: Counter[str] = Counter()
    with (
        EmbeddingCache(folder / "hot.db", check_canary=False) as cache,
        (folder / f"acknowledged-{writer}").open("w", buffering=1) as acknowledged,
    ):
        begin.wait(120)
        for sequence in range(1, n_batches + 1):
            group = rng.randrange(n_groups)
            try:
                put(cache, group, writer, sequence)
            except EmbstoreError as error:
                counts[type(error).__name__] += 1
            else:
                acknowledged.write(f"{group} {sequence}\n")
    (folder / f"errors-{writer}").write_text(json.dumps(counts))


def read_much(begin: Barrier, end: Event, folder: Path, reader: int, n_groups: int) -> None:
    """Read random groups in two ways until the writers are through."""
    rng = random.Random(f"reader {reader}")
    counts: Counter[str] = Counter(reads=0)
    with EmbeddingCache(folder / "hot.db", check_canary=False) as cache:
        begin.wait(120)
        while not end.is_set() or not counts["reads"]:
            group = rng.randrange(n_groups)
            keys, ids = keys_of(group), ids_of(group)
            try:
                found, vectors = cache.matrix("hot", doc_ids=ids)
                assert found == ids
                counts.update(mixed=n_mixed(keys, vectors), half_done=n_calls(vectors) - 1, reads=1)
                texts = texts_of(group, 0, 0)[:HALF]
                vectors = cache.get_many(ids[:HALF], texts, Silent())
                counts.update(mixed=n_mixed(keys[:HALF], vectors), half_done=n_calls(vectors) - 1, reads=1)
            except EmbstoreError as error:
                counts[type(error).__name__] += 1
    (folder / f"read-{reader}").write_text(json.dumps(counts))


def n_lost(cache: EmbeddingCache, group: int, last: dict[int, int]) -> int:
    """Count keys that hold neither the last call of one of the writers of their group, nor what was there before."""
    _, vectors = cache.matrix("hot", doc_ids=ids_of(group))
    held = {(int(vector[1]), int(vector[2])) for vector in vectors}
    allowed = set(last.items()) or {(0, 0)}
    return len(vectors) - sum((int(vector[1]), int(vector[2])) in allowed for vector in vectors) + len(held) - 1


def test_writers_and_readers_of_the_same_keys_lose_and_mix_nothing(
    tmp_path: Path, tally: Tally, is_whole: bool
) -> None:
    n_writers, n_readers, n_groups, n_batches = (8, 8, 200, 500) if is_whole else (2, 1, 4, 40)
    with EmbeddingCache(tmp_path / "hot.db", check_canary=False) as cache:
        for group in range(n_groups):
            put(cache, group, 0, 0)
    begin, end = spawn.Barrier(n_writers + n_readers), spawn.Event()
    writers = [
        spawn.Process(target=write_much, args=(begin, tmp_path, writer, n_batches, n_groups))
        for writer in range(1, n_writers + 1)
    ]
    readers = [
        spawn.Process(target=read_much, args=(begin, end, tmp_path, reader, n_groups)) for reader in range(n_readers)
    ]
    for process in writers + readers:
        process.start()
    for process in writers:
        process.join()
    end.set()
    for process in readers:
        process.join()
    assert [process.exitcode for process in writers + readers] == [0] * (n_writers + n_readers)

    errors: Counter[str] = Counter()
    read: Counter[str] = Counter()
    last: dict[int, dict[int, int]] = {group: {} for group in range(n_groups)}
    edits: dict[bytes, tuple[int, int, int]] = {}
    n_upserts = 0
    for writer in range(1, n_writers + 1):
        errors.update(json.loads((tmp_path / f"errors-{writer}").read_text()))
        for line in (tmp_path / f"acknowledged-{writer}").read_text().splitlines():
            group, sequence = map(int, line.split())
            last[group][writer] = sequence
            n_upserts += 2 * HALF
            for key, text in list(zip(keys_of(group), texts_of(group, writer, sequence), strict=True))[HALF:]:
                edits[content_hash(text)] = (key, writer, sequence)
    for reader in range(n_readers):
        read.update(json.loads((tmp_path / f"read-{reader}").read_text()))
    n_reads, mixed, half_done = (read.pop(name, 0) for name in ("reads", "mixed", "half_done"))
    errors.update(read)
    with EmbeddingCache(tmp_path / "hot.db", check_canary=False) as cache:
        lost = sum(n_lost(cache, group, last[group]) for group in range(n_groups))
        found, vectors = cache.stored_vectors(list(edits), Silent())
        lost += int((~found).sum())
        mixed += sum(
            vector.tobytes() != row_of(*told).tobytes() for vector, told in zip(vectors, edits.values(), strict=True)
        )
        assert cache.verify() == []
    tally.add(
        "processes that put and read the same keys",
        processes=n_writers + n_readers,
        upserts=n_upserts,
        keys=2 * HALF * n_groups,
        reads=n_reads,
        errors=errors.total(),
        rows_lost=lost,
        rows_mixed=mixed,
        calls_seen_half_done=half_done,
    )
    assert (dict(errors), lost, mixed, half_done) == ({}, 0, 0, 0)
    assert n_upserts == n_writers * n_batches * 2 * HALF


def create_together(begin: Barrier, folder: Path, k: int, n_files: int) -> None:
    counts: Counter[str] = Counter()
    for i in range(n_files):
        begin.wait(120)
        try:
            with EmbeddingCache(folder / f"{i}.db", check_canary=False) as cache:
                cache.put_many([f"doc {k}"], [f"text {k}"], row_of(k, k, i)[np.newaxis], model_name="hot")
        except EmbstoreError as error:
            counts[f"{type(error).__name__}: {error.__cause__!r}"] += 1
    (folder / f"errors-{k}").write_text(json.dumps(counts))


def test_processes_that_create_a_file_together_all_store_in_it(tmp_path: Path, tally: Tally, is_whole: bool) -> None:
    n_processes, n_files = (16, 25) if is_whole else (2, 4)
    begin = spawn.Barrier(n_processes)
    processes = [spawn.Process(target=create_together, args=(begin, tmp_path, k, n_files)) for k in range(n_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * n_processes
    errors: Counter[str] = Counter()
    for k in range(n_processes):
        errors.update(json.loads((tmp_path / f"errors-{k}").read_text()))
    lost = 0
    for i in range(n_files):
        with EmbeddingCache(tmp_path / f"{i}.db", check_canary=False) as cache:
            held = {doc_id: vector.tobytes() for doc_id, vector in zip(*cache.matrix("hot"), strict=True)}
            lost += sum(held.get(f"doc {k}") != row_of(k, k, i).tobytes() for k in range(n_processes))
            assert cache.verify() == []
    tally.add(
        "processes that create a file together",
        processes=n_processes,
        files=n_files,
        errors=errors.total(),
        rows_lost=lost,
    )
    assert (dict(errors), lost) == ({}, 0)


# --- threads --------------------------------------------------------------------------------


def test_threads_of_one_cache_lose_and_mix_nothing(
    tmp_path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    n_threads, n_groups, n_calls_each = 32, 4, rounds(3, 100)
    counts: Counter[str] = Counter()
    last: dict[int, dict[int, int]] = {group: {} for group in range(n_groups)}
    counting = threading.Lock()
    encoder = CountingEncoder(DIM, "shared")
    shared = [f"shared {i}" for i in range(40 * n_calls_each)]

    def work(thread: int) -> None:
        rng = random.Random(thread)
        for sequence in range(1, n_calls_each + 1):
            done: Counter[str] = Counter(calls=1)
            group = rng.randrange(n_groups)
            try:
                if thread % 2:
                    put(cache, group, thread, sequence)
                    with counting:
                        last[group][thread] = sequence
                _, vectors = cache.matrix("hot", doc_ids=ids_of(group))
                done.update(rows_mixed=n_mixed(keys_of(group), vectors), calls_seen_half_done=n_calls(vectors) - 1)
                some = rng.sample(shared[: 40 * sequence], 20)
                given = cache.get_many([f"id of {text}" for text in some], some, encoder, batch_size=5)
                done.update(rows_mixed=int((given != encoder.vectors(some)).any(axis=1).sum()))
            except EmbstoreError as error:
                done[type(error).__name__] += 1
            with counting:
                counts.update(done)

    with EmbeddingCache(tmp_path / "hot.db") as cache:
        for group in range(n_groups):
            put(cache, group, 0, 0)
        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(n_threads)]
        for running in threads:
            running.start()
        for running in threads:
            running.join()
        lost = sum(n_lost(cache, group, last[group]) for group in range(n_groups))
        assert cache.verify() == []
    n_made, mixed, half_done = (counts.pop(name, 0) for name in ("calls", "rows_mixed", "calls_seen_half_done"))
    n_twice = encoder.n_texts - len(set(encoder.texts))
    tally.add(
        "threads of one cache",
        threads=n_threads,
        calls=n_made,
        errors=counts.total(),
        rows_lost=lost,
        rows_mixed=mixed,
        calls_seen_half_done=half_done,
        texts_encoded_twice=n_twice,
    )
    assert (dict(counts), lost, mixed, half_done, n_twice) == ({}, 0, 0, 0, 0)
    assert n_made == n_threads * n_calls_each
