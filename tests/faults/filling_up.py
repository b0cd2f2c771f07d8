"""A process for which there is no room: on a small file system, or with a limit to the size of its files.

    python -m tests.faults.filling_up KIND FOLDER CYCLES SEED

KIND is "disk", where FOLDER/now is a file system of its own, or "limit". Each cycle becomes a line of JSON: the fields
of `Cycle`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from embstore import EmbeddingCache, EmbstoreError
from tests.faults.operations import OPERATIONS, TIMEOUT_S, Operating, difference, look, make_templates, read

# What has the file, or that of a journal, grow.
GROWING = ("create", "put much", "put", "get_many", "convert", "migrate from version 1", "migrate from version 2")
MOST_ROOM = 1_500_000  # bytes; what needs the most needs about as many
PAGE = 4096


@dataclass(frozen=True)
class Cycle:
    """What became of an operation for which there was little room."""

    operation: str
    is_cut: bool  # the file is longer than it may be
    error: str  # the class, "" where there was room enough
    state: str  # "before", "after", "both" where they are the same, else what differs
    reading: str  # the error of reading while there was no room; "" where there was none
    problems: list[str]
    beside: list[str]
    again: str  # the state after the same operation, once there was room
    trace: str = ""


class Room(Protocol):
    def take(self, room: int) -> None:
        """Leave so many bytes."""

    def give_back(self) -> None:
        """Let there be enough."""


class Disk:
    """The rest of a file system, taken by another file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._filler = folder, folder / "filler"

    def take(self, room: int) -> None:
        free = os.statvfs(self._folder)
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(PAGE, free.f_bavail * free.f_frsize - room))

    def give_back(self) -> None:
        self._filler.unlink(missing_ok=True)


class Limit:
    """A limit to the size of each file of this process."""

    def take(self, room: int) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    def give_back(self) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def cycle(operating: Operating, room: Room, n_bytes: int, *, is_cut: bool) -> Cycle:
    """Operate with little room, look and read while there is none, and operate again with enough."""
    operating.prepare()
    cache, path = operating.opened(), operating.path
    room.take(n_bytes)
    error = trace = reading = ""
    try:
        operating.operate(cache)
    except Exception as raised:
        error, trace = type(raised).__name__, traceback.format_exc()
    try:
        reading = look_and_read(operating, cache)
    except Exception as raised:
        reading, trace = type(raised).__name__, trace + traceback.format_exc()
    room.give_back()
    state, problems, beside = look(path)
    found = difference(state, operating.before, operating.after)
    again = "after"
    if error and found != "after":
        try:
            operating.operate(cache)
            state, more, others = look(path)
            again = difference(state, operating.before, operating.after).replace("both", "after")
            problems, beside = problems + more, beside + others
        except EmbstoreError:
            again = traceback.format_exc()
    if cache is not None:
        cache.close()
    return Cycle(operating.name, is_cut, error, found, reading, problems, beside, again, trace)


def look_and_read(operating: Operating, cache: EmbeddingCache | None) -> str:
    """Find what is there in every way, by the cache that is open and by another."""
    if operating.template != "cache":
        return ""  # what cannot be opened without a write is not
    state, problems, _ = look(operating.path)
    found = difference(state, operating.before, operating.after)
    if found in ("before", "both"):
        for reader in [] if cache is None else [cache]:
            read(reader)
        with EmbeddingCache(operating.path, timeout_s=TIMEOUT_S) as another:
            read(another)
    return "; ".join(problems) or ("" if found in ("before", "both", "after") else found)


def main(kind: str, folder: Path, n_cycles: int, seed: int) -> None:
    make_templates(folder / "templates")
    rng = random.Random(f"{seed} {kind}")
    chosen = [name for name in OPERATIONS if "read" not in name and (kind == "disk" or name in GROWING)]
    operations: dict[str, Operating] = {}
    for i in range(n_cycles):
        name = chosen[i % len(chosen)]
        operating = operations.setdefault(name, operations.get(name) or Operating(name, folder))
        before, after = operating.sizes
        if kind == "disk":
            made = cycle(operating, Disk(folder / "now"), int(rng.random() ** 2 * MOST_ROOM), is_cut=False)
        elif after > before and rng.randrange(3):
            made = cycle(operating, Limit(), rng.randrange(before, after), is_cut=False)
        else:
            made = cycle(operating, Limit(), rng.randrange(after), is_cut=before > 0)
        print(json.dumps(asdict(made)), flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
