"""The tables of the README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases.cold import BARE_IN_GROUPS
from benchmarks.cases.get import AGAIN, FIRST
from benchmarks.goals import evaluate
from benchmarks.report import Cases
from benchmarks.results import OURS

BEGIN, END = "<!-- python -m benchmarks --readme: begin -->", "<!-- end -->"

LABELS = {
    "warm": "`get_many`, all of 10,000 stored",
    "warm-large": "`get_many`, all of 100,000 stored",
    "cold": "`get_many`, none of 10,000 stored",
    "matrix": "`matrix`",
    "get": "`get`, stored",
    "invalidate": "`invalidate`, 1,000 of 100,000",
    "size": "the file beside the raw vectors",
    "startup": "a new process",
    "encode": "a real encode, all-MiniLM-L6-v2",
    "million": "1,000,000 documents beside 100,000",
}
# How the names of what is no cache begin.
NO_CACHES = ("limit", "bare")
# Figures without a goal that say what a goal's figure is to be seen beside.
BESIDE = (
    ("cold", f"cold / {BARE_IN_GROUPS}"),
    ("million", "a row of np.load, 1,000,000 / 100,000"),
)
SENSES = {"<=": "at most", "<": "under", ">=": "at least"}

# Case and group of each column of the table of competitors.
COLUMNS = {
    "10,000 warm": ("warm", "stored order"),
    "and just opened": ("warm", "opened anew"),
    "100,000 warm": ("warm-large", "stored order"),
    "in random order": ("warm-large", "random order"),
    "one a call": ("get", FIRST),
    "and again": ("get", AGAIN),
    "cold": ("cold", ""),
}


def markdown(cases: Cases) -> str:
    """Give the machine, the goals, every competitor warm and cold, and who is faster than embstore at what."""
    machine = _machine(next(iter(cases.values())))
    return "\n".join([machine, "", *_goals(cases), "", *_competitors(cases), "", *_faster(cases)])


def write_into(readme: Path, cases: Cases) -> None:
    """Put the tables in place of those that stand between two comments."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{readme} has no {BEGIN} ... {END}"
    readme.write_text(f"{before}{BEGIN}\n{markdown(cases)}\n{END}{after}", encoding="utf-8")


def _machine(case: Mapping[str, Any]) -> str:
    machine, versions = case["run"]["machine"], case["run"]["versions"]
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}; Python {versions['python']}, NumPy {versions['numpy']}, SQLite {versions['sqlite']}."
    )


def _goals(cases: Cases) -> list[str]:
    lines = ["| case | measured | goal | | |", "|---|---|---|---|---|"]
    for outcome in evaluate(cases):
        goal, value = outcome.goal, "" if outcome.value is None else f"{outcome.value:.2f}"
        bound = f"{SENSES[goal.sense]} {goal.bound:g}"
        lines.append(f"| {LABELS[goal.case]} | {goal.figure} | {bound} | {value} | {outcome.verdict} |")
    for case, figure in BESIDE:
        if figure in cases.get(case, {"figures": {}})["figures"]:
            lines.append(f"| {LABELS[case]} | {figure} | | {cases[case]['figures'][figure]:.2f} | to compare |")
    return lines


def _competitors(cases: Cases) -> list[str]:
    """Give medians in microseconds a document, and what each takes on the disk."""
    columns = [
        {row["name"]: row for row in cases.get(case, {"rows": []})["rows"] if row["group"] == group}
        for case, group in COLUMNS.values()
    ]
    most = max(row["n"] for row in columns[0].values()) if columns[0] else 0
    lines = [f"| us a document | {' | '.join(COLUMNS)} | disk / raw | durable |", "|---" * (len(COLUMNS) + 3) + "|"]
    names = {name: rows[name] for rows in reversed(columns) for name in rows}
    for name in sorted(names, key=lambda name: float(names[name]["median"])):
        rows = [column.get(name) for column in columns]
        n = max(row["n"] for row in rows if row)
        label = (f"**{name}**" if name == OURS else name) + (f" ({n:,})" if n < most else "")
        cold = rows[-1] or {}
        disk = f"{cold['times_raw_bytes']:.2f}" if "times_raw_bytes" in cold else ""
        lines.append(f"| {label} | {' | '.join(map(_cell, rows))} | {disk} | {names[name]['durable']} |")
    return lines


def _faster(cases: Cases) -> list[str]:
    """List who takes less time than embstore; limits that are no caches are in the goals."""
    lines = ["**What embstore is not faster at**", ""]
    for heading, (case, group) in COLUMNS.items():
        faster = [
            f"{row['name']} {1 / row['times_embstore']:.1f}"
            for row in cases.get(case, {"rows": []})["rows"]
            if row["group"] == group and not row["name"].startswith(NO_CACHES) and (row["times_embstore"] or 1) < 1
        ]
        lines.append(f"- {heading}: {', '.join(faster)} times as fast" if faster else f"- {heading}: nobody is faster")
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['median']:,.0f}" if row["median"] >= 100 else f"{row['median']:.1f}"
