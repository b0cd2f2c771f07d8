"""One document a call, all of them stored: the same ones every round, and others every round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
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
FIRST = "asked for the first time"  # embstore gives it from memory the next time, as long as nobody writes


def run(settings: Settings, folder: Path) -> CaseResult:
    rounds = ROUNDS * settings.rounds
    documents = make_documents(max(settings.scaled(10_000), 4 * (rounds + 1)))
    result = CaseResult(f"one document a call, of {len(documents):,} that are stored", "us a call")
    present, result.notes = installed(COMPETITORS)
    with ExitStack() as open_caches:
        calls: list[Calls] = []
        kinds: list[type[Competitor]] = [EmbstoreInOrder, *present]
        for kind in kinds:
            cache = filled(kind, folder, documents)
            open_caches.callback(cache.close)
            cache.check_get(cache.documents)
            calls.append(_calls(cache, repeat(_rows(cache)[: _n_again(cache)])))
            if kind in (EmbstoreInOrder, DiskCache):
                calls.append(_calls(cache, _others(cache, rounds), FIRST))
        result.rows = calls_in_turn(calls, rounds)
    peer = result.find(DiskCache.name)
    result.ratio("get / diskcache get + np.frombuffer", result.find(OURS), peer)
    peer = result.find(DiskCache.name, FIRST)
    result.ratio(f"get, {FIRST} / diskcache get + np.frombuffer", result.find(OURS, FIRST), peer)
    return result


def _rows(cache: Competitor) -> list[int]:
    rows: list[int] = np.random.default_rng(SEED).permutation(len(cache.documents)).tolist()
    return rows


def _n_again(cache: Competitor) -> int:
    return min(CALLS_A_ROUND, len(cache.documents) // 2)


def _others(cache: Competitor, rounds: int) -> Iterator[list[int]]:
    """Give rows that no other round has."""
    rows = _rows(cache)[_n_again(cache) :]
    n = min(CALLS_A_ROUND, len(rows) // (rounds + 1))
    return (rows[start : start + n] for start in range(0, len(rows) - n + 1, n))


def _calls(cache: Competitor, rows: Iterator[list[int]], group: str = "") -> Calls:
    ids, texts = cache.documents.ids, cache.documents.texts
    return Calls(cache.name, len(ids), lambda row: cache.get(ids[row], texts[row]), rows, group, cache.durable)
