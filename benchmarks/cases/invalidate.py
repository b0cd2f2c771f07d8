"""Forgetting documents and their vectors."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.bare import BareDelete
from benchmarks.cases.cold import settle
from benchmarks.competitors import EmbstoreCache
from benchmarks.corpus import make_documents
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn
from embstore import EmbeddingCache

BARE = "bare DELETE"


def run(settings: Settings, folder: Path) -> CaseResult:
    """Forget random documents of two files that are alike; each round others, the same in both."""
    documents, n_forgotten = make_documents(settings.scaled(100_000)), settings.scaled(1_000)
    title = f"{n_forgotten:,} of {len(documents):,} documents forgotten, with their vectors"
    result = CaseResult(title, "us a document")
    filling = EmbstoreCache(folder, documents)
    filling.open()
    filling.fill()
    filling.close()
    ours, theirs = folder / "embeddings.db", folder / "bare.db"
    shutil.copy(ours, theirs)
    pieces = [batch.ids for batch in documents.shuffled().batches(n_forgotten)]
    rounds = min(settings.rounds, len(pieces) - 1)
    with EmbeddingCache(ours) as cache:
        bare = BareDelete(theirs)
        ours_next, theirs_next = iter(pieces), iter(pieces)
        forgotten: list[str] = []

        def prepare_ours() -> None:
            forgotten[:] = next(ours_next)
            settle()

        def prepare_theirs() -> None:
            bare.prepare(next(theirs_next))
            settle()

        turns = [
            Turn(OURS, n_forgotten, lambda: cache.invalidate(forgotten), prepare=prepare_ours, durable="yes"),
            Turn(BARE, n_forgotten, bare.delete, prepare=prepare_theirs, durable="yes"),
        ]
        result.rows = in_turn(turns, rounds)
        bare.close()
        with EmbeddingCache(theirs) as other:
            assert len(cache) == len(other) == len(documents) - (rounds + 1) * n_forgotten
            assert cache.prune(dry_run=True).n_vectors == other.prune(dry_run=True).n_vectors == 0
    result.ratio("invalidate / bare DELETE", result.find(OURS), result.find(BARE))
    return result
