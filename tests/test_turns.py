"""Writers of one file take turns; tests/faults/test_many_at_once.py shows what comes of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embstore.stores import turns


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


@pytest.fixture
def opened(cache_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(cache_path)) as opened:
        yield opened


class Pauses:
    """A clock that stands still, and is put on by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    clock = Pauses()
    monkeypatch.setattr(turns, "time", clock)
    return clock


def test_who_writes_alone_without_a_pause_makes_one_every_two_seconds(
    clock: Pauses, opened: sqlite3.Connection
) -> None:
    mine = turns.Turns(30)
    for _ in range(100):
        mine.begin(opened)
        clock.now += 0.1
        opened.execute("COMMIT")
        mine.end()
    assert clock.slept == [turns.PAUSE_S] * 4


def test_who_rests_between_writes_makes_no_further_pause(clock: Pauses, opened: sqlite3.Connection) -> None:
    mine = turns.Turns(30)
    for _ in range(100):
        mine.begin(opened)
        clock.now += 0.1
        opened.execute("COMMIT")
        mine.end()
        clock.now += 0.05
    assert clock.slept == []


def test_who_waits_begins_to_look_often_again(
    opened: sqlite3.Connection, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, looked_often = [], threading.Event()

    class Looking(turns.Turns):
        def _has_begun(self, connection: sqlite3.Connection, until: float) -> bool:
            looks.append(connection.execute("PRAGMA busy_timeout").fetchone())
            if len(looks) == 3:
                looked_often.set()
            return super()._has_begun(connection, until)

    with closing(connect(cache_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=Looking(30).begin, args=(opened,))
        waiting.start()
        looked_often.wait()
        other.execute("COMMIT")
        waiting.join()
    assert set(looks) == {(128,)}
    assert opened.in_transaction
    assert opened.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


@pytest.mark.parametrize("timeout_s", [0, 0.2])
def test_no_turn_in_time_is_an_error_and_the_next_has_its_whole_time(
    timeout_s: float, opened: sqlite3.Connection, cache_path: Path
) -> None:
    with closing(connect(cache_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            turns.Turns(timeout_s).begin(opened)
    assert opened.execute("PRAGMA busy_timeout").fetchone() == (1000 * timeout_s,)
