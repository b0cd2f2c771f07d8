"""One document a call, all of them stored."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.cases.warm import filled
from benchmarks.competitors import COMPETITORS, Competitor, EmbstoreInOrder, installed
from benchmarks.competitors.disk_cache import DiskCache
from benchmarks.corpus import SEED, make_documents
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Calls, calls_in_turn

CALLS_A_ROUND = 200
ROUNDS = 3  # times those of other cases: a round is short


def run(settings: Settings, folder: Path) -> CaseResult:
    documents = make_documents(settings.scaled(10_000))
    result = CaseResult(f"one document a call, of {len(documents):,} that are stored", "us a call")
    present, result.notes = installed(COMPETITORS)
    with ExitStack() as open_caches:
        calls = []
        kinds: list[type[Competitor]] = [EmbstoreInOrder, *present]
        for kind in kinds:
            cache = filled(kind, folder, documents)
            open_caches.callback(cache.close)
            cache.check_get(cache.documents)
            calls.append(_calls(cache))
        result.rows = calls_in_turn(calls, ROUNDS * settings.rounds)
    result.ratio("get / diskcache get + np.frombuffer", result.find(OURS), result.find(DiskCache.name))
    return result


def _calls(cache: Competitor) -> Calls:
    """Ask for the same documents each round, in random order."""
    ids, texts = cache.documents.ids, cache.documents.texts
    rows: list[int] = np.random.default_rng(SEED).permutation(len(ids))[:CALLS_A_ROUND].tolist()
    return Calls(cache.name, len(ids), lambda row: cache.get(ids[row], texts[row]), rows, cache.durable)
