"""Many processes and threads on the same keys of a server: nobody is turned away, no row is mixed, none is lost."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, EmbstoreError
from tests.fakes import CountingEncoder
from tests.faults.test_many_at_once import DIM, HALF, ids_of, keys_of, n_calls, n_lost, n_mixed, put
from tests.postgres import Schemas, Server

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

spawn = multiprocessing.get_context("spawn")


def do_everything(begin: Barrier, url: str, folder: Path, k: int, n_acts: int, n_groups: int) -> None:
    """Put groups, read them, edit and forget documents of a collection of its own keys, and prune, in random order.

    Each put that returned becomes a line of a file outside.
    """
    rng = random.Random(k)
    counts: Counter[str] = Counter()
    encoder = CountingEncoder(DIM, "edited")
    with (
        EmbeddingCache(url, check_canary=False) as cache,
        (folder / f"acknowledged-{k}").open("w", buffering=1) as acknowledged,
    ):
        begin.wait(120)
        for sequence in range(1, n_acts + 1):
            group = rng.randrange(n_groups)
            try:
                act = rng.choice(["put", "put", "read", "get", "forget", "prune"])
                if act == "put":
                    put(cache, group, k, sequence)
                    acknowledged.write(f"{group} {sequence}\n")
                elif act == "read":
                    found, vectors = cache.matrix("hot", doc_ids=ids_of(group))
                    assert found == ids_of(group)
                    counts.update(mixed=n_mixed(keys_of(group), vectors), half_done=n_calls(vectors) - 1)
                elif act == "get":
                    texts = [f"text {key}, {rng.randrange(3)}" for key in keys_of(group)]
                    given = cache.get_many(ids_of(group), texts, encoder, collection="edited")
                    counts.update(mixed=int((given != encoder.vectors(texts)).any(axis=1).sum()))
                elif act == "forget":
                    cache.invalidate(rng.sample(ids_of(group), 20), collection="edited")
                else:
                    cache.prune(standalone=True)
                counts[f"n {act}"] += 1
            except EmbstoreError as error:
                counts[f"{act}: {type(error).__name__}: {error}"] += 1
    (folder / f"counts-{k}").write_text(json.dumps(counts))


def test_processes_that_put_edit_forget_prune_and_read_the_same_keys_lose_and_mix_nothing(
    schemas: Schemas, tmp_path: Path, is_whole: bool
) -> None:
    n_processes, n_groups, n_acts = (8, 40, 400) if is_whole else (4, 4, 25)
    with schemas.one() as url:
        with EmbeddingCache(url, check_canary=False) as cache:
            for group in range(n_groups):
                put(cache, group, 0, 0)
        begin = spawn.Barrier(n_processes)
        processes = [
            spawn.Process(target=do_everything, args=(begin, url, tmp_path, k, n_acts, n_groups))
            for k in range(1, n_processes + 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * n_processes
        counts: Counter[str] = Counter()
        last: dict[int, dict[int, int]] = {group: {} for group in range(n_groups)}
        for k in range(1, n_processes + 1):
            counts.update(json.loads((tmp_path / f"counts-{k}").read_text()))
            for line in (tmp_path / f"acknowledged-{k}").read_text().splitlines():
                group, sequence = map(int, line.split())
                last[group][k] = sequence
        with EmbeddingCache(url, check_canary=False) as cache:
            lost = sum(n_lost(cache, group, last[group]) for group in range(n_groups))
            assert cache.verify() == []
    done = {name: counts.pop(name) for name in list(counts) if name.startswith("n ")}
    print(f"{n_processes} processes, {2 * HALF * n_groups} keys: {done}, lost {lost}, {dict(counts)}")  # noqa: T201
    assert (+counts, lost) == (Counter(), 0)
    assert sum(done.values()) == n_processes * n_acts


def test_of_sixty_transactions_that_write_the_same_keys_at_once_none_deadlocks(
    own_postgres: Server, rounds: Callable[[int, int], int]
) -> None:
    n_writers, keys = 20, list(range(600))
    vectors = {key: np.full(DIM, key, np.float32) for key in keys}

    def write(caches: list[EmbeddingCache], writer: int) -> None:
        order = random.Random(writer).sample(keys, len(keys))
        ids, texts = [f"doc {key}" for key in order], [f"text {key}" for key in order]
        for cache in caches:
            values = np.stack([vectors[key] for key in order]) + np.float32(writer)
            cache.put_many(ids, texts, values, model_name="hot")
        for cache in caches:
            cache.store.byte_values.mset({text: bytes([writer]) * 500 for text in texts})
            cache.store.byte_values.mset({text: bytes([writer]) for text in texts[::-1]})
        caches[0].store.byte_values.mdelete(texts[::2])

    with psycopg.connect(own_postgres.url, autocommit=True) as owner:
        owner.execute("ALTER SYSTEM SET deadlock_timeout = '20ms'")  # how long it waits before it looks for one
        owner.execute("SELECT pg_reload_conf()")
    with EmbeddingCache(f"{own_postgres.url}?pool_size={n_writers}") as cache:
        with ThreadPoolExecutor(n_writers) as threads:
            for writing in [threads.submit(write, [cache] * 3, writer) for writer in range(rounds(20, 60))]:
                writing.result()
        assert "deadlock detected" not in own_postgres.log.read_text(encoding="utf-8")
        assert cache.verify() == []
        ids, found = cache.matrix("hot")
        assert len(ids) == len(keys)
        assert len({float(row[0]) - int(doc_id[4:]) for doc_id, row in zip(ids, found, strict=True)}) == 1
