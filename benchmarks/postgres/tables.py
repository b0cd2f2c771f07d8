"""The tables of docs/scale.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.postgres import scale
from benchmarks.report import Cases
from benchmarks.results import OURS

BEGIN, END = "<!-- python -m benchmarks.postgres --page: {name} -->", "<!-- end -->"

COLUMNS = {"fill": "upserts", "bulk": "bulk read", "look-up": "look-up by text"}


def tables(postgres: Cases, sqlite: Cases) -> dict[str, str]:
    """Give each table of the page by its name."""
    return {"scale": scale.markdown(postgres, sqlite), "rivals": f"{rivals(postgres)}\n\n{sizes(postgres)}"}


def write_into(page: Path, postgres: Cases, sqlite: Cases) -> None:
    """Put the tables in place of those that stand between two comments."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables(postgres, sqlite).items():
        before, begin, rest = text.partition(BEGIN.format(name=name))
        _, end, after = rest.partition(END)
        assert end, f"{page} has no {BEGIN.format(name=name)} ... {END}"
        text = f"{before}{begin}\n{table}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def sizes(cases: Cases) -> str:
    """Give what a row takes on the server, by the number of its values."""
    rows = cases["size"]["rows"]
    lines = [
        f"| bytes a row, by values | {' | '.join(row['group'].removeprefix('dim ') for row in rows)} |",
        "|---" * (len(rows) + 1) + "|",
        f"| tables and indexes | {' | '.join(format(row['bytes_a_row'], ',.0f') for row in rows)} |",
        f"| times the raw bytes | {' | '.join(format(row['median'], '.2f') for row in rows)} |",
    ]
    return "\n".join(lines)


def rivals(cases: Cases) -> str:
    """Give each competitor's rows a second, and how ours are beside those of plain psycopg."""
    found = {case: {row["name"]: row for row in cases[case]["rows"]} for case in COLUMNS if case in cases}
    lines = [
        f"| rows a second | {' | '.join(COLUMNS[case] for case in found)} | disk / raw |",
        "|---" * (len(found) + 2) + "|",
    ]
    for name in dict.fromkeys(name for rows in found.values() for name in rows):
        cells = [_cell(rows.get(name)) for rows in found.values()]
        disk = found.get("fill", {}).get(name, {}).get("times_raw_bytes")
        label = f"**{name}**" if name == OURS else name
        lines.append(f"| {label} | {' | '.join(cells)} | {'' if disk is None else f'{disk:.2f}'} |")
    return "\n".join([machine(cases), "", *lines, "", _goals(cases)])


def machine(cases: Cases) -> str:
    """Say on what it was measured."""
    run = next(iter(cases.values()))["run"]
    machine, server = run["machine"], run["server"]
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores for client and server together, "
        f"{machine['memory_gib']} GiB; PostgreSQL {server['server_version']} with fsync {server['fsync']}, "
        f"psycopg {run['versions']['psycopg']}, Python {run['versions']['python']}."
    )


def _cell(row: dict[str, float] | None) -> str:
    if row is None:
        return ""
    return f"{row['rows_a_second']:,.0f}"


def _goals(cases: Cases) -> str:
    """Say how we are beside plain psycopg, compared round by round: what disturbs one turn disturbs all."""
    figure = "rows a second / bare psycopg, COPY"
    upserts, reads, look_ups = (cases[case]["figures"][figure] for case in COLUMNS)
    return (
        f"The median of the rounds, in each of which all take turns: embstore does {upserts:.2f} times as many "
        f"upserts, {reads:.2f} times as much of a bulk read and {look_ups:.2f} times as many look-ups a second as bare "
        f"psycopg; the goal of the first two is at least 0.8."
    )
