"""System calls fail one by one: a typed error and the state before, or success and the state after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.failing import Case
from tests.faults.operations import OPERATIONS, temporary_files
from tests.faults.shim import compiled, needs_shim
from tests.faults.tally import Tally


def run_cases(shim: Path, folder: Path, share: int, operations: list[str]) -> list[Case]:
    marked = folder / "marked-for-the-shim"
    marked.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.failing", shim, marked, str(share), "7", *operations],
        env={
            **os.environ,
            **temporary_files(marked),
            "LD_PRELOAD": str(shim),
            "EMBSTORE_SHIM_MARKER": "marked-for-the-shim/now",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    return [Case(**json.loads(line)) for line in done.stdout.splitlines()]


def is_kept(case: Case) -> bool:
    """Whoever was told of an error finds the state before, anybody else the state after, and either can go on."""
    written = case.error in ("", "UnconfirmedWriteError")
    expected = ("both", "after") if written else ("both", "before")
    # What cannot be removed stays: what a backup was copied to, and SQLite's temporary files.
    is_left = case.fault.startswith("unlink")
    beside = [name for name in case.beside if not (is_left and (name.endswith(".part") or name.startswith("etilqs_")))]
    return case.is_typed and case.state in expected and case.again == "after" and not case.problems and not beside


@needs_shim
def test_whatever_call_fails_there_is_an_error_and_the_state_before_or_the_state_after(
    tmp_path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    shim, share, n_processes = compiled(tmp_path), rounds(127, 1), rounds(1, 4)
    folders = [tmp_path / f"{i}" for i in range(n_processes)]
    with ThreadPoolExecutor(n_processes) as pool:
        runs = [
            pool.submit(run_cases, shim, folder, share, list(OPERATIONS)[i::n_processes])
            for i, folder in enumerate(folders)
        ]
        cases = [case for run in runs for case in run.result()]
    third = [case for case in cases if not is_kept(case)]
    tally.add(
        "a system call fails",
        cases=len(cases),
        failed_calls=sum(case.n_failed for case in cases),
        errors=sum(case.error != "" for case in cases),
        successes=sum(case.error == "" for case in cases),
        unconfirmed_writes=sum(case.error == "UnconfirmedWriteError" for case in cases),
        third_outcomes=len(third),
    )
    assert third == []
    assert any(case.error == "UnconfirmedWriteError" for case in cases)
    assert sum(case.error != "" and case.state == "before" for case in cases) > 10
    assert sum(case.error == "" and case.state == "after" and case.n_failed > 0 for case in cases) > 3
