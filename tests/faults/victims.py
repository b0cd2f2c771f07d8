"""Processes that are killed: they start within milliseconds where processes can be forked off one that has imported."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    _context.set_forkserver_preload(["pytest", "sqlite_utils", "tests.faults.batches", "tests.faults.jobs"])

MOMENTS = ("any", "appears", "exists", "written", "gone")
PATIENCE_S = 30.0

Job = Callable[..., None]


class Victim:
    """A process that does a job and acknowledges what it has done, until it is killed at the end of the block.

    Parameters
    ----------
    job : function of a Connection and the arguments
        It does not return.
    may_end : bool
        Except where what is done to it makes it return.
    """

    def __init__(self, job: Job, *arguments: Any, may_end: bool = False) -> None:
        self.may_end = may_end
        self.acknowledged: list[Any] = []
        self._pipe, sender = _context.Pipe(duplex=False)
        self.process = _context.Process(target=job, args=(sender, *arguments), daemon=True)
        self.process.start()
        sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def wait_for(self, n: int) -> None:
        """Wait until it has acknowledged n things more."""
        self.acknowledged += [self._pipe.recv() for _ in range(n)]

    def so_far(self) -> list[Any]:
        """Give all that it has acknowledged until now."""
        while self._pipe.poll():
            self.wait_for(1)
        return list(self.acknowledged)

    def kill(self) -> list[Any]:
        """Kill it, and give all that it has acknowledged."""
        self.process.kill()
        self.process.join()
        assert self.may_end or self.process.exitcode not in (0, 1), "it ended by itself; its error is on stderr"
        try:
            while True:
                self.wait_for(1)
        except (EOFError, OSError):  # the latter: it was killed while it wrote, or is read to its end already
            self._pipe.close()
        return self.acknowledged


def barrier(n: int) -> Barrier:
    """Where n processes wait for each other."""
    return _context.Barrier(n)


def wait_for(path: Path, moment: str, rng: random.Random, at_most_s: float) -> None:
    """Wait for a moment in the life of the journal of a file that somebody writes to.

    "appears": just then; "exists": a little later; "written": when the file itself is written to, under its protection;
    "gone": just after a commit; "any": `at_most_s` at most.
    """
    journal = os.fspath(path) + "-journal"
    if moment == "any":
        time.sleep(rng.uniform(0, at_most_s))
        return
    if moment == "written":
        wait_for_write(path, written_at(path))
        return
    _wait_until(lambda: os.path.exists(journal))  # noqa: PTH110 - asked as often as can be
    if moment == "exists":
        time.sleep(rng.uniform(0, at_most_s / 8))
    elif moment == "gone":
        _wait_until(lambda: not os.path.exists(journal))  # noqa: PTH110


def written_at(path: Path) -> int:
    """Tell when a file itself was last written to: at a commit, or when a journal was played back."""
    return path.stat().st_mtime_ns


def wait_for_write(path: Path, before: int) -> None:
    """Wait until somebody has written to a file since a time."""
    _wait_until(lambda: written_at(path) != before)


def wait_for_rollback(path: Path, before: int) -> None:
    """Wait until somebody plays a journal back into a file, or has done so, since a time."""
    _wait_until(lambda: written_at(path) != before or not has_journal(path))


def has_journal(path: Path) -> bool:
    """Tell whether a killed process left a journal that has something in it."""
    try:
        return path.with_name(f"{path.name}-journal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so() and time.monotonic() < deadline:
        pass
