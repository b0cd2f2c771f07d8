"""What is aimed at, each as a bound of a figure that a case measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class Goal:
    """A figure of a case, and what it is to be.

    Attributes
    ----------
    sense : str
        "<=", "<" or ">=".
    """

    case: str
    figure: str
    sense: Literal["<=", "<", ">="]
    bound: float

    def met(self, value: float) -> bool:
        return {"<=": value <= self.bound, "<": value < self.bound, ">=": value >= self.bound}[self.sense]


@dataclass(frozen=True)
class Outcome:
    goal: Goal
    value: float | None

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "not measured"
        return "met" if self.goal.met(self.value) else "missed"

    def as_json(self) -> dict[str, Any]:
        goal = self.goal
        return {
            "case": goal.case,
            "figure": goal.figure,
            "goal": f"{goal.sense} {goal.bound:g}",
            "value": self.value,
            "verdict": self.verdict,
        }


GOALS = (
    *(
        goal
        for case in ("warm", "warm-large")
        for goal in (
            Goal(case, "stored order / limit", "<=", 3),
            Goal(case, "random order / limit", "<=", 3.5),
            Goal(case, "stored order / fastest competitor", "<", 1),
            Goal(case, "random order / fastest competitor", "<", 1),
        )
    ),
    Goal("cold", "cold / bare executemany", "<=", 1.5),
    Goal("cold", "cold / fastest competitor that survives kill -9", "<", 1),
    Goal("matrix", "matrix 100,000 x 384 / np.load", "<=", 4.5),
    Goal("matrix", "matrix 30,000 x 1536 / np.load", "<=", 3),
    Goal("matrix", "Chroma get / matrix 100,000 x 384", ">=", 30),
    *(
        Goal("get", f"get, {what} / diskcache get + np.frombuffer", "<=", 1)
        for what in ("asked for the first time", "asked for again")
    ),
    Goal("invalidate", "invalidate / bare DELETE", "<=", 3),
    Goal("size", "file size, dim 384", "<=", 1.13),
    *(Goal("size", f"file size, dim {dim}", "<=", 1.12) for dim in (768, 1024, 1536, 3072)),
    Goal("startup", "import embstore / import numpy, sqlite3", "<=", 1.3),
    Goal("startup", "embstore stats / import numpy, sqlite3, click", "<=", 2),
    Goal("encode", "encode, cache cold / without it", "<=", 1.02),
    *(
        Goal("million", f"a row of {what}, 1,000,000 / 100,000", "<=", 1.3)
        for what in (
            "put_many, 10,000 a call",
            "put_many, 100,000 a call",
            "get_many, all",
            "get_many, 10,000 a call",
            "matrix",
        )
    ),
    Goal("million", "MB of iter_matrix over the start", "<", 100),
)


def evaluate(cases: Mapping[str, Mapping[str, Any]], goals: Iterable[Goal] = GOALS) -> list[Outcome]:
    """Hold goals against cases as they are in the JSON."""
    return [Outcome(goal, cases.get(goal.case, {}).get("figures", {}).get(goal.figure)) for goal in goals]
