"""`python -m benchmarks.ray_scaling`: what the cache adds to each document of a pipeline of Ray Data.

The model takes 5 ms a text, in calls of 32, and leaves the processor alone, as one on a GPU does. A pipeline that calls
it without a cache, and those that do so through a cold cache on a file and on a PostgreSQL server with fsync on, take
turns, with one worker and with two. A worker's time is from the beginning of its first batch to the end of its last:
how long it takes to be started and to open the store is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from benchmarks import machine
from benchmarks.corpus import DIM, SEED
from embstore.integrations.ray import CachedEmbedder
from tests.postgres import NoServerError, new_schema, own_server
from tests.ray_jobs import QUIET, SETTINGS, quiet

RESULTS = Path(__file__).parent / "results" / "ray_scaling.json"
PACKAGES = ("numpy", "ray", "pyarrow", "psycopg")
TEXT_S = 0.005
CALL_ROWS, BATCH_ROWS = 32, 1024
DOCUMENTS, ROUNDS = 4096, 2
WORKERS = (1, 2)
MOST_OVERHEAD = 0.05
BARE, ON_FILE, ON_SERVER = "no cache", "cache on a file", "cache on PostgreSQL"


class SleepingModel:
    """Takes as long for a call as its texts take together."""

    model_name = "sleeping"

    def __init__(self) -> None:
        self.vectors = np.random.default_rng(SEED).standard_normal((1000, DIM), dtype=np.float32)

    def encode(self, texts: list[str]) -> np.ndarray:
        began = time.perf_counter()
        vectors: np.ndarray = self.vectors[[crc32(text.encode()) % 1000 for text in texts]]
        time.sleep(max(0.0, TEXT_S * len(texts) - (time.perf_counter() - began)))
        return vectors


class Bare:
    """What a pipeline without a cache has."""

    def __init__(self) -> None:
        self.model = SleepingModel()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        texts = batch["text"].tolist()
        calls = [self.model.encode(texts[i : i + CALL_ROWS]) for i in range(0, len(texts), CALL_ROWS)]
        return {**batch, "vector": np.concatenate(calls)}


class Timed:
    """Notes in a file of its process when each batch began and ended, and how many rows it had."""

    def __init__(self, log: Path, make: Callable[[], Callable[[Any], Any]]) -> None:
        self.log, self.work = log, make()
        if isinstance(self.work, CachedEmbedder):
            self.work.location  # noqa: B018 - opens the store

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        embedded: dict[str, Any] = self.work(batch)
        with (self.log / f"{os.getpid()}.txt").open("a", encoding="ascii") as file:
            file.write(f"{began} {time.time()} {len(batch['text'])}\n")
        return embedded


def run(make: Callable[[], Callable[[Any], Any]], rows: list[dict[str, str]], workers: int) -> tuple[float, float]:
    """Run a pipeline, and give the microseconds of a worker for a document, and documents a second of all."""
    import ray

    with tempfile.TemporaryDirectory() as folder:
        ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // BATCH_ROWS)).map_batches(
            Timed,
            fn_constructor_kwargs={"log": Path(folder), "make": make},
            batch_size=BATCH_ROWS,
            compute=ray.data.ActorPoolStrategy(size=workers),
        ).materialize()
        spans = [
            np.array([line.split() for line in file.read_text(encoding="ascii").splitlines()], dtype=float)
            for file in Path(folder).iterdir()
        ]
    assert sum(span[:, 2].sum() for span in spans) == len(rows)
    busy_s = sum(span[:, 1].max() - span[:, 0].min() for span in spans)
    all_s = max(span[:, 1].max() for span in spans) - min(span[:, 0].min() for span in spans)
    return busy_s / len(rows) * 1e6, len(rows) / all_s


@contextmanager
def store_url(kind: str, server_url: str) -> Iterator[str]:
    """Give where a store is that is new, and gone after the block."""
    if kind == ON_SERVER:
        with new_schema(server_url) as url:
            yield url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "embeddings.db")


def measure(documents: int, rounds: int, server_url: str | None) -> dict[str, dict[str, list[float]]]:
    """Give the figures of each round, after one that warms up, by pipeline and number of workers."""
    kinds = [BARE, ON_FILE, *([ON_SERVER] if server_url else [])]
    taken: dict[str, dict[str, list[float]]] = {
        f"{kind}, {workers} workers": {"us_a_document": [], "documents_a_s": []}
        for workers in WORKERS
        for kind in kinds
    }
    rows = [{"text": f"document {i} of a corpus"} for i in range(documents)]
    for round_number in range(rounds + 1):
        for workers in WORKERS:
            for kind in kinds:
                some = rows if round_number else rows[: BATCH_ROWS * workers // 4]
                us, a_second = _turn(kind, some, workers, server_url or "")
                if round_number:
                    taken[f"{kind}, {workers} workers"]["us_a_document"].append(us)
                    taken[f"{kind}, {workers} workers"]["documents_a_s"].append(a_second)
    return taken


def _turn(kind: str, rows: list[dict[str, str]], workers: int, server_url: str) -> tuple[float, float]:
    if kind == BARE:
        return run(Bare, rows, workers)
    with store_url(kind, server_url) as url:
        return run(lambda: CachedEmbedder(url, SleepingModel), rows, workers)


def overheads(taken: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Give how much longer than the one without a cache each pipeline takes, as a share of the model's time."""
    found = {}
    for name, figures in taken.items():
        kind, _, workers = name.partition(", ")
        if kind != BARE:
            bare = taken[f"{BARE}, {workers}"]["us_a_document"]
            added = [ours - theirs for ours, theirs in zip(figures["us_a_document"], bare, strict=True)]
            found[name] = statistics.median(added) / (TEXT_S * 1e6)
    return found


def in_words(measured: dict[str, Any]) -> str:
    """Give the overheads as the recipe tells them."""
    shares = [f"{measured['overheads'][f'{kind}, {n} workers']:.1%}" for kind in (ON_SERVER, ON_FILE) for n in WORKERS]
    cores, load = measured["machine"]["cores"], measured["load_average"]
    return (
        f"To a model that takes 5 ms a text the cache adds {shares[0]} with one worker and {shares[1]} with two on a "
        f"PostgreSQL server, {shares[2]} and {shares[3]} on a file: measured on {cores} cores at a load of "
        f"{load:.0f}"
    )


def main() -> int:
    import ray

    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_scaling", description=__doc__)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="default benchmarks/results/ray_scaling.json, at the default size")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray gives its workers way to all other work, so that one that is to be measured would wait for whatever else runs.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - so it is spelled
    ray.init(num_cpus=max(WORKERS) + 1, **SETTINGS, **QUIET)
    try:
        with quiet(), _server() as server_url:
            taken = measure(options.documents, options.rounds, server_url)
    finally:
        ray.shutdown()
    print(f"{options.documents:,} texts of 5 ms, dim {DIM}, {options.rounds} rounds; {machine.versions(PACKAGES)}")
    print(f"{'pipeline':<32} {'us a document':>14} {'documents/s':>12} {'overhead':>9}")
    added = overheads(taken)
    for name, figures in taken.items():
        us, a_second = (statistics.median(values) for values in figures.values())
        print(f"{name:<32} {us:14.0f} {a_second:12.1f} " + (f"{added[name]:9.2%}" if name in added else ""))
    met = all(overhead <= MOST_OVERHEAD for overhead in added.values())
    print(f"overhead at most {MOST_OVERHEAD:.0%} of the model's time: {'met' if met else 'missed'}")
    whole = (options.documents, options.rounds) == (DOCUMENTS, ROUNDS)
    file = options.json or (RESULTS if whole else None)
    if file:
        file.write_text(json.dumps(_as_json(taken, added, options.documents), indent=1) + "\n", encoding="utf-8")
    return 0


def _load() -> float | None:
    """Give how many processes wanted a core in the last quarter of an hour, which is part of what was measured."""
    return os.getloadavg()[2] if hasattr(os, "getloadavg") else None


@contextmanager
def _server() -> Iterator[str | None]:
    try:
        with own_server(durable=True) as server:
            yield server.url
    except NoServerError as error:
        print(f"skipped: {ON_SERVER} ({error})")
        yield None


def _as_json(taken: dict[str, dict[str, list[float]]], added: dict[str, float], documents: int) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": machine.versions(PACKAGES),
        "machine": machine.machine(),
        "load_average": _load(),
        "documents": documents,
        "text_s": TEXT_S,
        "pipelines": taken,
        "overheads": added,
    }


if __name__ == "__main__":
    sys.exit(main())
