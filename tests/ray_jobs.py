"""What jobs of Ray are run with: an encoder that writes down what it encodes, for all processes of a cluster."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embstore import content_hash
from embstore.canary import CANARY_TEXT
from tests.fakes import CountingEncoder

# A job needs little room, and nobody is to be told that it was run.
SETTINGS: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


class WritingEncoder(CountingEncoder):
    """Appends to a file of its process, for each text, when its encoding began and the text's hash.

    Each text takes `text_s` seconds.
    """

    def __init__(self, folder: Path, text_s: float = 0.0, dim: int = 8) -> None:
        super().__init__(dim)
        self.folder, self.text_s = folder, text_s

    def encode(self, texts: list[str]) -> np.ndarray:
        if texts != [CANARY_TEXT]:
            began = time.time()
            lines = "".join(f"{began} {content_hash(text).hex()}\n" for text in texts)
            with (self.folder / f"{os.getpid()}.txt").open("a", encoding="ascii") as file:
                file.write(lines)
            time.sleep(self.text_s * len(texts))
        return self.vectors(texts)


@dataclass(frozen=True)
class MakeEncoder:
    """Makes an encoder in a worker, as a job is told to."""

    folder: Path
    text_s: float = 0.0

    def __call__(self) -> WritingEncoder:
        return WritingEncoder(self.folder, self.text_s)


def know_fake() -> None:
    """Let a process load the model "fake" by its name."""
    from embstore import encoders

    encoders._loaded["fake"] = CountingEncoder()


def encoded(folder: Path) -> list[tuple[float, str]]:
    """All that any process has begun to encode, by time: when, and the hash of the text."""
    lines = [line for file in folder.glob("*.txt") for line in file.read_text(encoding="ascii").splitlines()]
    return sorted((float(began), key) for began, key in map(str.split, lines))


def times_encoded(folder: Path) -> Counter[str]:
    """How often each text was encoded, by its hash."""
    return Counter(key for _, key in encoded(folder))


def documents(n: int, n_duplicates: int) -> list[dict[str, Any]]:
    """Rows with an id and a text; the last have the texts of the first."""
    n_texts = n - n_duplicates
    return [{"id": f"doc {i}", "text": f"the text of document {i % n_texts}"} for i in range(n)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray Data from showing bars and from telling what it does."""
    import logging

    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)
