"""Everything is stored, and all of it is asked for by its texts."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.competitors import COMPETITORS, Competitor, EmbstoreInOrder, Limit, installed
from benchmarks.corpus import Documents, make_documents
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn

STORED, RANDOM, ANEW = "stored order", "random order", "opened anew"


def run(settings: Settings, folder: Path, *, n: int) -> CaseResult:
    """Read n documents; who takes part with fewer only does so in the smaller of the two cases."""
    n, smallest = settings.scaled(n), settings.scaled(10_000)
    documents = make_documents(n)
    shuffled = documents.shuffled()
    result = CaseResult(f"everything stored, {n:,} documents asked for by their texts", "us a document")
    present, result.notes = installed(COMPETITORS)
    if n > smallest:
        present = [kind for kind in present if kind.most_documents is None]
    with ExitStack() as open_caches:
        kinds: list[type[Competitor]] = [EmbstoreInOrder, Limit, *present]
        caches = [filled(kind, folder, documents) for kind in kinds]
        for cache in caches:
            open_caches.callback(cache.close)
        turns = [
            Turn(c.name, len(c.documents), partial(c.read, c.documents), STORED, durable=c.durable) for c in caches
        ]
        whole = [c for c in caches if len(c.documents) == n and not isinstance(c, Limit)]
        for cache in whole:
            cache.check(shuffled)
        turns += [Turn(c.name, n, partial(c.read, shuffled), RANDOM, durable=c.durable) for c in whole]
        if n == smallest:
            turns += [Turn(c.name, len(c.documents), partial(reopened, c), ANEW, durable=c.durable) for c in caches]
        result.rows = in_turn(turns, settings.rounds)
    compare(result)
    return result


def filled(kind: type[Competitor], folder: Path, documents: Documents) -> Competitor:
    """Fill one, open it again as another process would find it, and see that it gives what it was given."""
    own = folder / kind.__name__
    own.mkdir()
    cache = kind(own, kind.share(documents))
    cache.open()
    cache.fill()
    cache.close()
    cache.open()
    cache.check(cache.documents)
    return cache


def reopened(cache: Competitor) -> object:
    """Read all in the first call after opening, which is part of it: what is kept in memory must be loaded first."""
    cache.close()
    cache.open()
    return cache.read(cache.documents)


def compare(result: CaseResult) -> None:
    limit = result.find(Limit.name, STORED)
    for group in (STORED, RANDOM):
        ours = result.find(OURS, group)
        others = [row for row in result.rows if row.group == group and row.name not in (OURS, Limit.name)]
        result.ratio(f"{group} / limit", ours, limit)
        result.ratio_to_fastest(f"{group} / fastest competitor", ours, others)
