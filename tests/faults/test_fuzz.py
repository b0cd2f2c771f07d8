"""The target of `make fuzz`, tried for seconds instead of minutes, and without its fuzzer."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.tally import Tally

if not sys.platform.startswith("linux"):
    pytest.skip("memory is told as Linux tells it", allow_module_level=True)

from tests.faults import fuzz_files, reading

SEED = 20


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return fuzz_files.corpus(tmp_path_factory.mktemp("corpus"))


def test_no_call_lets_another_exception_or_a_wrong_vector_out(seeds: list[bytes], tmp_path: Path, tally: Tally) -> None:
    target = fuzz_files.Target(tmp_path)
    target.run(seeds[0])
    files = fuzz_files.mutations(seeds, random.Random(SEED), tmp_path)
    for _ in range(60):
        target.run(next(files))
    tally.add("mutated files", files=target.executions, findings=len(target.findings))
    assert target.findings == {}


def test_the_mutations_reach_what_lies_behind_the_checksums(seeds: list[bytes], tmp_path: Path) -> None:
    files = fuzz_files.mutations(seeds, random.Random(SEED), tmp_path)
    made = [next(files) for _ in range(60)]
    assert 10 < sum(file[:1] == fuzz_files.FORGED for file in made) < 50
    assert len(set(made)) > 50


def test_another_exception_is_found(seeds: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading.CALLS, "stats", lambda cache: int("no number"))
    target = fuzz_files.Target(tmp_path)
    target.run(seeds[0])
    assert [call for call, _ in target.findings] == ["stats"]
    assert (tmp_path / "finding-1").read_bytes() == seeds[0]


def test_a_wrong_vector_is_found(seeds: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading.CALLS, "get", lambda cache: reading.check(["doc 1"], [np.zeros(8, np.float32)]))
    target = fuzz_files.Target(tmp_path)
    target.run(seeds[0])
    assert [call for call, _ in target.findings] == ["get"]


def test_much_memory_is_found(seeds: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_files, "MEMORY_BYTES", 2**26)
    monkeypatch.setitem(reading.CALLS, "get", lambda cache: len(b"x" * 2**27))
    target = fuzz_files.Target(tmp_path)
    target.run(seeds[0])
    assert list(target.findings.values()) == ["memory"]
