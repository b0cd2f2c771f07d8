"""The report as a page in a browser, and the counts and drawings that it is made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embstore import EmbeddingCache, InvalidInputError, TargetError
from embstore.cli import main
from embstore.pictures import SharedContent, draw_report
from embstore.pictures.charts import Series, periods_of, stacked_bars, summed
from embstore.pictures.report_parts import duration, size
from tests.browser import look_at, open_browser
from tests.fakes import CountingEncoder
from tests.files import change, connection

HOSTILE = "<script>document.title = 'taken'</script>"


@pytest.fixture
def filled(cache_path: Path) -> Path:
    """A cache of two models, with texts that came twice."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b", HOSTILE, "d"], ["one", "two", "one", "one"], CountingEncoder(model_name=HOSTILE))
        cache.get_many(["a"], ["one"], CountingEncoder(model_name=HOSTILE))
        cache.get_many(["c"], ["three"], CountingEncoder(dim=4, model_name="small"))
    return cache_path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


def cells(page: Any, heading: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    rows = page.locator("section", has=page.get_by_role("heading", name=heading, exact=True)).locator("tbody tr")
    return [row.locator("td").all_inner_texts() for row in rows.all()]


def test_the_page_tells_what_is_stored_found_and_saved(filled: Path, tmp_path: Path, browser: Any) -> None:
    drawn = draw_report(filled, tmp_path / "report.html")
    usages = [model.usage for model in drawn.stats.models]
    spent = [[duration(usage.encode_s), duration(usage.saved_s)] for usage in usages]
    with look_at(browser, tmp_path / "report.html") as looked:
        page = looked.page
        assert page.title() == "embeddings.db · embstore report"
        tiles = page.locator(".tile")
        told = {tile.locator("p").inner_text(): tile.locator("strong").inner_text() for tile in tiles.all()}
        assert told == {
            "Documents": "5",
            "Vectors": "3",
            "Found": "1",
            "Model time saved": duration(sum(usage.saved_s for usage in usages)),
            "Size": size(filled.stat().st_size),
            "Problems": "none",
        }
        today = drawn.stats.models[0].created_at[:10]
        assert cells(page, "Models") == [
            [HOSTILE, "8", "float32", "4", "2", "1", "2", "33.3%", *spent[0], today],
            ["small", "4", "float32", "1", "1", "0", "1", "0.0%", *spent[1], today],
        ]
        ((_, model, ids, times),) = cells(page, "Duplicates")
        assert (model, ids, times) == (HOSTILE, f"{HOSTILE}, a, d", "3")
        assert page.locator("svg.chart").count() == 2
        assert page.locator("svg.chart rect").count() == 2  # found and encoded, of today
        assert looked.complaints == []
        assert looked.requests == [(tmp_path / "report.html").as_uri()]


def test_the_page_prints_and_is_dark_where_the_system_is(filled: Path, tmp_path: Path, browser: Any) -> None:
    draw_report(filled, tmp_path / "report.html")
    with look_at(browser, tmp_path / "report.html", scheme="dark") as looked:
        ground = "(body) => getComputedStyle(body).backgroundColor"
        assert looked.page.eval_on_selector("body", ground) == "rgb(18, 21, 27)"
        looked.page.emulate_media(media="print", color_scheme="dark")
        assert looked.page.eval_on_selector("body", ground) == "rgb(255, 255, 255)"
        assert looked.page.pdf(format="A4").startswith(b"%PDF")
        looked.page.set_viewport_size({"width": 390, "height": 800})
        assert looked.page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_charts_can_be_read_on_a_phone_and_a_size_stands_on_one_line(
    filled: Path, tmp_path: Path, browser: Any
) -> None:
    draw_report(filled, tmp_path / "report.html")
    heights = "(found) => found.map((one) => one.getBoundingClientRect().height)"
    with look_at(browser, tmp_path / "report.html", width=390) as looked:
        assert min(looked.page.eval_on_selector_all(".chart text", heights)) > 8
    with look_at(browser, tmp_path / "report.html") as looked:
        looked.page.eval_on_selector_all("strong", "(found) => { found[4].textContent = '28.97 MB'; }")
        assert len(set(looked.page.eval_on_selector_all("strong", heights))) == 1


def test_texts_that_several_documents_have_are_counted_of_each_model(filled: Path, tmp_path: Path) -> None:
    drawn = draw_report(filled, tmp_path / "report.html")
    with EmbeddingCache(filled) as cache:
        content_hash = next(cache.documents()).content_hash
    assert drawn.shared == (SharedContent(content_hash, HOSTILE, 3, (HOSTILE, "a", "d")),)
    assert drawn.stats.n_duplicates == 2


def test_problems_are_told_with_the_cure(filled: Path, tmp_path: Path) -> None:
    change(filled, "UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = 1")
    told = CliRunner().invoke(main, ["report", str(filled), "-o", str(tmp_path / "report.html")])
    assert (told.exit_code, told.stdout.endswith(" MB, 1 problem\n")) == (1, True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<code>embstore repair embeddings.db -o NEW</code>" in page
    assert "<td>vectors</td>" in page


def test_a_file_too_damaged_to_count_is_reported_all_the_same(filled: Path, tmp_path: Path) -> None:
    change(filled, "UPDATE models SET checksum = checksum + 1")
    drawn = draw_report(filled, tmp_path / "report.html")
    assert (drawn.stats, bool(drawn.problems)) == (None, True)
    assert "Problems</h2>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_reporting_writes_nothing_into_the_cache(filled: Path, tmp_path: Path) -> None:
    before = filled.read_bytes()
    draw_report(filled, tmp_path / "report.html")
    assert filled.read_bytes() == before


def test_an_empty_cache_has_a_report(cache: EmbeddingCache, tmp_path: Path) -> None:
    drawn = draw_report(cache.path, tmp_path / "report.html")
    assert (drawn.stats.n_documents, drawn.problems) == (0, ())


def test_what_cannot_be_read_or_written_is_said_before_anything_is_done(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is no database with vectors"):
        draw_report(tmp_path / "nothing", tmp_path / "report.html")
    with pytest.raises(TargetError, match="no page of embstore"):
        draw_report(filled, filled)
    told = CliRunner().invoke(main, ["report", str(filled), "-o", str(tmp_path / "report.html"), "--json"])
    assert json.loads(told.stdout)["stats"]["n_documents"] == 5


def test_days_that_are_none_are_passed_over(filled: Path, tmp_path: Path) -> None:
    with connection(filled, "rw") as connected:
        from embstore.stores.tables import usage
        from embstore.stores.usage import Counts

        usage.add(connected, 1, "yesterday", Counts(n_hits=5))
        connected.commit()
    assert draw_report(filled, tmp_path / "report.html").stats.models[0].usage.n_hits == 6


@pytest.mark.parametrize(
    ("n_days", "n_periods", "second"),
    [(1, 1, None), (63, 63, "2026-01-02"), (64, 10, "2026-01-05"), (402, 14, "2026-02-01"), (4002, 11, "2027-01-01")],
)
def test_the_time_is_divided_into_as_many_parts_as_can_be_drawn(
    n_days: int, n_periods: int, second: str | None
) -> None:
    first = date(2026, 1, 1)
    days = [first, first + timedelta(days=n_days - 1)]
    periods, period_of = periods_of(days)
    assert len(periods) == n_periods
    assert [str(period) for period in periods[1:2]] == ([second] if second else [])
    assert sum(summed(dict.fromkeys(days, 2.0), periods, period_of)) == 2.0 * len(set(days))


def test_the_highest_bar_fits_below_the_highest_line() -> None:
    drawn = stacked_bars(
        "t", [date(2026, 1, 1), date(2026, 1, 2)], [Series("a", "found", [7, 0]), Series("b", "encoded", [3, 1])]
    )
    assert drawn.count("<rect") == 3
    assert ">10</text>" in drawn
    assert "<title>2026-01-01: 7 a, 3 b</title>" in drawn


def test_times_are_given_in_units_that_matter() -> None:
    told = {0.04: "0.0 s", 12.3: "12 s", 59.9: "60 s", 61: "1 min", 3600: "1 h 0 min", 86_400 * 30: "720 h"}
    assert {seconds: duration(seconds) for seconds in told} == told
