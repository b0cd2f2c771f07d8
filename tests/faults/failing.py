"""A process in which system calls fail: the n-th of a kind, in a child of its own for each n.

    LD_PRELOAD=SHIM EMBSTORE_SHIM_MARKER=MARKER python -m tests.faults.failing SHIM FOLDER SHARE SEED

Each case becomes a line of JSON: the fields of `Case`. FOLDER must have MARKER in its name; of the calls that each
operation makes, one in SHARE is made to fail, with SHARE = 1 each one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from embstore import EmbstoreError
from tests.faults.operations import OPERATIONS, Operating, difference, look, make_templates

KINDS = ("write", "sync", "truncate", "open", "unlink", "read", "close", "lock", "stat", "mkdir")
HALF, HALF_THEN_FULL = -1, -2

# What a call of each kind can say. `HALF` and EINTR are no failures: they must go unnoticed.
FAULTS: dict[str, list[int]] = {
    "write": [errno.EIO, errno.ENOSPC, HALF, HALF_THEN_FULL, errno.EINTR],
    "sync": [errno.EIO, errno.ENOSPC],
    "truncate": [errno.EIO],
    "open": [errno.EACCES, errno.EMFILE, errno.EIO, errno.EINTR],
    "unlink": [errno.EIO, errno.EACCES],
    "read": [errno.EIO, HALF, errno.EINTR],
    "close": [errno.EIO],
    "lock": [errno.EIO, errno.ENOLCK],
    "stat": [errno.EIO],
    "mkdir": [errno.EACCES, errno.ENOSPC],
}
UNNOTICED = (HALF, errno.EINTR)
ONCE = (HALF_THEN_FULL, errno.ENOLCK)  # the latter is waited for, as long as it takes
COMMITTING = ("sync", "unlink")  # few calls, around the moment that decides: more of them are made to fail
MOST_CALLS = 40  # of a kind; of more, every second, third, ... fails


@dataclass(frozen=True)
class Case:
    """What became of one operation of which a call failed."""

    operation: str
    fault: str
    n: int
    n_failed: int
    error: str  # the class, "" where there was none
    is_typed: bool
    state: str  # "before", "after", "both" where they are the same, else what differs
    problems: list[str]
    beside: list[str]
    again: str  # what the same operation led to when it was done once more without the fault: "after"
    trace: str = ""


class Shim:
    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def arm(self, kind: str, n: int, error: int, *, lasting: bool) -> None:
        self._library.shim_arm(KINDS.index(kind), ctypes.c_long(n), error, int(lasting))

    def disarm(self) -> int:
        return int(self._library.shim_disarm())

    def n_calls(self) -> dict[str, int]:
        """Tell how many calls of each kind there were since `arm`."""
        return {kind: int(self._library.shim_calls(i)) for i, kind in enumerate(KINDS)}


def fault_name(kind: str, error: int, *, lasting: bool) -> str:
    what = {HALF: "half", HALF_THEN_FULL: "half, then ENOSPC"}.get(error) or errno.errorcode[error]
    return f"{kind} {what}{', all from then on' if lasting else ''}"


class Failing(Operating):
    """An operation of which a call fails."""

    def __init__(self, name: str, folder: Path, shim: Shim) -> None:
        super().__init__(name, folder)
        self.shim = shim

    def count(self) -> dict[str, int]:
        """Tell how many calls of each kind there are."""
        self.prepare()
        ours, theirs = Pipe()
        if os.fork() == 0:
            self._do(theirs, "write", 1 << 40, errno.EIO, lasting=False)
        error, _, _, n_calls, trace = self._told(ours, theirs)
        assert not error, trace
        ours.send("end")
        os.wait()
        return dict(n_calls)

    def case(self, kind: str, n: int, error: int, *, lasting: bool) -> Case:
        """Let a child operate while calls fail, look at the file, and let the child do it once more."""
        self.prepare()
        ours, theirs = Pipe()
        if os.fork() == 0:
            self._do(theirs, kind, n, error, lasting=lasting)
        name, is_typed, n_failed, _, trace = self._told(ours, theirs)
        try:
            state, problems, others = look(self.path)
            found = difference(state, self.before, self.after)
        except EmbstoreError as failed:
            found, problems, others = f"{type(failed).__name__}: {failed}", [], []
        is_done = not name or found == "after"
        ours.send("end" if is_done else "again")
        again = "after" if is_done else ours.recv()
        os.wait()
        if not again:
            state, more, _ = look(self.path)
            again = "after" if state == self.after and not more else difference(state, self.before, self.after)
        fault = fault_name(kind, error, lasting=lasting)
        return Case(self.name, fault, n, n_failed, name, is_typed, found, problems, others, again, trace)

    @staticmethod
    def _told(ours: Connection, theirs: Connection) -> Any:
        theirs.close()
        return ours.recv()

    def _do(self, told: Connection, kind: str, n: int, error: int, *, lasting: bool) -> None:
        """What the child does; it never returns."""
        try:
            cache = self.opened()
            self.shim.arm(kind, n, error, lasting=lasting)
            outcome: tuple[str, bool, str] = ("", True, "")
            try:
                self.operate(cache)
            except Exception as raised:
                outcome = (type(raised).__name__, isinstance(raised, EmbstoreError), traceback.format_exc())
            n_failed = self.shim.disarm()
            told.send((*outcome[:2], n_failed, self.shim.n_calls(), outcome[2]))
            if told.recv() == "again":
                try:
                    self.operate(cache)
                    told.send("")
                except Exception:
                    told.send(traceback.format_exc())
            if cache is not None:
                cache.close()
        finally:
            os._exit(0)


def cases_of(operating: Failing, share: int, rng: random.Random) -> Iterator[Case]:
    """Every fault at every call, one in `share` of them; where all are asked for, also the n at which none fails."""
    counts = operating.count()
    for kind, errors in FAULTS.items():
        n_calls = counts[kind]
        step = max(1, n_calls // MOST_CALLS)
        one_in = max(1, share // 10) if kind in COMMITTING else share
        for error in errors:
            for lasting in (False, True):
                if lasting and error in (*UNNOTICED, *ONCE):
                    continue
                for n in range(1, n_calls + 1, step):
                    if rng.randrange(one_in) == 0:
                        yield operating.case(kind, n, error, lasting=lasting)
        if share == 1:
            yield operating.case(kind, n_calls + 1, errors[0], lasting=True)


def main(shim: str, folder: Path, share: int, seed: int) -> None:
    templates = folder / "templates"
    make_templates(templates)
    for name in sys.argv[5:] or OPERATIONS:
        operating = Failing(name, folder, Shim(shim))
        for case in cases_of(operating, share, random.Random(f"{seed} {name}")):
            print(json.dumps(asdict(case)), flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
