"""Work that is done ahead of the caller, in a thread of its own."""

from __future__ import annotations

import _thread
import dis
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import pytest

from embstore import background
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
        turns = background.ahead([lambda: done.append(1), fail, lambda: gate.wait(10), lambda: done.append(4)])
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


def test_a_thread_that_has_died_is_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece looks whether it is still there before it waits for it; a second for each of 1,000 would be long."""

    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(background, "_run", die)
    monkeypatch.setattr(background, "_LOOK_S", 0.01)
    done: list[int] = []
    with Background() as dead:
        assert len(list(dead.ahead([lambda: done.append(1)] * 1000))) == 1000
        monkeypatch.setattr(background, "_LOOK_S", 10_000.0)
        dead.submit(lambda: done.append(1))
        dead.wait()
    assert len(done) == 1001


class Hanging(BaseException):
    """What ends a test that waits for ever."""


# Where CPython looks whether a signal has come.
CHECKPOINTS_AFTER = {"CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}


def interrupted(work: Callable[[], object], number: int) -> bool:
    """Interrupt some work at one of the moments at which that can be inside of the module; tell whether it came."""
    n_seen = 0
    last: dict[int, str] = {}  # by the ids of frames, which stay no longer than they would
    names: dict[CodeType, dict[int, str]] = {}

    def of_opcode(frame: FrameType, event: str, _: object) -> Any:
        nonlocal n_seen
        if event == "opcode":
            code = frame.f_code
            if code not in names:
                names[code] = {one.offset: one.opname for one in dis.get_instructions(code)}
            before, last[id(frame)] = last.get(id(frame)), names[code][frame.f_lasti]
            if before in CHECKPOINTS_AFTER:
                n_seen += 1
                if n_seen == number:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return of_opcode

    def of_call(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != background.__file__:
            return None
        frame.f_trace_opcodes = True
        last[id(frame)] = "RESUME"
        return of_opcode

    sys.settrace(of_call)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer that interrupts")
@pytest.mark.skipif(sys.gettrace() is not None, reason="the trace function is in use")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_moment_leaves_nobody_waiting() -> None:
    done: list[int] = []

    def work() -> None:
        done.clear()
        with Background() as background_:
            background_.submit(lambda: done.append(1))
            background_.submit(lambda: done.append(2))
            background_.wait()
            for _ in background_.ahead([lambda: done.append(3), lambda: done.append(4)]):
                pass

    def hang(*_: object) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, hang)
    try:
        number = 0
        is_interrupted = True
        while is_interrupted:
            number += 1
            signal.setitimer(signal.ITIMER_REAL, 30)
            is_interrupted = interrupted(work, number)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert not n_background()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert done == [1, 2, 3, 4]
    assert number > 50
