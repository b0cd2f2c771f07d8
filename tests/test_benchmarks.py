"""The benchmarks measure what they say, at sizes that take no time."""

from __future__ import annotations

import json
import os
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmarks.__main__ as program
from benchmarks import report, tables
from benchmarks.cases import CASES, cold, encode, get, growth, startup, warm
from benchmarks.competitors import Competitor, installed
from benchmarks.competitors.disk_cache import DiskCache
from benchmarks.competitors.json_npy import JsonNpy
from benchmarks.corpus import BLOCK, Documents, InstantEncoder, make_documents
from benchmarks.goals import GOALS, Goal, Outcome, evaluate
from benchmarks.results import CaseResult, Row
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn

startup_call = startup._call
TINY = Settings(documents=20, rounds=1)


class Missing(JsonNpy):
    name = "Nobody's cache"
    requires = ("no_module_of_this_name",)


class Wrong(JsonNpy):
    name = "Wrong"

    def read(self, documents: Documents) -> list[Any]:
        return super().read(documents)[::-1]


@pytest.fixture(autouse=True)
def _few_competitors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that load fast; diskcache where it is installed."""
    compete_with(monkeypatch, JsonNpy, DiskCache, Missing)
    monkeypatch.setattr(startup, "ROUNDS", 1)
    call = cache(lambda *command: startup_call(list(command), dict(os.environ)))  # each command once is enough
    monkeypatch.setattr(startup, "_call", lambda command, _: call(*command))
    monkeypatch.setattr(growth, "LAST", 4 * growth.FIRST)


def compete_with(monkeypatch: pytest.MonkeyPatch, *kinds: type[Competitor]) -> None:
    for case in (warm, cold, get):
        monkeypatch.setattr(case, "COMPETITORS", kinds)


def test_documents_are_the_same_in_every_corpus_and_have_560_bytes() -> None:
    some, more = make_documents(30, 8), make_documents(BLOCK + 30, 8)
    assert (some.ids, some.texts) == (more.ids[:30], more.texts[:30])
    assert (some.vectors == more.vectors[:30]).all()
    block = make_documents(30, 8, start=BLOCK)
    assert (block.ids, block.texts) == (more.ids[BLOCK:], more.texts[BLOCK:])
    assert len(set(more.texts)) == len(more)
    assert np.mean([len(text) for text in more.texts]) == pytest.approx(560, abs=10)
    assert (InstantEncoder(some).encode(some.texts[::-1]) == some.vectors[::-1]).all()


def test_all_take_turns_in_any_order_and_the_first_round_warms_up() -> None:
    called: list[str] = []
    turns = [Turn(name, 10, partial(called.append, name), tidy=partial(called.append, "tidied")) for name in "abcd"]
    rows = in_turn(turns, 5)
    assert called[1::2] == ["tidied"] * 24
    rounds = ["".join(called[i : i + 8 : 2]) for i in range(0, 48, 8)]
    assert {"".join(sorted(round_)) for round_ in rounds} == {"abcd"}
    assert len(set(rounds)) > 1
    assert [(row.name, row.n, len(row.rounds)) for row in rows] == [(name, 10, 5) for name in "abcd"]


def test_a_ratio_is_that_of_the_same_rounds() -> None:
    steady, noisy = Row("a", 1, [1.0, 1.0, 1.0]), Row("b", 1, [2.0, 2.0, 200.0])
    assert noisy.times(steady) == 2.0
    assert Row("a", 1, [1.0], samples=[1.0, 2.0, 3.0]).median == 2.0


@pytest.mark.parametrize("name", [name for name in CASES if name != "encode"])
def test_each_case_gives_the_figures_that_its_goals_are_about(name: str, tmp_path: Path) -> None:
    if name == "matrix":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    result = CASES[name](TINY, tmp_path).as_json()
    assert result["rows"]
    assert all(row["median"] > 0 for row in result["rows"])
    expected = {goal.figure for goal in GOALS if goal.case == name}
    if name == "get" and not installed((DiskCache,))[0]:
        expected = set()
    skipped = {"MB of iter_matrix over the start"} if sys.platform == "win32" else set()
    if "skipped: embstore stats" in str(result["notes"]):
        skipped |= {figure for figure in expected if figure.startswith("embstore stats")}
    if not installed((DiskCache,))[0]:  # whom else could it be the fastest of?
        skipped |= {figure for figure in expected if "fastest competitor" in figure}
    assert expected - skipped <= result["figures"].keys()


def test_a_missing_competitor_is_skipped_by_name(tmp_path: Path) -> None:
    for case in (partial(warm.run, n=10_000), cold.run, get.run):
        folder = tmp_path / str(case)[-20:-1].replace(" ", "_")
        folder.mkdir()
        result = case(TINY, folder)
        assert "Nobody's cache" not in [row.name for row in result.rows]
        (note,) = [note for note in result.notes if "Nobody's cache" in note]
        assert note.startswith("skipped: ")
        assert 'pip install "embstore[bench]"' in note


@pytest.mark.parametrize("case", [partial(warm.run, n=10_000), cold.run])
def test_wrong_vectors_stop_the_run(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compete_with(monkeypatch, Wrong)
    with pytest.raises(AssertionError, match="Wrong gives other vectors"):
        case(TINY, tmp_path)


def test_a_real_encode_is_skipped_by_name_without_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "REQUIRES", ("no_module_of_this_name",))
    result = encode.run(TINY, tmp_path)
    assert result.rows == []
    assert "no_module_of_this_name missing" in result.notes[0]


def test_goals_are_met_missed_or_not_measured() -> None:
    at_most, under, at_least = Goal("c", "f", "<=", 3), Goal("c", "f", "<", 3), Goal("c", "f", ">=", 3)
    assert [Outcome(goal, 3.0).verdict for goal in (at_most, under, at_least)] == ["met", "missed", "met"]
    assert [Outcome(goal, 3.1).verdict for goal in (at_most, under, at_least)] == ["missed", "missed", "met"]
    assert Outcome(at_most, None).verdict == "not measured"
    bounds = {goal.figure: goal.bound for goal in GOALS if goal.case == "cold"}
    cases = {"cold": {"figures": dict.fromkeys(bounds, 99.0)}}
    verdicts = {outcome.goal.case: outcome.verdict for outcome in evaluate(cases)}
    assert verdicts["cold"] == "missed"
    assert verdicts["warm"] == "not measured"


def test_a_run_adds_to_the_json_and_says_what_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def case(value: float, settings: Settings, folder: Path) -> CaseResult:
        return CaseResult("t", "u", [Row("embstore", 5, [value])], {"invalidate / bare DELETE": value})

    file, picture = tmp_path / "results" / "b.json", tmp_path / "b.png"
    files = ["--json", str(file), "--picture", str(picture)]
    assert program.main(["size", "--documents", "20", "--rounds", "1", *files]) == 0
    monkeypatch.setitem(CASES, "invalidate", partial(case, 99.0))
    assert program.main(["invalidate", "--quick", *files]) == 0
    assert program.main(["invalidate", "--quick", "--strict", *files]) == 1
    assert "missed" in capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert list(written["cases"]) == ["size", "invalidate"]
    assert len(written["goals"]) == len(GOALS)
    assert {"when", "versions", "machine"} < written["cases"]["size"]["run"].keys()
    assert {"sqlite", "python", "numpy", "embstore"} <= written["cases"]["size"]["run"]["versions"].keys()
    (goal,) = [goal for goal in written["goals"] if goal["case"] == "invalidate"]
    assert (goal["value"], goal["verdict"]) == (99.0, "missed")
    monkeypatch.setitem(CASES, "invalidate", partial(case, 1.0))
    assert program.main(["invalidate", "--quick", "--strict", *files]) == 0


def test_the_tables_of_the_readme_have_a_row_for_each_goal_and_competitor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.json"
    assert program.main(["warm", "cold", "--documents", "20", "--rounds", "1", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "JSON + npy" in printed
    assert "skipped: Nobody's cache" in printed
    assert program.main(["--markdown", "--json", str(file)]) == 0
    table = capsys.readouterr().out
    assert "| cold / bare executemany | at most 1.5 |" in table
    assert "| **embstore** |" in table
    assert "| JSON + npy |" in table
    assert "| not measured |" in table  # those of the cases that were not run


def test_the_picture_is_drawn_of_the_cases_that_are_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    file, picture = tmp_path / "b.json", tmp_path / "b.png"
    options = ["--documents", "20", "--rounds", "1", "--json", str(file), "--picture", str(picture)]
    assert program.main(["cold", "growth", *options]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["wram"])
    assert "no case 'wram'" in capsys.readouterr().err


def test_the_committed_results_are_whole() -> None:
    cases = report.read(program.RESULTS / "benchmarks.json")
    assert set(cases) == set(CASES)
    assert {case["run"]["documents"] for case in cases.values()} == {Settings().documents}
    assert (program.RESULTS / "benchmarks.png").stat().st_size < 200_000


def test_the_readme_shows_the_committed_results() -> None:
    cases = report.read(program.RESULTS / "benchmarks.json")
    assert tables.markdown(cases) in program.README.read_text(encoding="utf-8")
