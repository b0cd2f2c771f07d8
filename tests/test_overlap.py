"""Storing while the model works."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, StoreBusyError, StoreFullError, background, filling
from embstore.background import Background
from tests.fakes import CountingEncoder
from tests.threads import n_background

TEXTS = [f"text {i:03}" for i in range(100)]
IDS = [f"doc {i}" for i in range(100)]


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "GROUP_ROWS", 10)


class WaitingEncoder(CountingEncoder):
    """Does not give its last batch before the groups ahead of it are in the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.n_stored = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        if self.n_texts == 90:
            deadline = time.monotonic() + 20
            with EmbeddingCache(self.path) as other:
                while len(other) < 90 and time.monotonic() < deadline:
                    threading.Event().wait(0.01)
                self.n_stored = len(other)
        return super().encode(texts)


def test_groups_are_stored_while_the_model_works_on_the_next(cache: EmbeddingCache, cache_path: Path) -> None:
    encoder = WaitingEncoder(cache_path)
    vectors = cache.get_many(IDS, TEXTS, encoder, batch_size=10)
    assert encoder.n_stored == 90
    assert (vectors == encoder.vectors(TEXTS)).all()
    assert encoder.n_texts == 100


def test_the_model_is_called_by_one_thread_and_the_rows_come_from_another(cache: EmbeddingCache) -> None:
    callers: set[int] = set()

    class Remembering(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            callers.add(threading.get_ident())
            return super().encode(texts)

    cache.get_many(IDS, TEXTS, Remembering(), batch_size=10)
    assert callers == {threading.get_ident()}
    assert n_background() == 0


def test_a_call_of_one_group_starts_no_thread(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*args: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(background._thread, "start_new_thread", no_thread)
    cache.get_many(IDS[:10], TEXTS[:10], CountingEncoder(), batch_size=5)
    assert len(cache) == 10


def test_an_error_of_the_writer_reaches_the_caller_and_what_was_stored_stays(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = type(cache._store).insert_vectors
    n_groups = 0

    def full_at_the_third(*args: object, **kwargs: object) -> int:
        nonlocal n_groups
        n_groups += 1
        if n_groups >= 3:
            raise StoreFullError("no room", path=cache._store.location)
        return insert(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(cache._store), "insert_vectors", full_at_the_third)
    with pytest.raises(StoreFullError):
        cache.get_many(IDS, TEXTS, encoder, batch_size=10)
    monkeypatch.undo()
    assert len(cache) == 20
    assert (cache.get_many(IDS, TEXTS, encoder) == encoder.vectors(TEXTS)).all()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_encoded_before_a_failure_is_stored(cache: EmbeddingCache, error: type[BaseException]) -> None:
    class Failing(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            if self.n_texts == 55:
                raise error("stop")
            return super().encode(texts)

    failing = Failing()
    with pytest.raises((Exception, KeyboardInterrupt)):
        cache.get_many(IDS, TEXTS, failing, batch_size=5)
    assert len(cache) == 55
    assert n_background() == 0


@pytest.mark.parametrize("failing", [1, 2])
def test_a_group_that_was_encoded_is_stored_although_the_one_before_it_is_not(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    insert = type(cache._store).insert_vectors
    n_groups = 0

    def busy(*args: object, **kwargs: object) -> int:
        nonlocal n_groups
        n_groups += 1
        if n_groups == failing:
            raise StoreBusyError("locked", path=cache._store.location)
        return insert(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(cache._store), "insert_vectors", busy)
    with pytest.raises(StoreBusyError):
        cache.get_many(IDS, TEXTS, encoder, batch_size=10)
    assert len(cache) == encoder.n_texts - 10 == 10 * failing


def test_an_interrupt_while_waiting_for_the_writer_keeps_what_was_encoded(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, n_waits = Background.wait, 0

    def interrupted(writer: Background) -> None:
        nonlocal n_waits
        n_waits += 1
        if n_waits == 3:
            raise KeyboardInterrupt
        wait(writer)

    monkeypatch.setattr(Background, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.get_many(IDS, TEXTS, encoder, batch_size=10)
    assert len(cache) == encoder.n_texts


def test_work_of_a_thread_that_came_to_nothing_is_done_by_the_caller(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython 3.11 gives an exception that cancels a thread to the one that it is just beginning."""
    monkeypatch.setattr(background._thread, "start_new_thread", lambda run, arguments: None)
    monkeypatch.setattr(background, "_LOOK_S", 0.01)
    assert (cache.get_many(IDS, TEXTS, encoder, batch_size=10) == encoder.vectors(TEXTS)).all()
    assert len(cache) == 100


AT_EXIT = """
import sys, threading, time
from embstore import EmbeddingCache, filling
from tests.fakes import CountingEncoder
from tests.threads import n_background

filling.GROUP_ROWS = 10

class Slow(CountingEncoder):
    def encode(self, texts):
        time.sleep(0.02)
        return super().encode(texts)

def fill():
    with EmbeddingCache(sys.argv[1]) as cache:
        cache.get_many(map(str, range(300)), map(str, range(300)), Slow(), batch_size=10)

threading.Thread(target=fill).start()
"""


def test_a_thread_goes_on_storing_when_the_main_thread_has_ended(cache_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT, str(cache_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with EmbeddingCache(cache_path) as cache:
        assert len(cache) == 300
