"""What the fault suite counts: how often each fault was injected, and what was found afterwards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")


class Tally:
    """Counts of the faults of one run, in the order in which they are first counted."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, fault: str, **counts: int) -> None:
        """Add to the counts of a fault; a 0 is shown too: `tally.add("disk full", cycles=1, lost_batches=0)`."""
        for name, n in counts.items():
            self._counts.setdefault(fault, Counter())[name] += n

    def lines(self) -> list[str]:
        return [f"{fault}: {in_words(counts)}" for fault, counts in self._counts.items()]

    def save(self, path: Path = RESULTS) -> None:
        """Put the counts in a file, in place of those of the same faults."""
        results = read_results(path)
        results.update({fault: dict(counts) for fault, counts in self._counts.items()})
        path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n", encoding="utf-8")


def read_results(path: Path = RESULTS) -> dict[str, dict[str, int]]:
    """The counts of the last whole run of each fault."""
    results: dict[str, dict[str, int]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return results


def in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items())
