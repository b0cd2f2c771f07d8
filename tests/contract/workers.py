"""Processes that fill one store with the same texts at once, and tell which texts each has encoded."""

from __future__ import annotations

import random
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import numpy as np

from embstore import EmbeddingCache
from tests.fakes import HookedEncoder
from tests.faults.victims import Victim

TEXT_S, LONG_TEXT_S = 0.002, 0.01  # that the model takes for a text


def texts_of(n: int) -> list[str]:
    return [f"text {i}" for i in range(n)]


def fill(
    acknowledge: Connection, location: str, n: int, seed: int | None, lease_s: float | None, together: Barrier | None
) -> None:
    """Ask for n texts, in their order or in one of the process's own; send each batch before it is encoded."""

    def work(batch: list[str]) -> None:
        acknowledge.send(batch)
        time.sleep(TEXT_S * len(batch))

    texts = texts_of(n)
    if seed is not None:
        random.Random(seed).shuffle(texts)
    encoder = HookedEncoder(work)
    with EmbeddingCache(location, lease_s=lease_s) as cache:
        if together is not None:
            together.wait(60)
        vectors = cache.embed(texts, encoder)
    acknowledge.send(np.array_equal(vectors, encoder.vectors(texts)))


def begin_and_hang(acknowledge: Connection, location: str, n: int, n_calls: int, lease_s: float) -> None:
    """Ask for n texts, and never come back from the last of some calls of the model."""
    left = [n_calls]

    def work(batch: list[str]) -> None:
        left[0] -= 1
        acknowledge.send(batch)
        if not left[0]:
            threading.Event().wait()
        time.sleep(LONG_TEXT_S * len(batch))

    with EmbeddingCache(location, lease_s=lease_s) as cache:
        cache.embed(texts_of(n), HookedEncoder(work))


def encoded(worker: Victim) -> list[str]:
    """The texts that a worker has encoded, once it is through; its vectors must be right."""
    while not isinstance((worker.acknowledged or [None])[-1], bool):
        worker.wait_for(1)
    *batches, is_right = worker.acknowledged
    assert is_right
    return [text for batch in batches for text in batch]
