"""The picture of the README: every competitor warm and cold, and how cost grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results import OURS
from benchmarks.tables import NO_CACHES

MAIN, MUTED, LEAST, INK = "#1f5fa8", "#767e87", "#2f855a", "#333333"
LINES = {
    "put_many": ("#1f5fa8", "o"),
    "get_many": ("#c4561b", "s"),
    "matrix": ("#2f855a", "^"),
    "iter_matrix": ("#7a5195", "D"),
}


def draw(cases: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Draw those of the cases that are there.

    Raises
    ------
    ImportError
        matplotlib is missing.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    above, below = [name for name in ("warm", "cold") if name in cases], [name for name in ("growth",) if name in cases]
    if not above + below:
        return
    rows: Any = [row * (len(above) if row is below and above else 1) for row in (above, below) if row]
    figure, axes = pyplot.subplot_mosaic(rows, figsize=(11, 3.6 * len(rows)), layout="constrained")
    for name, axis in axes.items():
        (_lines if name == "growth" else _dots)(axis, name, cases[name])
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def _dots(axis: Any, name: str, case: Mapping[str, Any]) -> None:
    """Draw dots, not bars: a logarithmic axis has no zero for bars to stand on."""
    group = "stored order" if name == "warm" else ""
    rows = sorted((row for row in case["rows"] if row["group"] == group), key=lambda row: -row["median"])
    medians, heights = [row["median"] for row in rows], range(len(rows))
    colours = [_colour(row["name"]) for row in rows]
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 2, max(medians) * 4)
    axis.hlines(heights, min(medians) / 2, medians, color="#e3e6ea", linewidth=1)
    axis.scatter(medians, heights, color=colours, s=45, zorder=3)
    for height, median, colour in zip(heights, medians, colours, strict=True):
        label = f"{median:,.0f}" if median >= 20 else f"{median:.1f}"
        axis.annotate(label, (median, height), (7, -3), textcoords="offset points", fontsize=9, color=colour)
    most = max(row["n"] for row in rows)
    axis.set_yticks(heights, [row["name"] + (f" ({row['n']:,})" if row["n"] < most else "") for row in rows])
    axis.set_xlabel("microseconds a document (log)", fontsize=9, color=INK)
    what = "Warm: everything is stored" if name == "warm" else "Cold: nothing is stored"
    axis.set_title(what, fontsize=10, loc="left", color=INK)


def _colour(name: str) -> str:
    if name == OURS:
        return MAIN
    return LEAST if name.startswith(NO_CACHES) else MUTED


def _lines(axis: Any, name: str, case: Mapping[str, Any]) -> None:
    lines = {what: [row for row in case["rows"] if row["name"] == what] for what in LINES}
    sizes = [int(row["group"].replace(",", "")) for row in lines["matrix"]]
    top = 1.15 * max(row["median"] for rows in lines.values() for row in rows)
    label_at = -math.inf
    for what, rows in sorted(lines.items(), key=lambda line: float(line[1][-1]["median"])):
        colour, marker = LINES[what]
        medians = [row["median"] for row in rows]
        axis.plot(sizes, medians, color=colour, marker=marker, markersize=4, linewidth=1.5)
        label_at = max(medians[-1], label_at + top / 14)  # names of lines that end close together stand apart
        axis.text(sizes[-1] * 1.15, label_at, what, fontsize=9, color=colour, va="center")
    axis.set_xscale("log")
    axis.set_xlim(right=sizes[-1] * 2.5)
    axis.set_ylim(0, top)
    axis.set_xlabel("documents in the file (log)", fontsize=9, color=INK)
    axis.set_ylabel("microseconds a row", fontsize=9, color=INK)
    axis.set_title("embstore: what a row costs as the file grows", fontsize=10, loc="left", color=INK)
