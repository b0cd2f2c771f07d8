"""Seeded documents: texts of about 560 bytes, vectors of them, and an encoder that takes no time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

SEED = 7
DIM = 384
WORDS = ("vector", "model", "index", "document", "search", "cache", "query", "storage", "language", "science")
WORDS_A_PHRASE, PHRASES_A_TEXT = 7, 11
# Documents are made in blocks, each with a seed of its own, so that document i is the same in every corpus.
BLOCK = 10_000


@dataclass(frozen=True)
class Documents:
    """Parallel columns: ids, distinct texts, and their vectors of shape (n, dim)."""

    ids: list[str]
    texts: list[str]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: list[int]) -> Documents:
        return Documents([self.ids[i] for i in rows], [self.texts[i] for i in rows], self.vectors[rows])

    def first(self, n: int) -> Documents:
        return self if n >= len(self) else Documents(self.ids[:n], self.texts[:n], self.vectors[:n])

    def shuffled(self) -> Documents:
        return self.take(np.random.default_rng(SEED).permutation(len(self)).tolist())

    def batches(self, size: int) -> list[Documents]:
        return [
            Documents(self.ids[i : i + size], self.texts[i : i + size], self.vectors[i : i + size])
            for i in range(0, len(self), size)
        ]


def make_documents(n: int, dim: int = DIM, start: int = 0) -> Documents:
    """Make the documents start..start+n, where start is the beginning of a block."""
    texts: list[str] = []
    vectors = np.empty((n, dim), dtype=np.float32)
    for done in range(0, n, BLOCK):
        size = min(BLOCK, n - done)
        random = np.random.default_rng([SEED, (start + done) // BLOCK])
        choices = random.integers(0, len(_phrases()), size=(BLOCK, PHRASES_A_TEXT))[:size]
        texts += [
            f"{i} " + " ".join([_phrases()[phrase] for phrase in row])
            for i, row in enumerate(choices.tolist(), start=start + done)
        ]
        vectors[done : done + size] = random.standard_normal((size, dim), dtype=np.float32)
    return Documents([f"doc_{i}" for i in range(start, start + n)], texts, vectors)


@cache
def _phrases() -> list[str]:
    choices = np.random.default_rng(SEED).integers(0, len(WORDS), size=(1000, WORDS_A_PHRASE))
    return [" ".join(WORDS[word] for word in row) for row in choices]


def as_lists(vectors: Vectors) -> list[list[float]]:
    """Give vectors as those libraries want them that know no arrays."""
    lists: list[list[float]] = vectors.tolist()
    return lists


class InstantEncoder:
    """Looks vectors up in a matrix that is there already."""

    model_name = "instant"

    def __init__(self, documents: Documents) -> None:
        self.row_of = {text: row for row, text in enumerate(documents.texts)}
        self.vectors = documents.vectors

    def encode(self, texts: list[str]) -> Vectors:
        return self.vectors[[self.row_of.get(text, 0) for text in texts]]  # 0: the canary
