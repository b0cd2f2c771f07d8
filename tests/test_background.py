"""Work that is done ahead of the caller, in a thread of its own."""

from __future__ import annotations

import _thread
import threading

import pytest

from embstore.background import Background
from tests.threads import n_background


def test_work_goes_on_however_far_the_caller_has_come() -> None:
    done: list[int] = []
    all_done = threading.Event()

    def last() -> None:
        done.append(3)
        all_done.set()

    with Background() as background:
        turns = background.ahead([lambda: done.append(1), lambda: done.append(2), last])
        next(turns)
        assert all_done.wait(10)
        assert done == [1, 2, 3]
        assert len(list(turns)) == 2
    assert not n_background()


def test_an_error_comes_in_its_turn_and_the_rest_is_never_done() -> None:
    done: list[int] = []

    def fail() -> None:
        done.append(2)
        raise ValueError("of the second")

    gate = threading.Event()
    with Background() as background:
        turns = background.ahead([lambda: done.append(1), fail, gate.wait, lambda: done.append(4)])
        next(turns)
        with pytest.raises(ValueError, match="of the second"):
            next(turns)
        gate.set()
    assert done == [1, 2]
    assert not n_background()


def test_who_leaves_is_waited_for_by_no_work() -> None:
    done: list[int] = []
    began, gate = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        gate.wait(10)

    with Background() as background:
        for _ in background.ahead([lambda: done.append(1), hold, *[lambda: done.append(2)] * 100]):
            assert began.wait(10)
            break
        gate.set()
    assert done == [1]
    assert not n_background()


def test_without_a_thread_the_caller_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", no_thread)
    threads: list[int] = []
    with Background() as background:
        turns = [len(threads) for _ in background.ahead([lambda: threads.append(threading.get_ident())] * 3)]
    assert turns == [1, 2, 3]
    assert set(threads) == {threading.get_ident()}
