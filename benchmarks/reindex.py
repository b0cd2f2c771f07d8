"""`python -m benchmarks.reindex`: indexing what is indexed already, beside Chroma's own upsert of the same rows.

The documents are the abstracts of SciFact, in the folder that EMBSTORE_SCIFACT names, with the vectors that
all-MiniLM-L6-v2 gives for them: an index of random vectors would be measured for nothing. The encoder looks them up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.timing import seconds
from embstore import CachedSemanticSearchEngine

SEED = 7
CHANGED = 0.01
SCIFACT = Path(os.environ.get("EMBSTORE_SCIFACT", Path(__file__).parents[2] / "shared" / "corpora" / "scifact"))

UNCHANGED, UPSERT, SOME_CHANGED = "unchanged, engine", "unchanged, Chroma upsert", "1% changed, engine"
WITHOUT_ENCODING = "1% changed, less encoding"
MOST_US, LEAST_TIMES_FASTER, MOST_TIMES_UNCHANGED = 100, 20, 3


class LookUpEncoder:
    """Gives texts the vectors that were computed for them, and edited texts those of what they were."""

    model_name = "all-MiniLM-L6-v2"

    def __init__(self, texts: list[str], vectors: np.ndarray) -> None:
        self.row_of = {text: row for row, text in enumerate(texts)}
        self.vectors = vectors
        self.seconds = 0.0

    def encode(self, texts: list[str]) -> np.ndarray:
        began = time.perf_counter()
        rows = [self.row_of.get(text.partition("\n\nEdited")[0], 0) for text in texts]
        found = self.vectors[rows]
        self.seconds += time.perf_counter() - began
        return found


class Corpus:
    """Documents as they are now: each round edits some."""

    def __init__(self, folder: Path, n: int | None) -> None:
        with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines][:n]
        self.ids: list[str] = [row["_id"] for row in rows]
        self.texts = [f"{row['title']} {row['text']}" for row in rows]
        self.metadatas: list[dict[str, Any]] = [
            {"title": row["title"], "n_words": len(row["text"].split())} for row in rows
        ]
        self.vectors = np.load(folder / "minilm_docs.npy")[: len(rows)]
        self.originals = list(self.texts)
        self._random = np.random.default_rng(SEED)
        self._n_edits = 0

    def edit(self) -> None:
        """Give some documents texts that no round had before."""
        self._n_edits += 1
        for row in self._random.choice(len(self.ids), round(CHANGED * len(self.ids)), replace=False):
            self.texts[row] = f"{self.originals[row]}\n\nEdited {self._n_edits} times."


def measure(corpus: Corpus, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Give the microseconds a document of each case, round by round; the cases take turns."""
    import chromadb

    client = chromadb.PersistentClient(folder / "chroma")
    encoder = LookUpEncoder(corpus.texts, corpus.vectors)
    rows = chroma_rows(client, corpus)
    raw = client.create_collection("raw", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    with CachedSemanticSearchEngine(encoder, path=folder, client=client) as engine:

        def index() -> Any:
            return engine.index_documents(corpus.texts, corpus.ids, corpus.metadatas, progress=False)

        def upsert() -> None:
            for page in rows:
                raw.upsert(**page)

        index()
        upsert()
        taken: dict[str, list[float]] = {name: [] for name in (UNCHANGED, UPSERT, SOME_CHANGED, WITHOUT_ENCODING)}
        for _ in range(rounds):
            assert (report := index()).unchanged == report.total  # warm
            taken[UNCHANGED].append(seconds(index))
            taken[UPSERT].append(seconds(upsert))
            corpus.edit()
            encoder.seconds = 0.0
            taken[SOME_CHANGED].append(seconds(index))
            taken[WITHOUT_ENCODING].append(taken[SOME_CHANGED][-1] - encoder.seconds)
    return {name: [value / len(corpus.ids) * 1e6 for value in values] for name, values in taken.items()}


def chroma_rows(client: Any, corpus: Corpus) -> list[dict[str, Any]]:
    """Give what the engine indexes as arguments of Chroma's upsert, in the largest pages that it takes."""
    page = client.get_max_batch_size()
    return [
        {
            "ids": corpus.ids[start : start + page],
            "documents": corpus.originals[start : start + page],
            "metadatas": corpus.metadatas[start : start + page],
            "embeddings": corpus.vectors[start : start + page],
        }
        for start in range(0, len(corpus.ids), page)
    ]


def goals(medians: dict[str, float]) -> list[tuple[str, float, str, bool]]:
    """Give each goal: what is measured, the figure, what it is to be, and whether it is."""
    unchanged = medians[UNCHANGED]
    faster, times_unchanged = medians[UPSERT] / unchanged, medians[WITHOUT_ENCODING] / unchanged
    return [
        ("us a document, unchanged", unchanged, f"<= {MOST_US}", unchanged <= MOST_US),
        ("times faster than upsert", faster, f">= {LEAST_TIMES_FASTER}", faster >= LEAST_TIMES_FASTER),
        (
            "1% changed, less encoding, as a multiple of unchanged",
            times_unchanged,
            f"<= {MOST_TIMES_UNCHANGED}",
            times_unchanged <= MOST_TIMES_UNCHANGED,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reindex", description=__doc__)
    parser.add_argument("--documents", type=int, help="only the first so many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    if not (SCIFACT / "corpus.jsonl").exists():
        parser.error(f"{SCIFACT} has no corpus.jsonl; name the folder of SciFact by EMBSTORE_SCIFACT")
    corpus = Corpus(SCIFACT, options.documents)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        taken = measure(corpus, options.rounds, Path(folder))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    versions = machine.versions(("chromadb", "numpy"))
    dim = corpus.vectors.shape[1]
    print(f"{len(corpus.ids):,} abstracts of SciFact, dim {dim}, {options.rounds} rounds; {versions}")
    print(f"{'case':<26} {'median':>8} {'min':>8} {'max':>8}  us a document   times unchanged")
    for name, values in taken.items():
        times = medians[name] / medians[UNCHANGED]
        print(f"{name:<26} {medians[name]:8.1f} {min(values):8.1f} {max(values):8.1f} {times:31.1f}")
    for what, figure, goal, met in goals(medians):
        print(f"{what}: {figure:.1f} (goal {goal}: {'met' if met else 'missed'})")
    if options.json:
        options.json.write_text(json.dumps({**machine.describe(), "us_a_document": taken}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
