"""What was measured: rows of a case, the figures drawn from them, and both as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OURS = "embstore"


@dataclass(frozen=True)
class Row:
    """One competitor in one case.

    Attributes
    ----------
    name : str
    n : int
        Documents of one call.
    rounds : list of float
        The measure of each round, in the case's unit.
    group : str
        Rows of one group are compared with embstore's row of that group.
    durable : str
        "yes": what was acknowledged is fsynced; "survives kill": it outlives a kill -9; "no"; "" where nothing is
        written.
    samples : list of float
        What the percentiles are taken of, where that is not `rounds`.
    facts : dict
        What else was measured of it.
    """

    name: str
    n: int
    rounds: list[float]
    group: str = ""
    durable: str = ""
    samples: list[float] | None = None
    facts: dict[str, float] = field(default_factory=dict)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.samples or self.rounds, percent))

    @property
    def median(self) -> float:
        return self.percentile(50)

    def times(self, other: Row) -> float:
        """Give how many times the other's measure this one's is: the median of the rounds' ratios."""
        return float(np.median([a / b for a, b in zip(self.rounds, other.rounds, strict=True)]))


@dataclass
class CaseResult:
    """A case that was run.

    Attributes
    ----------
    unit : str
        Of the rows.
    figures : dict of str to float
        What goals are about: ratios, megabytes.
    notes : list of str
        Who was left out and why, and what must be known to read the rows.
    """

    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def find(self, name: str, group: str = "") -> Row | None:
        return next((row for row in self.rows if (row.name, row.group) == (name, group)), None)

    def ratio(self, figure: str, row: Row | None, other: Row | None) -> None:
        """Note a figure, where both were measured."""
        if row is not None and other is not None:
            self.figures[figure] = row.times(other)

    def ratio_to_fastest(self, figure: str, row: Row | None, others: Iterable[Row]) -> None:
        """Note how many times the measure of the fastest of others a row's is, and who that is."""
        ratios = {other.name: row.times(other) for other in others} if row is not None else {}
        if ratios:
            nearest = max(ratios, key=lambda name: ratios[name])
            self.figures[figure] = ratios[nearest]
            self.notes.append(f"{figure}: the fastest is {nearest}")

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "rows": [self._row_as_json(row) for row in self.rows],
            "figures": self.figures,
            "notes": self.notes,
        }

    def _row_as_json(self, row: Row) -> dict[str, Any]:
        ours = self.find(OURS, row.group)
        return {
            "name": row.name,
            "group": row.group,
            "n": row.n,
            "durable": row.durable,
            "median": row.median,
            "p90": row.percentile(90),
            "p99": row.percentile(99),
            "times_embstore": None if ours is None else row.times(ours),
            "rounds": row.rounds,
            **row.facts,
        }
