"""A cache is backed up while processes write to it: each copy is of one moment, and holds what was acknowledged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from embstore import EmbeddingCache
from embstore.stores import copying
from tests.faults import batches
from tests.faults.batches import count_batches, counter, hot_bytes_of, hot_vectors_in, is_put, stored_in, tell
from tests.faults.tally import Tally
from tests.faults.victims import Victim

Rounds = Callable[[int, int], int]
FIRST = (0, 30_000)
"""The number of the first batch of each writer."""


class Pages:
    """Counts the pages that are copied, and lets a writer overtake each attempt that can be overtaken."""

    def __init__(self, writer: Victim | None) -> None:
        self._writer = writer
        self._n_before = 0
        self.n_begun_anew = 0

    def __call__(self, n_copied: int, n_pages: int) -> None:
        self.n_begun_anew += n_copied <= self._n_before
        self._n_before = n_copied
        if self._writer and n_copied == 3 and self.n_begun_anew < copying.LOOSE_ATTEMPTS:
            self._writer.so_far()
            self._writer.wait_for(2)  # of the second every write comes after this step


@pytest.mark.parametrize("overtaken", [True, False])
def test_a_backup_under_writers_is_of_one_moment(
    overtaken: bool, tmp_path: Path, tally: Tally, rounds: Rounds, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counter("acknowledged_meanwhile", "begun_anew", "lost_batches", "torn_batches", "wrong_vectors")
    if overtaken:
        monkeypatch.setattr(copying, "STEP_BYTES", 1)  # a page a step
    for n in range(rounds(1, 25)):
        path = tmp_path / str(n) / "embeddings.db"
        with (
            EmbeddingCache(path) as cache,
            Victim(batches.write, path, FIRST[0]) as one,
            Victim(batches.write, path, FIRST[1]) as another,
        ):
            for _ in range(2):  # the file grows all the time
                back_up(cache, tmp_path / "copy.db", (one, another), counts, overtaken=overtaken)
            counts["problems"] += len(cache.verify())
    counts["files_beside"] += len([file for file in tmp_path.iterdir() if file.is_file()])
    tell(tally, "backed up under two writers", counts, is_whole=is_whole)
    assert counts["begun_anew"] == (copying.LOOSE_ATTEMPTS * counts["rounds"] if overtaken else 0)


def back_up(
    cache: EmbeddingCache, copy: Path, writers: tuple[Victim, Victim], counts: Counter[str], *, overtaken: bool
) -> None:
    """Back up while two processes write, and look at what the copy has of each batch."""
    for writer in writers:
        writer.wait_for(2)
    before = acknowledged_by(writers)
    pages = Pages(writers[0] if overtaken else None)
    problems = cache.store.backup(copy, allow_network_filesystem=False, on_progress=pages)
    after = acknowledged_by(writers)
    may = (after - before) | {max(writer.acknowledged) + 1 for writer in writers}
    with EmbeddingCache(copy) as copied:
        stored = stored_in(copied, before | may)
    copy.unlink()
    hot = hot_vectors_in(stored)
    present = count_batches(stored, before, may, counts)
    counts["torn_batches"] += hot not in [hot_bytes_of(batch) for batch in present if is_put(batch)]
    counts["rounds"] += 1
    counts["acknowledged_meanwhile"] += len(after - before)
    counts["begun_anew"] += pages.n_begun_anew
    counts["problems"] += len(problems)


def acknowledged_by(writers: tuple[Victim, Victim]) -> set[int]:
    return {batch for writer in writers for batch in writer.so_far()}
