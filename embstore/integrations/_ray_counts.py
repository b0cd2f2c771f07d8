"""What the workers of a job have done, told to the program that started it, and to Ray's metrics."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.util.metrics import Counter
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from embstore.integrations._batches import EmbedReport

_log = logging.getLogger(__name__)


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
        report: EmbedReport = ray.get(self._sums.read.remote())
        return report


class _Sums:
    def __init__(self) -> None:
        self._report = EmbedReport()

    def add(self, n_texts: int, n_encoded: int, encode_s: float) -> None:
        self._report = self._report.and_also(n_texts, n_encoded, encode_s)

    def read(self) -> EmbedReport:
        return self._report


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
