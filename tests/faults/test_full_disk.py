"""No room: a file system that is full, and a limit to the size of files. Nothing changes, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.filling_up import Cycle
from tests.faults.operations import temporary_files
from tests.faults.tally import Tally

DISK_BYTES = 16 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in which `now` is a file system of its own."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small file system")
    mounted = tmp_path / "now"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", mounted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", mounted], check=True)


def run_cycles(kind: str, folder: Path, n_cycles: int) -> list[Cycle]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.filling_up", kind, folder, str(n_cycles), "5"],
        env={**os.environ, **temporary_files(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    cycles = [Cycle(**json.loads(line)) for line in done.stdout.splitlines()]
    assert len(cycles) == n_cycles
    return cycles


def is_kept(cycle: Cycle) -> bool:
    """An error says that there was no room, all was as before and could be read; and with room all went well."""
    expected = ("both", "before") if cycle.error else ("both", "after")
    # What was begun to be written beyond a limit cannot be rolled back within it, and then nothing of it is given out.
    readable = ("", "StoreFullError") if cycle.is_cut else ("",)
    return (
        (cycle.error in ("", "StoreFullError") and cycle.state in expected and cycle.reading in readable)
        and cycle.again == "after"
        and not cycle.problems
        and not cycle.beside
    )


def count(tally: Tally, fault: str, cycles: list[Cycle]) -> None:
    lost = [cycle for cycle in cycles if not is_kept(cycle)]
    tally.add(
        fault,
        cycles=len(cycles),
        refused=sum(cycle.error == "StoreFullError" for cycle in cycles),
        not_kept=len(lost),
    )
    assert lost == []
    assert {cycle.error for cycle in cycles} == {"", "StoreFullError"}


def test_a_full_disk_changes_nothing_and_can_be_read(
    small_disk: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    cycles = run_cycles("disk", small_disk, rounds(10, 150))
    count(tally, "a full disk", cycles)
    assert all(cycle.reading == "" for cycle in cycles)


@pytest.mark.skipif(os.name != "posix", reason="Windows limits no files' sizes")
def test_a_limit_to_the_size_of_files_changes_nothing(
    tmp_path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    (tmp_path / "now").mkdir()
    count(tally, "a limit to the size of files", run_cycles("limit", tmp_path, rounds(10, 140)))
