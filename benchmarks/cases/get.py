"""One document a call, all of them stored: others every round, and the same ones every round."""

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
FIRST, AGAIN = "asked for the first time", "asked for again"


def run(settings: Settings, folder: Path) -> CaseResult:
    rounds = ROUNDS * settings.rounds
    documents = make_documents(max(settings.scaled(10_000), 4 * (rounds + 1)))
    result = CaseResult(f"one document a call, of {len(documents):,} that are stored", "us a call")
    present, result.notes = installed(COMPETITORS)
    with ExitStack() as open_caches:
        calls: list[Calls] = []
        kinds: list[type[Competitor]] = [EmbstoreInOrder, *present]
        for kind in kinds:
            first = filled(kind, folder, documents)
            first.check_get(first.documents)
            again = kind(first.folder, first.documents)  # what one of them has in memory is of no use to the other
            again.open()
            for cache in (first, again):
                open_caches.callback(cache.close)
            calls += [_calls(first, FIRST, _others(first, rounds)), _calls(again, AGAIN, repeat(_rows(first, 1)))]
        result.rows = calls_in_turn(calls, rounds)
    for what in (FIRST, AGAIN):
        ours, peer = result.find(OURS, what), result.find(DiskCache.name, what)
        result.ratio(f"get, {what} / diskcache get + np.frombuffer", ours, peer)
    return result


def _rows(cache: Competitor, rounds: int) -> list[int]:
    """Give the rows of some rounds, in random order."""
    n = len(cache.documents)
    rows: list[int] = np.random.default_rng(SEED).permutation(n)[: rounds * CALLS_A_ROUND].tolist()
    return rows


def _others(cache: Competitor, rounds: int) -> Iterator[list[int]]:
    """Give rows that no other round has."""
    rows = _rows(cache, rounds + 1)
    n = len(rows) // (rounds + 1)
    return (rows[start : start + n] for start in range(0, len(rows) - n + 1, n))


def _calls(cache: Competitor, group: str, rows: Iterator[list[int]]) -> Calls:
    ids, texts = cache.documents.ids, cache.documents.texts
    return Calls(cache.name, len(ids), lambda row: cache.get(ids[row], texts[row]), rows, group, cache.durable)
