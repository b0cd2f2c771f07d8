"""`python -m benchmarks`: what a document costs, cold and warm, beside the least that it can cost.

The least is the SHA-256 of every text and one `np.load` of the whole matrix. The encoder is instant, so that what is
measured is the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embstore import EmbeddingCache, __version__

SEED = 7
WORDS = ("vector", "model", "index", "document", "search", "cache", "query", "storage", "language", "science")


def make_texts(n: int) -> list[str]:
    """Make n distinct texts of about 560 bytes."""
    random = np.random.default_rng(SEED)
    choices = random.integers(0, len(WORDS), size=(n, 80))
    return [f"{i} " + " ".join(WORDS[word] for word in row) for i, row in enumerate(choices)]


class InstantEncoder:
    """Looks vectors up in a matrix that is there already."""

    model_name = "instant"

    def __init__(self, texts: list[str], matrix: np.ndarray) -> None:
        self.row_of = {text: row for row, text in enumerate(texts)}
        self.matrix = matrix

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.matrix[[self.row_of.get(text, 0) for text in texts]]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(n: int, dim: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Give the microseconds a document of each case, round by round; the cases take turns."""
    texts = make_texts(n)
    doc_ids = [f"doc_{i}" for i in range(n)]
    matrix = np.random.default_rng(SEED).standard_normal((n, dim)).astype(np.float32)
    encoder = InstantEncoder(texts, matrix)
    np.save(folder / "matrix.npy", matrix)
    shuffled = np.random.default_rng(SEED + 1).permutation(n).tolist()
    shuffled_ids, shuffled_texts = [doc_ids[i] for i in shuffled], [texts[i] for i in shuffled]

    def limit() -> np.ndarray:
        for text in texts:
            hashlib.sha256(text.encode()).digest()
        return np.load(folder / "matrix.npy")

    def cold() -> None:
        with EmbeddingCache(folder / f"cold_{time.monotonic_ns()}.db") as cache:
            cache.get_many(doc_ids, texts, encoder, progress=False)

    with EmbeddingCache(folder / "warm.db") as cache:
        filled = cache.get_many(doc_ids, texts, encoder, progress=False)
        assert (filled == matrix).all()
        cases: dict[str, Callable[[], object]] = {
            "limit: sha256 + np.load": limit,
            "cold get_many (durable)": cold,
            "warm get_many, stored order": lambda: cache.get_many(doc_ids, texts, encoder, progress=False),
            "warm get_many, random order": lambda: cache.get_many(
                shuffled_ids, shuffled_texts, encoder, progress=False
            ),
            "matrix": lambda: cache.matrix("instant"),
        }
        for work in cases.values():
            work()  # warm up
        taken: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, work in cases.items():
                taken[name].append(seconds(work) / n * 1e6)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        taken = measure(options.documents, options.dim, options.rounds, Path(folder))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    limit = next(iter(medians.values()))
    versions = {
        "embstore": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sqlite": sqlite3.sqlite_version,
        "machine": f"{platform.system()} {platform.machine()}",
    }
    print(f"{options.documents:,} documents of ~560 bytes, dim {options.dim}, {options.rounds} rounds; {versions}")
    print(f"{'case':<30} {'median':>8} {'min':>8} {'max':>8}  us a document   times the limit")
    for name, values in taken.items():
        print(f"{name:<30} {medians[name]:8.2f} {min(values):8.2f} {max(values):8.2f} {medians[name] / limit:28.1f}")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, "us_a_document": taken}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
