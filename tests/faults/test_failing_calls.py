"""System calls fail one by one: a typed error and the state before, or success and the state after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.failing import Case
from tests.faults.operations import OPERATIONS
from tests.faults.tally import Tally

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD and /proc are Linux's"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", library, source, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return library


def run_cases(shim: Path, folder: Path, share: int, operations: list[str]) -> list[Case]:
    marked = folder / "marked-for-the-shim"
    marked.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.failing", shim, marked, str(share), "7", *operations],
        env={**os.environ, "LD_PRELOAD": str(shim), "EMBSTORE_SHIM_MARKER": "marked-for-the-shim/now"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    return [Case(**json.loads(line)) for line in done.stdout.splitlines()]


def is_kept(case: Case) -> bool:
    """Whoever was told of an error finds the state before, anybody else the state after, and either can go on."""
    written = case.error in ("", "UnconfirmedWriteError")
    expected = ("both", "after") if written else ("both", "before")
    # What cannot be removed stays.
    beside = [name for name in case.beside if not (case.fault.startswith("unlink") and name.endswith(".part"))]
    return case.is_typed and case.state in expected and case.again == "after" and not case.problems and not beside


def test_whatever_call_fails_there_is_an_error_and_the_state_before_or_the_state_after(
    shim: Path, tmp_path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    cases = run_cases(shim, tmp_path, rounds(140, 1), list(OPERATIONS))
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
