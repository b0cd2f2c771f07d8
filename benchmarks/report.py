"""The results as JSON, and as tables to read in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS, Goal, Outcome, evaluate

Cases = dict[str, dict[str, Any]]


def read(file: Path) -> Cases:
    """Give the cases of a file, {} where there is none."""
    if not file.exists():
        return {}
    cases: Cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    return cases


def write(file: Path, cases: Cases, goals: Iterable[Goal] = GOALS) -> None:
    """Write all cases, each with the machine and the versions that it was run on, and what became of the goals."""
    outcomes = [outcome.as_json() for outcome in evaluate(cases, goals)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_rounded({"goals": outcomes, "cases": cases}), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Cut floats to four digits: no clock tells more."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


def case_lines(name: str, case: Mapping[str, Any]) -> list[str]:
    """Give a case as lines of a terminal."""
    lines = [f"{name}: {case['title']}; {case['unit']}"]
    for group in dict.fromkeys(row["group"] for row in case["rows"]):
        columns = ("median", "p90", "p99", "x embstore", "documents")
        lines.append(f"  {group:<28} " + " ".join(f"{column:>11}" for column in columns) + "  durable")
        for row in case["rows"]:
            if row["group"] == group:
                times = "" if row["times_embstore"] is None else f"{row['times_embstore']:.2f}"
                figures = " ".join(f"{row[column]:11.2f}" for column in ("median", "p90", "p99"))
                n = f"{row['n']:,}" if row["n"] else ""
                lines.append(f"  {row['name']:<28} {figures} {times:>11} {n:>11}  {row['durable']}".rstrip())
    lines += [f"  {name}: {value:.3f}" for name, value in case["figures"].items()]
    return [*lines, *(f"  {note}" for note in case["notes"]), ""]


def goal_lines(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["goals"]
    for outcome in outcomes:
        goal, value = outcome.goal, "" if outcome.value is None else f"{outcome.value:.3f}"
        lines.append(f"  {goal.case:<11} {goal.figure:<54} {value:>8}  {goal.sense} {goal.bound:<5g} {outcome.verdict}")
    return lines
