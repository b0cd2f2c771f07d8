"""Processes that need the same texts at once encode each of them once, whatever their order and whoever is killed."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from embstore import EmbeddingCache, content_hash
from tests.contract import workers
from tests.contract.test_leases import let_pass
from tests.faults.tally import TALLY, Tally
from tests.faults.victims import Victim, barrier
from tests.tables import rows

N_PROCESSES = 4

# Whoever is kept from running for most of a lease loses it, as on a machine that is busy with other tests.
LEASE_S = 6.0

HELD = "SELECT content_hash FROM leases"
OWNERS = "SELECT owner FROM leases"
STORED = "SELECT content_hash FROM vectors"


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return request.config.stash[TALLY]


def encoded_by_all(location: str, n: int, *, is_shuffled: bool, lease_s: float | None) -> list[str]:
    """The texts that several processes have encoded that ask for the same n at once."""
    EmbeddingCache(location).close()
    together = barrier(N_PROCESSES)
    with ExitStack() as block:
        seeds = range(N_PROCESSES) if is_shuffled else [None] * N_PROCESSES
        started = [
            block.enter_context(Victim(workers.fill, location, n, seed, lease_s, together, may_end=True))
            for seed in seeds
        ]
        encoded = [text for worker in started for text in workers.encoded(worker)]
    with EmbeddingCache(location) as cache:
        assert cache.stats().n_vectors == n
        assert cache.verify() == []
    assert rows(location, HELD) == []
    return encoded


@pytest.mark.parametrize("is_shuffled", [False, True], ids=["in one order", "each in its own"])
@pytest.mark.parametrize("n", [400, pytest.param(4_000, marks=pytest.mark.slow)])
def test_each_text_is_encoded_by_one_of_four_processes(
    n: int, is_shuffled: bool, location: str, store_kind: str, tally: Tally
) -> None:
    encoded = encoded_by_all(location, n, is_shuffled=is_shuffled, lease_s=30)
    tally.add(f"{N_PROCESSES} processes with the same {n:,} texts ({store_kind})", runs=1, encoded=len(encoded))
    assert sorted(encoded) == sorted(workers.texts_of(n))


def test_without_leases_processes_encode_the_same_texts_again(location: str, store_kind: str, tally: Tally) -> None:
    encoded = encoded_by_all(location, 400, is_shuffled=False, lease_s=None)
    tally.add(f"{N_PROCESSES} processes without leases ({store_kind})", texts=400, encoded=len(encoded))
    assert len(encoded) > 400


def hashes(query: str, location: str) -> set[bytes]:
    return {bytes(key) for (key,) in rows(location, query)}


def test_what_a_killed_process_had_begun_is_taken_over_and_nothing_that_it_had_stored(location: str) -> None:
    texts = workers.texts_of(400)
    with Victim(workers.begin_and_hang, location, 400, 6, LEASE_S) as victim, ExitStack() as block:
        victim.wait_for(6)
        while not (stored_by_it := hashes(STORED, location)):  # another thread of it is at that
            time.sleep(0.01)
        others = [
            block.enter_context(Victim(workers.fill, location, 400, seed, LEASE_S, None, may_end=True))
            for seed in (1, 2)
        ]
        while len(hashes(STORED, location)) + len(hashes(HELD, location)) < 400 or len(set(rows(location, OWNERS))) > 1:
            time.sleep(0.01)
        held_by_it, begins = hashes(HELD, location), set[object]()
        while len(begins) < 2:  # it lives, and renews its leases
            begins |= set(rows(location, "SELECT since FROM leases"))
        assert hashes(HELD, location) == held_by_it
        victim.kill()
        let_pass(location, LEASE_S)
        encoded = [text for worker in others for text in workers.encoded(worker)]
    assert min(len(stored_by_it), len(held_by_it), 400 - len(stored_by_it | held_by_it)) > 50
    assert sorted(encoded) == sorted(text for text in texts if content_hash(text) not in stored_by_it)
    assert hashes(STORED, location) == set(map(content_hash, texts))


@pytest.mark.slow
def test_of_processes_that_are_killed_at_any_moment_no_more_is_lost_than_was_not_stored(
    location: str, store_kind: str, tally: Tally
) -> None:
    rng = random.Random(store_kind)
    n = 3_000
    for _ in range(10):
        with EmbeddingCache(location) as cache:
            cache.clear()
            cache.prune(standalone=True)
        with ExitStack() as block:
            victim, *others = [
                block.enter_context(Victim(workers.fill, location, n, seed, LEASE_S, None, may_end=True))
                for seed in range(N_PROCESSES)
            ]
            victim.wait_for(1)
            time.sleep(rng.uniform(0, 2))
            of_victim = [text for batch in victim.kill() if isinstance(batch, list) for text in batch]
            of_others = [text for worker in others for text in workers.encoded(worker)]
        again = Counter(of_victim + of_others)
        again.subtract(workers.texts_of(n))
        assert set(again) == set(workers.texts_of(n))
        assert set(again.values()) <= {0, 1}
        assert {text for text, times in again.items() if times} <= set(of_victim)
        assert len(set(of_others)) == len(of_others)
        tally.add(
            f"one of {N_PROCESSES} processes killed ({store_kind})",
            rounds=1,
            texts=n,
            encoded_by_who_was_killed=len(of_victim),
            of_these_encoded_again=sum(again.values()),
            encoded_twice_by_others=len(of_others) - len(set(of_others)),
        )
