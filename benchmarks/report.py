"""The results as JSON, as tables to read in a terminal, and as the table of the README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import Outcome, evaluate
from benchmarks.results import OURS

Cases = dict[str, dict[str, Any]]


def read(file: Path) -> Cases:
    """Give the cases of a file, {} where there is none."""
    if not file.exists():
        return {}
    cases: Cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    return cases


def write(file: Path, cases: Cases) -> None:
    """Write all cases, each with the machine and the versions that it was run on, and what became of the goals."""
    goals = [outcome.as_json() for outcome in evaluate(cases)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_rounded({"goals": goals, "cases": cases}), indent=1) + "\n", encoding="utf-8")


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


def markdown(cases: Cases) -> str:
    """Give what the README shows: the machine, the goals, and every competitor warm and cold."""
    outcomes = [outcome for outcome in evaluate(cases) if outcome.value is not None]
    lines = [
        _machine_line(next(iter(cases.values()))),
        "",
        "| case | figure | goal | measured | |",
        "|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        goal = outcome.goal
        sense = {"<=": "at most", "<": "under", ">=": "at least"}[goal.sense]
        lines.append(
            f"| {goal.case} | {goal.figure} | {sense} {goal.bound:g} | {outcome.value:.2f} | {outcome.verdict} |"
        )
    return "\n".join([*lines, "", *_competitors(cases)])


def _machine_line(case: Mapping[str, Any]) -> str:
    machine, versions = case["run"]["machine"], case["run"]["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"Python {versions['python']}, NumPy {versions['numpy']}, SQLite {versions['sqlite']}."
    )


def _competitors(cases: Cases) -> list[str]:
    """Give microseconds a document, warm, opened anew, one by one, and cold, and what each takes on the disk."""
    columns = (
        ("warm", "stored order"),
        ("warm", "opened anew"),
        ("warm-large", "stored order"),
        ("warm-large", "random order"),
        ("get", ""),
        ("cold", ""),
    )
    heads = ("10,000 warm", "opened anew", "100,000 warm", "in random order", "one a call", "cold")
    found = [
        {row["name"]: row for row in cases.get(case, {"rows": []})["rows"] if row["group"] == group}
        for case, group in columns
    ]
    names = dict.fromkeys(name for rows in found for name in rows)
    lines = [
        "| us a document, median | " + " | ".join(heads) + " | disk / raw | durable |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name in sorted(names, key=lambda name: next(rows[name]["median"] for rows in found if name in rows)):
        rows = [by_name.get(name) for by_name in found]
        cold = rows[-1] or {}
        disk = f"{cold['times_raw_bytes']:.2f}" if "times_raw_bytes" in cold else ""
        durable = next((row["durable"] for row in rows if row), "")
        label = f"**{name}**" if name == OURS else name
        n = min(row["n"] for row in rows if row)
        label += f" ({n:,})" if n < 10_000 and n != 1 else ""
        lines.append(f"| {label} | " + " | ".join(_cell(row) for row in rows) + f" | {disk} | {durable} |")
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    median = row["median"]
    return f"{median:,.0f}" if median >= 100 else f"{median:.1f}"
