"""Work that goes on in a thread of its own beside the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self


class _Piece:
    """A piece of work, and what becomes of it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        # Not a Future or an Event: an interrupt while one is waited for can leave its lock taken, and the thread that
        # wants to say that it is done would wait for ever.
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._under_way.release()

    def wait(self) -> None:
        with self._under_way:
            pass

    def raise_error(self) -> None:
        error, self._error = self._error, None  # its traceback leads back here
        if error is not None:
            raise error


class Background:
    """Runs one piece of work at a time in a thread of its own, which begins with the first piece.

    An error of a piece is raised by the next call of `submit` or `wait`. The block ends when all work has.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._piece: _Piece | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done."""
        self.wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embstore-background")
        piece = _Piece(work)
        try:
            self._thread.submit(piece.run)
        except RuntimeError:  # the interpreter is ending, or there can be no more threads
            work()
        else:
            self._piece = piece

    def wait(self) -> None:
        """Wait for the work that is under way, and raise the error that it ended with."""
        if self._piece is None:
            return
        self._piece.wait()  # an interrupt leaves it under way
        piece, self._piece = self._piece, None
        piece.raise_error()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
