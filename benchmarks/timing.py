"""Taking turns: what is compared is timed A B A B ... in one run, so that a slow moment of the machine meets all.

Who comes after whom is drawn anew each round: what one leaves behind, threads that still work and memory that is in
pieces, would else always meet the same neighbour. Before each turn memory is taken, written to and given back: the host
of a virtual machine takes back what the machine has not used for a second or two, and whoever needs it next would wait
twenty times as long for it.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.corpus import SEED
from benchmarks.results import Row

Work = Callable[[], object]

# Of memory that is there before a turn: for each of its documents, and at the most.
_BYTES_A_DOCUMENT, _MOST_BYTES = 8192, 4 * 1024**3
_SMALLEST_PAGE_BYTES = 4096


def nothing() -> None:
    """Prepare nothing, tidy nothing up."""


@dataclass(frozen=True)
class Turn:
    """Something to be timed over and over.

    Attributes
    ----------
    name, group : str
        Who, and at what: `Row`.
    n : int
        How many documents one call of `work` handles.
    prepare, tidy : callable
        Before and after each call, untimed.
    durable : str
        What survives what: `Row`.
    """

    name: str
    n: int
    work: Work
    group: str = ""
    prepare: Work = nothing
    tidy: Work = nothing
    durable: str = ""
    facts: dict[str, float] = field(default_factory=dict)


def seconds(work: Work) -> float:
    """Time one call; giving back the memory of its result is not part of it."""
    began = time.perf_counter()
    result = work()
    taken = time.perf_counter() - began
    del result
    return taken


def have_memory(n: int) -> None:
    """See that there is memory for the results of n documents."""
    block = np.empty(min(n * _BYTES_A_DOCUMENT, _MOST_BYTES), dtype=np.uint8)
    block[::_SMALLEST_PAGE_BYTES] = 1


@contextlib.contextmanager
def only_own_garbage() -> Iterator[None]:
    """Keep the garbage collector, which runs as ever, from going through what was there before, of all competitors."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def in_turn(turns: Sequence[Turn], rounds: int) -> list[Row]:
    """Time each once a round, after one untimed round; microseconds a document."""
    taken: list[list[float]] = [[] for _ in turns]
    order = random.Random(SEED)
    with only_own_garbage():
        for round_number in range(rounds + 1):
            for turn, times in order.sample(list(zip(turns, taken, strict=True)), k=len(turns)):
                turn.prepare()
                gc.collect()  # nobody clears up after the one before
                have_memory(turn.n)
                us = seconds(turn.work) / turn.n * 1e6
                turn.tidy()
                if round_number:
                    times.append(us)
    return [
        Row(turn.name, turn.n, times, group=turn.group, durable=turn.durable, facts=turn.facts)
        for turn, times in zip(turns, taken, strict=True)
    ]


@dataclass(frozen=True)
class Calls:
    """Something to be timed call by call: `call` with each of the rows of a round.

    Attributes
    ----------
    rows : iterator of list of int
        Those of the next round.
    """

    name: str
    n: int
    call: Callable[[int], object]
    rows: Iterator[list[int]]
    group: str = ""
    durable: str = ""

    def block(self) -> list[float]:
        """Give the microseconds of each call of a round."""
        rows = next(self.rows)
        gc.collect()
        return [seconds(partial(self.call, row)) * 1e6 for row in rows]


def calls_in_turn(calls: Sequence[Calls], rounds: int) -> list[Row]:
    """Time single calls, a block of them a turn, after one untimed round; percentiles are over all calls."""
    samples: list[list[list[float]]] = [[] for _ in calls]
    order = random.Random(SEED)
    with only_own_garbage():
        for round_number in range(rounds + 1):
            for some, blocks in order.sample(list(zip(calls, samples, strict=True)), k=len(calls)):
                block = some.block()
                if round_number:
                    blocks.append(block)
    return [
        Row(
            some.name,
            some.n,
            [float(np.median(block)) for block in blocks],
            group=some.group,
            durable=some.durable,
            samples=[us for block in blocks for us in block],
        )
        for some, blocks in zip(calls, samples, strict=True)
    ]
