"""The cases, by name: each gives rows, the figures that goals are about, and notes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.cases import cold, encode, get, growth, invalidate, matrix, million, size, startup, warm
from benchmarks.results import CaseResult
from benchmarks.settings import Settings

Case = Callable[[Settings, Path], CaseResult]

CASES: dict[str, Case] = {
    "warm": partial(warm.run, n=10_000),
    "warm-large": partial(warm.run, n=100_000),
    "cold": cold.run,
    "matrix": matrix.run,
    "get": get.run,
    "invalidate": invalidate.run,
    "size": size.run,
    "startup": startup.run,
    "encode": encode.run,
    "million": million.run,
    "growth": growth.run,
}

# Run where they are named: minutes each, and several GB of memory and disk.
APART = ("million", "growth")
