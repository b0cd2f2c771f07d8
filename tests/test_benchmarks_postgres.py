"""The benchmarks on a server measure what they say, at sizes that take no time, and docs/scale.md has their figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks.postgres.__main__ as program
from benchmarks import report
from benchmarks.competitors import installed
from benchmarks.corpus import Vectors, make_documents
from benchmarks.postgres import cases, scale, tables
from benchmarks.postgres.rivals import Bare, Embstore, Limit, OnServer, PgvectorColumn
from benchmarks.postgres.server import Server
from benchmarks.settings import Settings

TINY = Settings(documents=20, rounds=1)
PAGE = program.PAGE.read_text(encoding="utf-8")


class Wrong(Bare):
    name = "Wrong"

    def read_all(self) -> Vectors:
        return super().read_all() + 1


@pytest.fixture
def server(postgres_server_url: str) -> Iterator[Server]:
    server = Server(postgres_server_url)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _few_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that load fast, and what is of the extra bench where it is installed."""
    monkeypatch.setattr(cases, "RIVALS", (Embstore, Bare, PgvectorColumn))


@pytest.mark.parametrize("name", list(cases.CASES))
def test_each_case_gives_the_figures_that_its_goals_are_about(name: str, server: Server) -> None:
    result = cases.CASES[name](TINY, server).as_json()
    assert result["rows"]
    assert all(row["median"] > 0 for row in result["rows"])
    assert {goal.figure for goal in program.GOALS if goal.case == name} <= result["figures"].keys()


def test_wrong_vectors_stop_the_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "RIVALS", (Wrong,))
    for case in (cases.fill, cases.bulk):
        with pytest.raises(AssertionError, match="Wrong gives other vectors"):
            case(TINY, server)


@pytest.mark.parametrize("kind", [kind for kind in cases.RIVALS if kind is not Limit])
def test_who_takes_part_gives_what_it_was_given_and_can_be_filled_again(kind: type[OnServer], server: Server) -> None:
    if not installed((kind,))[0]:
        pytest.skip(f"{kind.name} is not installed")
    with cases._Filled(kind, server, make_documents(30)) as filled:
        filled.rival.fill()
        filled.rival.check_all()
        filled.rival.check(filled.rival.documents.shuffled())


def test_the_committed_results_are_whole() -> None:
    results = report.read(program.RESULTS)
    assert set(results) == set(cases.CASES)
    assert {case["run"]["documents"] for case in results.values()} == {Settings().documents}
    assert {case["run"]["server"]["fsync"] for case in results.values()} == {"on"}


def test_the_page_shows_the_committed_results(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    page.write_text(PAGE, encoding="utf-8")
    tables.write_into(page, report.read(program.RESULTS), report.read(program.RESULTS.with_name("benchmarks.json")))
    assert page.read_text(encoding="utf-8") == PAGE


def test_the_page_reckons_with_what_was_measured() -> None:
    """The same arithmetic done by hand, of the figures as they are in the files of results."""
    postgres, sqlite = report.read(program.RESULTS), report.read(program.RESULTS.with_name("benchmarks.json"))
    rows = {(row["name"], row["group"]): row for row in postgres["million"]["rows"]}
    put_us, read = rows["put_many", "last tenth"]["median"], rows["iter_matrix", ""]
    encode_us = next(row for row in sqlite["encode"]["rows"] if row["name"] == "the model alone")["median"]
    (cells,) = re.findall(r"\| 100,000,000 \| (.*) \|", PAGE)
    assert cells.split(" | ") == [
        "150 GB",
        scale.size(1e8 * 384 * 4 * sqlite["size"]["figures"]["file size, dim 384"]),
        scale.size(1e8 * read["bytes_a_row"]),
        scale.size(1e8 * read["index_bytes_a_row"]),
        scale.duration(1e8 * put_us / 1e6),
        scale.duration(1e8 * read["median"] / 1e6),
        scale.duration(1e8 * read["median"] / 1e6 / 8),
        scale.duration(1e8 * encode_us / 1e6),
    ]


def test_sizes_and_times_are_told_to_two_digits() -> None:
    assert [scale.size(n) for n in (999, 1_536e6, 153.6e9, 2.46e12)] == ["999 B", "1.5 GB", "150 GB", "2.5 TB"]
    told = [scale.duration(seconds) for seconds in (0.51, 61, 121, 7_300, 200_000)]
    assert told == ["0.51 s", "61 s", "2 min", "2 h", "2.3 days"]


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["fil"])
    assert "no case 'fil'" in capsys.readouterr().err
