"""Work that goes on in a thread of its own beside the caller's."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Self

_logger = logging.getLogger("embstore.background")

# Waiting for a piece, somebody looks this often whether the thread is still there: CPython 3.11 gives an exception that
# cancels a thread to the one that this thread is just beginning.
_LOOK_S = 1.0


def _nothing() -> None:
    pass


class _Piece:
    """A piece of work, and what becomes of it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._is_done = False
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._is_done = True
            self._under_way.release()

    def wait(self, running: threading.Lock) -> None:
        while not self._is_done and not self._under_way.acquire(timeout=_LOOK_S if running.locked() else 0):
            if not running.locked() and not self._is_done:
                self.run()

    def drop(self) -> None:
        """Where it is not begun, do nothing in its place; who waits for it goes on."""
        self._work = _nothing

    def raise_error(self) -> None:
        error, self._error = self._error, None  # its traceback leads back here
        if error is not None:
            raise error


class _Running:
    """Held by a thread as long as it runs: whatever it ends by, also before its first line, lets go of it."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock: threading.Lock | None = lock

    def release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __del__(self) -> None:
        self.release()


class Background:
    """Runs one piece of work at a time in a thread of its own, which begins with the first piece.

    An error of a piece is raised by the next call of `submit` or `wait`. The block ends when all work has.

    An interrupt can come between any two calls of Python, also those inside of a Future, an Event or `Thread.start`,
    whose own locks then stay taken, and whoever needs them waits for ever (tests/faults/test_interrupts.py). So there
    are only a thread, a queue and locks of C, none of which can be cut in two.
    """

    def __init__(self) -> None:
        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._running: threading.Lock | None = None  # taken while the thread runs
        self._piece: _Piece | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done."""
        self.wait()
        if self._running is None and not self._start():
            work()
            return
        piece = _Piece(work)
        self._pieces.put(piece)
        self._piece = piece

    def wait(self) -> None:
        """Wait for the work that is under way, and raise the error that it ended with."""
        if self._piece is None or self._running is None:
            return
        self._piece.wait(self._running)  # an interrupt leaves it under way
        piece, self._piece = self._piece, None
        piece.raise_error()

    def ahead(self, works: Iterable[Callable[[], None]]) -> Iterator[None]:
        """Do pieces of work one after another, however far the caller has come; give a turn when each is done.

        Those that are not begun when the caller leaves are never done.
        """
        self.wait()
        pieces = [_Piece(work) for work in works]
        if self._running is None:
            self._start()
        running = self._running
        try:
            if running is not None:
                for piece in pieces:
                    self._pieces.put(piece)
            for piece in pieces:
                if running is not None:
                    piece.wait(running)
                else:
                    piece.run()
                piece.raise_error()
                yield
        finally:
            for piece in pieces:
                piece.drop()

    def _start(self) -> bool:
        running = threading.Lock()
        running.acquire()
        try:
            _thread.start_new_thread(_run, (self._pieces, _Running(running)))
        except RuntimeError:  # the interpreter is ending, or there can be no more threads
            return False
        # Not before: an interrupt can keep the thread from beginning, and nobody would let go of the lock.
        self._running = running
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pieces.put(None)
        if self._running is not None:
            with self._running:
                pass

    def __del__(self) -> None:
        self._pieces.put(None)  # where an interrupt kept the block from ending


def _run(pieces: SimpleQueue[_Piece | None], running: _Running) -> None:
    try:
        while (piece := pieces.get()) is not None:
            piece.run()
            del piece  # what it refers to is not kept until the next one comes
    finally:
        running.release()  # the traceback of an error that is being raised can keep this very frame


class Repeating:
    """Calls a function in a thread of its own, again and again with a pause before each, until it is to end.

    An error of it is logged, and the next call comes all the same.
    """

    def __init__(self, work: Callable[[], None], pause_s: float) -> None:
        self._ending = threading.Lock()  # taken until the thread is to end
        self._ending.acquire()
        self._running = threading.Lock()  # taken while the thread runs
        self._pid = os.getpid()
        self._running.acquire()
        with contextlib.suppress(RuntimeError):  # as in `Background`; then nothing is repeated
            _thread.start_new_thread(_repeat, (work, pause_s, self._ending, _Running(self._running)))

    def end(self) -> None:
        """Call it no more, and wait for the call that is under way."""
        self._ending.release()
        if os.getpid() == self._pid:  # the thread is not in a child
            with self._running:
                pass

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, RuntimeError):  # not begun, or ended
            self._ending.release()  # where an interrupt kept it from ending


def _repeat(work: Callable[[], None], pause_s: float, ending: threading.Lock, running: _Running) -> None:
    try:
        while not ending.acquire(timeout=pause_s):
            try:
                work()
            except Exception as error:
                _logger.warning("what is done every %g s failed, and is tried again: %s", pause_s, error)
    finally:
        running.release()
