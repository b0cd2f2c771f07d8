"""What the fault suite counts: how often each fault was injected, and what was found afterwards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).with_name("results.json")


class Tally:
    """Counts of the faults of one run, in the order in which they are first counted."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, fault: str, **counts: int) -> None:
        """Add to the counts of a fault; a 0 is shown too: `tally.add("disk full", cycles=1, lost_batches=0)`.

        Of a name that begins with "slowest" the highest is kept.
        """
        counted = self._counts.setdefault(fault, Counter())
        for name, n in counts.items():
            counted[name] = max(counted[name], n) if name.startswith("slowest") else counted[name] + n

    def counts(self) -> dict[str, dict[str, int]]:
        return {fault: dict(counts) for fault, counts in self._counts.items()}

    def lines(self) -> list[str]:
        return [f"{fault}: {in_words(counts)}" for fault, counts in self._counts.items()]

    def save(self, path: Path = RESULTS) -> None:
        """Put the counts in a file, in place of those of the same faults."""
        results = read_results(path)
        results.update(self.counts())
        path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n", encoding="utf-8")


def read_results(path: Path = RESULTS) -> dict[str, dict[str, int]]:
    """The counts of the last whole run of each fault."""
    results: dict[str, dict[str, int]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return results


def in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items())


TALLY = pytest.StashKey[Tally]()


class Reporter:
    """The plugin of pytest that brings together what the processes of a run counted, prints it and keeps it."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:  # one of several processes, of pytest-xdist
            output["faults"] = session.config.stash[TALLY].counts()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for fault, counts in getattr(node, "workeroutput", {}).get("faults", {}).items():
            node.config.stash[TALLY].add(fault, **counts)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        tally = config.stash[TALLY]
        if not tally.lines():
            return
        terminalreporter.section("faults")
        for line in tally.lines():
            terminalreporter.line(line)
        if config.getoption("--whole-faults"):
            tally.save()
