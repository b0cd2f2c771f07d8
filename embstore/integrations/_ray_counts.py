"""What the workers of a job have done, told to the program that started it, and to Ray's metrics."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.metrics import Counter
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedReport:
    """What the texts of a job have cost.

    Attributes
    ----------
    n_texts : int
        Rows that were given a vector. Those that Ray gave to a second worker, because the first was lost, count twice.
    n_encoded : int
        Distinct texts that a model encoded, canaries not counted.
    n_hits : int
        Texts that cost no encode: stored before, or encoded for another row.
    encode_s : float
        Seconds that the models took, of all workers together.
    """

    n_texts: int = 0
    n_encoded: int = 0
    n_hits: int = 0
    encode_s: float = 0.0


class Counts:
    """Counts of a job, kept on the machine of the program that asks for them; give it to the workers.

    It is of use to the jobs of one `ray.init`.
    """

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._sums: Any = ray.remote(num_cpus=0)(_Sums).options(scheduling_strategy=here).remote()

    def add(self, n_texts: int, n_encoded: int, encode_s: float) -> None:
        """Add what a batch has cost. Where nobody is left to be told, the batch is none the worse."""
        try:
            ray.get(self._sums.add.remote(n_texts, n_encoded, encode_s))
        except ray.exceptions.RayError as error:
            _log.warning("what a batch has cost is not counted: %s", error)

    def report(self) -> EmbedReport:
        """Tell what has been done so far, by all jobs that were given these counts."""
        n_texts, n_encoded, encode_s = ray.get(self._sums.read.remote())
        return EmbedReport(n_texts, n_encoded, n_texts - n_encoded, encode_s)


class _Sums:
    def __init__(self) -> None:
        self._sums = [0, 0, 0.0]

    def add(self, *values: float) -> None:
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)]

    def read(self) -> list[float]:
        return self._sums


class Metrics:
    """Counters that Ray hands to Prometheus, by the name of the model."""

    def __init__(self) -> None:
        self._hits, self._misses, self._seconds = (
            Counter(f"embstore_{name}", description=what, tag_keys=("model",))
            for name, what in (
                ("hits", "Texts that cost no encode."),
                ("misses", "Distinct texts that were encoded."),
                ("encode_seconds", "Seconds that the model took."),
            )
        )

    def add(self, model_name: str, n_texts: int, n_encoded: int, encode_s: float) -> None:
        """Count what a batch has cost."""
        tags = {"model": model_name}
        for counter, value in ((self._hits, n_texts - n_encoded), (self._misses, n_encoded), (self._seconds, encode_s)):
            if value:  # Ray's counters refuse to be moved by nothing
                counter.inc(value, tags=tags)
