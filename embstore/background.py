"""Work that goes on in a thread of its own beside the caller's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self


class Background:
    """Runs one piece of work at a time in a thread of its own, which begins with the first piece.

    An error of a piece is raised by the next call of `submit` or `wait`. The block ends when all work has.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._work: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done."""
        self.wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embstore-background")
        try:
            self._work = self._thread.submit(work)
        except RuntimeError:  # the interpreter is ending, or there can be no more threads
            work()

    def wait(self) -> None:
        """Wait for the work that is under way, and raise the error that it ended with."""
        if self._work is None:
            return
        wait([self._work])  # an interrupt leaves it under way
        work, self._work = self._work, None
        work.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
