"""What is counted of models: hits and misses, and the time that both take; written with what is written anyway."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from embstore import DayUsage, EmbeddingCache, ModelIdentity, ModelUsage, claims
from embstore.stores import open_store, usage
from tests.fakes import CountingEncoder, HookedEncoder
from tests.tables import change, rows, state, writers_held

DAY = "2026-01-31"


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "today", lambda: DAY)


def usage_of(cache: EmbeddingCache, model_name: str = "fake") -> ModelUsage:
    (usage,) = (model.usage for model in cache.models() if model.model_name == model_name)
    return usage


def counts(cache: EmbeddingCache) -> tuple[int, int]:
    usage = usage_of(cache)
    return usage.n_hits, usage.n_encoded


def stored(location: str) -> list[tuple[str, int, int, int, int]]:
    return rows(location, "SELECT day, n_hits, n_hit_chars, n_encoded, n_stored FROM usage ORDER BY model_id, day")


def test_hits_and_misses_of_every_call_are_counted(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    assert counts(cache) == (0, 1)
    cache.get("a", "one", encoder)
    assert counts(cache) == (1, 1)
    cache.get_many(["a", "b", "c"], ["one", "two", "one"], encoder)  # one of them twice
    assert counts(cache) == (2, 2)
    cache.get_many(["a", "b", "c"], ["one", "two", "one"], encoder)
    assert counts(cache) == (4, 2)
    cache.embed(["one", "three"], encoder)
    cache.embed_query("three", encoder)
    assert counts(cache) == (6, 3)
    cache.put_many(["d"], ["four"], encoder.vectors(["four"]), model=encoder)
    assert counts(cache) == (6, 3)
    assert stored(cache.location) == [(DAY, 6, 20, 3, 4)]


def test_time_is_counted_and_what_was_saved_is_that_of_as_many_characters(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("embstore.grouping.time", type("Clock", (), {"perf_counter": lambda: next(clock)}))
    encoder = CountingEncoder()
    cache.get_many(["a", "b"], ["12345", "1"], encoder)  # 3 seconds for 6 characters
    cache.get("a", "12345", encoder)
    cache.get("b", "1", encoder)
    usage = usage_of(cache)
    assert usage == ModelUsage(2, 2, 3.0, 3.0, (DayUsage(DAY, 0, 0, 2, 2, 3.0),))


def test_without_a_speed_nothing_is_said_to_be_saved(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.put_many(["a"], ["one"], encoder.vectors(["one"]), model=encoder)
    cache.get("a", "one", encoder)
    assert (usage_of(cache).n_hits, usage_of(cache).saved_s) == (1, 0.0)


def test_each_day_has_its_counts(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.get("a", "one", encoder)
    monkeypatch.setattr(usage, "today", lambda: "2026-02-01")
    cache.get("a", "one", encoder)
    cache.get("b", "two", encoder)
    days = [(day.day, day.n_hits, day.n_encoded, day.n_stored) for day in usage_of(cache).days]
    assert days == [(DAY, 0, 1, 1), ("2026-02-01", 1, 1, 1)]
    assert counts(cache) == (1, 2)


def test_the_day_is_one_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert usage.today() == time.strftime("%Y-%m-%d", time.gmtime())


READS: dict[str, Callable[[EmbeddingCache, CountingEncoder], object]] = {
    "get": lambda cache, encoder: cache.get("a", "one", encoder),
    "get_many": lambda cache, encoder: cache.get_many(["a", "b"], ["one", "two"], encoder),
    "embed": lambda cache, encoder: cache.embed(["bare"], encoder),
    "matrix": lambda cache, encoder: cache.matrix("fake"),
    "stats": lambda cache, encoder: cache.stats(),
}


@pytest.mark.parametrize("read", READS)
def test_what_only_reads_writes_nothing_and_takes_no_write_lock(
    read: str, location: str, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(location) as cache:
        cache.get_many(["a", "b"], ["one", "two"], encoder)
        cache.embed(["bare"], encoder)
    before = state(location)
    with EmbeddingCache(location, timeout_s=0.1) as cache:
        READS[read](cache, encoder)
        with writers_held(location):
            READS[read](cache, encoder)
        READS[read](cache, encoder)
    assert state(location) == before


def test_hits_go_along_with_the_next_write_of_whatever_kind(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    cache.get("a", "one", encoder)
    assert stored(cache.location) == [(DAY, 0, 0, 1, 1)]
    cache.invalidate("not there")
    assert stored(cache.location) == [(DAY, 1, 3, 1, 1)]
    assert counts(cache) == (1, 1)


def test_hits_wait_on_where_a_write_fails(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    cache.get("a", "one", encoder)

    def fails(texts: list[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store.write(lambda: fails([]))
    with pytest.raises(KeyboardInterrupt):
        cache.get_many(["a", "b"], ["one", "two"], HookedEncoder(fails))
    assert stored(cache.location) == [(DAY, 0, 0, 1, 1)]
    assert counts(cache) == (2, 1)
    cache.get("b", "two", encoder)
    assert stored(cache.location) == [(DAY, 2, 6, 2, 2)]


class Refuses:
    """Has something to write with each transaction, and cannot the first time."""

    n_times = 0

    @contextlib.contextmanager
    def going_along(self) -> Iterator[Callable[[object], None]]:
        yield self.write

    def write(self, _: object) -> None:
        self.n_times += 1
        if self.n_times == 1:
            raise KeyboardInterrupt

    def forget_waiting(self) -> None:
        pass


def test_hits_wait_on_where_the_transaction_that_had_them_is_rolled_back(location: str, store_kind: str) -> None:
    store: Any = open_store(location)
    model = store.ensure_model(ModelIdentity("fake"), 8, None)
    store.note_hits(model, n_texts=2, n_chars=7)
    (store._database if store_kind == "sqlite" else store._server).go_along(Refuses())
    with pytest.raises(KeyboardInterrupt):
        store.rename_model("fake", "renamed")
    assert (stored(location), store.stats().models[0].usage.n_hits) == ([], 2)
    store.rename_model("fake", "renamed")
    assert stored(location) == [(DAY, 2, 7, 0, 0)]
    store.close()


def test_a_hit_beside_a_text_that_another_thread_encodes_is_counted_once(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, waits = threading.Event(), threading.Event()
    wait_for_others = claims.Claimed.wait_for_others

    def wait(self: claims.Claimed) -> None:
        waits.set()
        wait_for_others(self)

    def hold(texts: list[str]) -> None:
        began.set()
        assert waits.wait(30)

    monkeypatch.setattr(claims.Claimed, "wait_for_others", wait)
    cache.get("a", "known", CountingEncoder())
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.embed, ["new"], HookedEncoder(hold))
        assert began.wait(30)
        second = threads.submit(cache.get_many, ["a", "b"], ["known", "new"], CountingEncoder())
        first.result()
        second.result()
    assert counts(cache) == (2, 2)


def test_hits_of_a_model_that_is_forgotten_are_too(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    cache.get("a", "one", encoder)
    cache.clear(model_name="fake")
    assert stored(cache.location) == []
    cache.get("a", "one", CountingEncoder(model_name="other"))
    assert stored(cache.location) == [(DAY, 0, 0, 1, 1)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_counts_its_own_hits_alone(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    cache.get("a", "one", encoder)
    pid = os.fork()
    if pid == 0:
        cache.get("a", "one", encoder)
        cache.get("b", "two", encoder)
        os._exit(0)
    os.waitpid(pid, 0)
    assert stored(cache.location) == [(DAY, 1, 3, 2, 2)]
    cache.get("c", "three", encoder)
    assert stored(cache.location) == [(DAY, 2, 6, 3, 3)]


def test_a_damaged_day_begins_anew_and_keeps_nothing_from_being_stored(location: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(location) as cache:
        cache.get("a", "one", encoder)
        change(location, "UPDATE usage SET n_hits = 7")
        assert usage_of(cache).days == ()
        assert [problem.table for problem in cache.verify()] == ["usage"]
        cache.get("b", "two", encoder)
        assert cache.verify() == []
        assert np.array_equal(cache.get("b", "two", encoder), encoder.vector("two"))
    assert stored(location) == [(DAY, 0, 0, 1, 1)]
