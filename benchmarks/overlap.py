"""`python -m benchmarks.overlap`: what storing adds to the time of a model that the cache fills for.

The model takes 5 ms a text, in batches, and leaves the processor alone, as one on a GPU does. It notes how long it took
itself, and the call that filled a cold cache or a new index is compared with that. Texts and vectors are those of
SciFact, as in `benchmarks.reindex`. Chroma, in the same process, lets no other thread run while it writes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.reindex import SCIFACT, Corpus
from embstore import CachedSemanticSearchEngine, EmbeddingCache
from embstore.search.inputs import IndexKind

TEXT_S = 0.005
MOST_TIMES = 1.02


class SlowEncoder:
    """Takes as long for a batch as its texts take together."""

    model_name = "slow"

    def __init__(self, corpus: Corpus) -> None:
        self.row_of = {text: row for row, text in enumerate(corpus.texts)}
        self.vectors = corpus.vectors
        self.seconds = 0.0

    def encode(self, texts: list[str]) -> np.ndarray:
        began = time.perf_counter()
        vectors: np.ndarray = self.vectors[[self.row_of.get(text, 0) for text in texts]]  # 0: the canary
        time.sleep(max(0.0, TEXT_S * len(texts) - (time.perf_counter() - began)))
        self.seconds += time.perf_counter() - began
        return vectors


def get_many(corpus: Corpus, folder: Path) -> float:
    """Fill a new cache, and give the time that it took as a multiple of what the model took of it."""
    encoder = SlowEncoder(corpus)
    with EmbeddingCache(folder / "embeddings.db") as cache:
        began = time.perf_counter()
        cache.get_many(corpus.ids, corpus.texts, encoder)
        return (time.perf_counter() - began) / encoder.seconds


def index_documents(corpus: Corpus, folder: Path, kind: IndexKind) -> float:
    """Index documents that are new, and give the same."""
    encoder = SlowEncoder(corpus)
    with CachedSemanticSearchEngine(encoder, path=folder, index=kind) as engine:
        began = time.perf_counter()
        engine.index_documents(corpus.texts, corpus.ids, progress=False)
        return (time.perf_counter() - began) / encoder.seconds


CASES: dict[str, Callable[[Corpus, Path], float]] = {
    "cold get_many": get_many,
    "index_documents, exact": partial(index_documents, kind="exact"),
    "index_documents, Chroma": partial(index_documents, kind="chroma"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlap", description=__doc__)
    parser.add_argument("--documents", type=int, help="only the first so many")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not (SCIFACT / "corpus.jsonl").exists():
        parser.error(f"{SCIFACT} has no corpus.jsonl; name the folder of SciFact by EMBSTORE_SCIFACT")
    corpus, times = Corpus(SCIFACT, options.documents), {name: list[float]() for name in CASES}
    for _ in range(options.rounds):
        for name, case in CASES.items():
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                times[name].append(case(corpus, Path(folder)))
    dim = corpus.vectors.shape[1]
    print(f"{len(corpus.texts):,} texts of 5 ms, dim {dim}, {options.rounds} rounds; times as long as the model")
    print(f"{'case':<26} {'median':>8} {'min':>8} {'max':>8}")
    for name, measured in times.items():
        print(f"{name:<26} {statistics.median(measured):8.4f} {min(measured):8.4f} {max(measured):8.4f}")
    median = statistics.median(times["cold get_many"])
    print(f"cold get_many: {median:.4f} (goal <= {MOST_TIMES}: {'met' if median <= MOST_TIMES else 'missed'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
