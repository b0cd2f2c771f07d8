"""What victims do besides storing batches: things that change much of a file at once."""

from __future__ import annotations

from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from embstore import EmbeddingCache
from embstore.identity import Dtype

DTYPES: tuple[Dtype, Dtype] = ("float16", "float32")


def open_file(acknowledge: Connection, path: Path) -> None:
    """Open a file over and over, which rolls back what a killed process left, or migrates it."""
    acknowledge.send("begins")
    for _ in count():
        with EmbeddingCache(path) as cache:
            acknowledge.send(len(cache))


def convert(acknowledge: Connection, path: Path, model_name: str) -> None:
    """Store the vectors of a model in the other format, and back."""
    with EmbeddingCache(path) as cache:
        acknowledge.send("opened")
        for i in count():
            dtype = DTYPES[i % 2]
            cache.convert(model_name, dtype=dtype)
            acknowledge.send(dtype)


def compact(acknowledge: Connection, path: Path, n_rows: int) -> None:
    """Store a model, forget it and give the space back."""
    ids, vectors = [f"to be forgotten {i}" for i in range(n_rows)], np.ones((n_rows, 256))
    with EmbeddingCache(path) as cache:
        for _ in count():
            cache.put_many(ids, ids, vectors, model_name="forgotten")
            cache.clear(model_name="forgotten")
            acknowledge.send("compacts")
            cache.compact()
            acknowledge.send("compacted")


def backup(acknowledge: Connection, path: Path, folder: Path) -> None:
    """Back a file up over and over."""
    with EmbeddingCache(path) as cache:
        for i in count():
            cache.backup(folder / f"{i}.db", progress=False)
            acknowledge.send(i)
