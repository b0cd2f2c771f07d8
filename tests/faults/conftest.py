"""The two forms of the fault suite: short inside `make test`, whole in `make faults`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.tally import TALLY, Tally


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where a test counts what it did: printed when the suite ends, and kept where it was run as a whole."""
    return request.config.stash[TALLY]


@pytest.fixture
def is_whole(request: pytest.FixtureRequest) -> bool:
    """This is `make faults`."""
    return bool(request.config.getoption("--whole-faults"))


@pytest.fixture
def rounds(is_whole: bool) -> Callable[[int, int], int]:
    """`rounds(short, whole)`: how often to do something in the form of the suite that runs."""
    return lambda short, whole: whole if is_whole else short
