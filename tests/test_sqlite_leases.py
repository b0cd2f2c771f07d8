"""Leases in a file end by the clock that a machine has since it was started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embstore import EmbeddingCache, content_hash
from embstore.stores import sqlite_leases
from embstore.stores.sqlite import SQLiteStore
from embstore.stores.tables.leases import lasts
from tests.fakes import CountingEncoder, HookedEncoder
from tests.files import rows

MODEL, KEYS = b"m" * 32, [content_hash("a"), content_hash("b")]


class Clock:
    """What a machine that was started a while ago tells."""

    now = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sqlite_leases, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def store(cache_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(cache_path)
    yield store
    assert store.verify() == []
    store.close()


def claim(store: SQLiteStore, owner: str) -> list[int]:
    return store.leases.claim(MODEL, KEYS, owner=owner, lease_s=60, most=2)


def test_a_lease_lasts_until_its_moment_and_no_longer(store: SQLiteStore, clock: Clock) -> None:
    claim(store, "a")
    clock.now += 59.999
    assert claim(store, "b") == []
    clock.now = 1_060.0
    assert claim(store, "b") == [0, 1]


def test_what_is_left_from_before_a_start_of_the_machine_means_nothing(store: SQLiteStore, clock: Clock) -> None:
    claim(store, "a")
    clock.now = 5.0
    assert store.leases.held(MODEL, KEYS, owner="b") == []
    assert claim(store, "b") == [0, 1]


def test_when_the_new_clock_comes_by_an_old_lease_it_lasts_no_longer_than_it_would_have(
    store: SQLiteStore, clock: Clock
) -> None:
    claim(store, "a")
    held = {}
    for clock.now in (5.0, 999.9, 1_000.0, 1_059.9, 1_060.0, 1e6):
        held[clock.now] = len(store.leases.held(MODEL, KEYS, owner="b"))
    assert held == {5.0: 0, 999.9: 0, 1_000.0: 2, 1_059.9: 2, 1_060.0: 0, 1e6: 0}


def test_a_file_holds_nobody_up_that_was_copied_with_leases_in_it(
    cache_path: Path, tmp_path: Path, clock: Clock
) -> None:
    copy = tmp_path / "copy.db"
    with EmbeddingCache(cache_path, lease_s=60) as cache:
        cache.embed(["a"], HookedEncoder(lambda _: cache.backup(copy, progress=False)))
    assert len(rows(copy, "SELECT * FROM leases")) == 1
    clock.now = 5.0
    encoder = CountingEncoder()
    with EmbeddingCache(copy, lease_s=60) as cache:
        cache.embed(["a"], encoder)
        assert cache.verify() == []
    assert encoder.texts == ["a"]


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_the_time_of_day_ends_no_lease_and_lengthens_none(
    jump_s: float, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    really: Callable[[], float] = time.time
    claim(store, "a")
    monkeypatch.setattr(time, "time", lambda: really() + jump_s)
    assert claim(store, "b") == []
    ((since, until),) = set(rows(Path(store.location), "SELECT since, until FROM leases"))
    assert until - since == pytest.approx(60)


@pytest.mark.parametrize(
    ("since", "until"),
    [(0.0, "x"), (0.0, b"x"), ("0", 60.0), (None, 60.0), (0, 60), (0.0, float("inf")), (float("nan"), 60.0)],
    ids=str,
)
def test_a_damaged_lease_means_nothing(since: Any, until: Any) -> None:
    assert lasts(0.0, 60.0, 30.0)
    assert not lasts(since, until, 30.0)
