"""The picture of the README: every competitor warm and cold, and how cost grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results import OURS

MAIN, MUTED, INK = "#1f5fa8", "#b9c0c8", "#333333"
LINES = {
    "put_many": ("#1f5fa8", "o"),
    "get_many": ("#c4561b", "s"),
    "matrix": ("#2f855a", "^"),
    "iter_matrix": ("#7a5195", "D"),
}
BARE = ("limit", "bare")  # how the names of what is no cache begin


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

    panels = [name for name in ("warm", "cold", "growth") if name in cases]
    if not panels:
        return
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.8), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], panels, strict=True):
        if name == "growth":
            _lines(axis, cases[name])
        else:
            _bars(axis, name, cases[name])
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _bars(axis: Any, name: str, case: Mapping[str, Any]) -> None:
    group = "stored order" if name == "warm" else ""
    rows = sorted((row for row in case["rows"] if row["group"] == group), key=lambda row: -row["median"])
    medians = [row["median"] for row in rows]
    bars = axis.barh([row["name"] for row in rows], medians, color=[_colour(row["name"]) for row in rows])
    axis.bar_label(
        bars, [f"{value:,.0f}" if value >= 20 else f"{value:.1f}" for value in medians], padding=3, fontsize=8
    )
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 3, max(medians) * 6)
    axis.set_xlabel("microseconds a document, logarithmic", fontsize=8, color=INK)
    what = "Warm: everything stored" if name == "warm" else "Cold: everything encoded (in no time) and stored"
    axis.set_title(what, fontsize=10, loc="left", color=INK)


def _colour(name: str) -> str:
    if name == OURS:
        return MAIN
    return "#e3e6ea" if name.startswith(BARE) else MUTED


def _lines(axis: Any, case: Mapping[str, Any]) -> None:
    highest = 0.0
    for what, (colour, marker) in LINES.items():
        rows = [row for row in case["rows"] if row["name"] == what]
        if not rows:
            continue
        sizes, medians = [int(row["group"].replace(",", "")) for row in rows], [row["median"] for row in rows]
        axis.plot(sizes, medians, color=colour, marker=marker, markersize=4, linewidth=1.5)
        axis.annotate(what, (sizes[-1], medians[-1]), (6, -3), textcoords="offset points", fontsize=8, color=colour)
        highest = max(highest, *medians)
    axis.set_xscale("log")
    axis.set_ylim(0, highest * 1.15)
    axis.set_xlim(right=max(int(row["group"].replace(",", "")) for row in case["rows"]) * 5)
    axis.set_xlabel("documents in the file, logarithmic", fontsize=8, color=INK)
    axis.set_ylabel("microseconds a row", fontsize=8, color=INK)
    axis.set_title("embstore: what a row costs as the file grows", fontsize=10, loc="left", color=INK)
