"""The power is cut while a process writes: what was acknowledged is on the disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embstore.errors import StoreError
from tests.faults import batches
from tests.faults.batches import FOUND, History, tell
from tests.faults.power import LOGFLUSH, NOLOGFLUSH, Disk
from tests.faults.tally import Tally
from tests.faults.victims import MOMENTS, Job, Victim, has_journal, wait_for

Rounds = Callable[[int, int], int]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.close()


def lose_power(disk: Disk, job: Job, history: History, i: int, rng: random.Random) -> list[int]:
    """Cut the power of a disk while a writer writes to it, and give what that has acknowledged."""
    with Victim(job, history.path, history.next_batch, may_end=True) as writer:
        writer.wait_for(rng.randrange(1, 5))
        wait_for(history.path, MOMENTS[i % 5], rng, 0.02)
        disk.cut_power((NOLOGFLUSH, LOGFLUSH)[i % 2])
        acknowledged = writer.kill()
    disk.start_again()
    history.counts["journals_left"] += has_journal(history.path)
    return acknowledged


def test_what_was_acknowledged_is_there_after_a_power_loss(
    disk: Disk, tally: Tally, rounds: Rounds, is_whole: bool
) -> None:
    history, rng = History(disk.root / "cache" / "embeddings.db"), random.Random(0)
    for i in range(rounds(4, 100)):
        history.check(lose_power(disk, batches.write_until_it_fails, history, i, rng))
    tell(tally, "power lost while writing", history.counts, is_whole=is_whole)


def test_without_waiting_for_the_disk_acknowledged_batches_are_lost(disk: Disk, tally: Tally, rounds: Rounds) -> None:
    """The control: that the test above can fail."""
    fault, rng = "power lost, control without fsync", random.Random(1)
    n_lost = 0
    for i in range(rounds(2, 20)):
        history = History(disk.root / str(i) / "embeddings.db")
        acknowledged = lose_power(disk, batches.write_unsynced, history, i, rng)
        try:
            history.check(acknowledged)
            is_lost = any(history.counts[name] for name in FOUND)
        except StoreError:
            is_lost = True
        n_lost += is_lost
        tally.add(fault, rounds=1, rounds_that_lost_batches=int(is_lost))
    assert n_lost > 0
