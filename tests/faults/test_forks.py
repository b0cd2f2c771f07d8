"""Forks with an open cache, at any moment: the child has its own connection, and the parent keeps what it has."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_in_any_state_take_nothing_from_the_parent(
    cache_path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    n_forks = rounds(20, 200)
    command = [sys.executable, "-m", "tests.faults.forker", str(cache_path), str(n_forks), "forks"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    tally.add("forks with an open cache", **found)
    assert found.pop("forks") == n_forks
    assert set(found.values()) == {0}, found


def use(path: Path, name: str) -> None:
    with EmbeddingCache(path) as cache:
        cache.get(name, f"text of {name}", CountingEncoder())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_work_beside_their_parent(
    method: str, cache: EmbeddingCache, encoder: CountingEncoder, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    context = multiprocessing.get_context(method)
    names = [f"child {i}" for i in range(rounds(2, 16))]
    cache.get("parent", "text of parent", encoder)
    with cache._store.reading():
        # A child of a fork uses the very cache; that of a spawn, which cannot be sent one, opens the file.
        processes = [
            context.Process(target=cache.get, args=(name, f"text of {name}", encoder))
            if method == "fork"
            else context.Process(target=use, args=(cache.path, name))
            for name in names
        ]
        for process in processes:
            process.start()
    cache.get("beside", "text of beside", encoder)
    for process in processes:
        process.join(120)
    ids, vectors = cache.matrix("fake")
    n_lost = len({*names, "parent", "beside"} - set(ids))
    n_wrong = int((vectors != encoder.vectors([f"text of {name}" for name in ids])).any(axis=1).sum())
    n_failed = sum(process.exitcode != 0 for process in processes)
    tally.add(
        f"multiprocessing by {method} with an open cache",
        processes=len(names),
        processes_that_failed=n_failed,
        documents_lost=n_lost,
        wrong_rows=n_wrong,
    )
    assert (n_failed, n_lost, n_wrong) == (0, 0, 0)
