"""What the cache adds to a pipeline of Ray Data: how it is worked out, and where it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="needs the extra ray")
from benchmarks import ray_scaling
from benchmarks.ray_scaling import BARE, ON_FILE, ON_SERVER, RESULTS

RECIPE = Path(__file__).parents[1] / "docs" / "recipes" / "ray.md"


def figures(*us: float) -> dict[str, list[float]]:
    return {"us_a_document": list(us), "documents_a_s": [1e6 / each for each in us]}


def test_an_overhead_is_that_of_the_same_rounds_and_a_share_of_the_time_of_the_model() -> None:
    taken = {
        f"{BARE}, 1 workers": figures(5000, 6000, 5000),
        f"{ON_FILE}, 1 workers": figures(5100, 6100, 9000),
        f"{BARE}, 2 workers": figures(5000, 5000, 5000),
        f"{ON_FILE}, 2 workers": figures(5250, 5250, 5250),
    }
    assert ray_scaling.overheads(taken) == {f"{ON_FILE}, 1 workers": 0.02, f"{ON_FILE}, 2 workers": 0.05}


def test_the_recipe_tells_what_was_measured() -> None:
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert set(measured["overheads"]) == {f"{kind}, {n} workers" for kind in (ON_FILE, ON_SERVER) for n in (1, 2)}
    assert ray_scaling.overheads(measured["pipelines"]) == pytest.approx(measured["overheads"])
    assert ray_scaling.in_words(measured) in " ".join(RECIPE.read_text(encoding="utf-8").split())
