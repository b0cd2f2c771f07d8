"""A merge that is killed at any moment is finished by the next: nothing is half there, and nothing is copied twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache
from tests.transfer.merger import ROWS

N, N_VALUES = 2_000, 200
IDS, TEXTS = [f"doc {i}" for i in range(N)], [f"text {i}" for i in range(N)]
VECTORS = np.random.default_rng(7).standard_normal((N, 32)).astype(np.float32)
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 30))]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "source.db"
    with EmbeddingCache(path) as cache:
        cache.put_many(IDS, TEXTS, VECTORS, model_name="m")
        cache.store.byte_values.mset({f"key {i}": bytes([i]) * 9 for i in range(N_VALUES)})
    return str(path)


def merging(source: str, target: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.transfer.merger", source, target]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_while_merging(source: str, target: str, seed: int) -> tuple[int, int]:
    """Kill a merge within some page, or after the last, and count the vectors and the values that are there."""
    moment = random.Random(seed)
    process = merging(source, target)
    assert process.stdout is not None
    for _ in range(moment.randint(1, N // ROWS + 1)):
        assert process.stdout.readline() in ("page\n", "values\n")
    time.sleep(moment.uniform(0, 0.005))
    process.kill()
    process.communicate()
    with EmbeddingCache(target) as cache:
        assert cache.verify() == []
        values = cache.store.byte_values
        return sum(model.n_vectors for model in cache.models()), len(list(values.keys()))


def finish(source: str, target: str) -> tuple[int, ...]:
    told, _ = merging(source, target).communicate()
    return tuple(map(int, told.splitlines()[-1].split()))


def check(source: str, target: str, seed: int) -> None:
    n_there, n_values = kill_while_merging(source, target, seed)
    assert n_there % ROWS == 0
    assert finish(source, target) == (N - n_there, n_there, N - n_there, N_VALUES - n_values, 0)
    assert finish(source, target) == (0, N, 0, 0, 0)
    with EmbeddingCache(target) as cache:
        assert cache.verify() == []
        assert cache.matrix("m", doc_ids=IDS)[1].tobytes() == VECTORS.tobytes()
        keys = list(cache.store.byte_values.keys())
        assert cache.store.byte_values.mget(keys) == [bytes([int(key.split()[1])]) * 9 for key in keys]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_next_merge_stores_only_what_the_killed_one_did_not(source: str, tmp_path: Path, seed: int) -> None:
    check(source, str(tmp_path / "target.db"), seed)
