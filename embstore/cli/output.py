"""What the commands print: JSON for programs, aligned columns for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from embstore.demo import DemoResult
    from embstore.search import IndexPlan, IndexReport, ReconcileReport, SearchHit

Cell = str | int | float

_ROWS_MEASURED = 1_000
_BYTES_PER_MB = 1e6
_LINE_CHARS = 100
_DIFFERENCES = {
    "altered": "the text is not the one that was indexed",
    "wrong_vector": "the vector is not the one in the cache",
    "unreachable": "no search finds it",
    "other_model": "the vector is of another model",
    "missing": "not in the index",
    "outdated": "the source has another text",
    "other_metadata": "the source has other metadata",
    "extra": "not in the source",
    "foreign": "another program wrote it",
    "not_cached": "the cache does not have its vector",
}


def print_json(value: Any) -> None:
    """Print a value as indented JSON, in ASCII, which every pipe and terminal takes."""
    click.echo(json.dumps(value, indent=2))


def print_json_rows(rows: Iterable[DataclassInstance]) -> None:
    """Print dataclasses as one JSON array, a line each, without holding them all."""
    separator = "["
    for row in rows:
        click.echo(f"{separator}\n  {json.dumps(asdict(row))}", nl=False)
        separator = ","
    click.echo("[]" if separator == "[" else "\n]")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows in columns as wide as the first 1,000 rows need: texts to the left, numbers to the right."""
    rows = iter(rows)
    first = list(islice(rows, _ROWS_MEASURED))
    widths = [max(map(len, column)) for column in zip(headers, *map(_as_texts, first), strict=True)]
    right = [not isinstance(cell, str) for cell in first[0]] if first else [False] * len(headers)
    for number, texts in enumerate(chain([headers], map(_as_texts, chain(first, rows)))):
        cells = zip(texts, widths, right, strict=True)
        line = "  ".join(f"{text:{'>' if to_right else '<'}{width}}" for text, width, to_right in cells).rstrip()
        click.echo(line if number else click.style(line, bold=True))


def print_report(report: IndexReport) -> None:
    """Print what became of the documents of a call, and how many texts were encoded for them."""
    click.echo(
        f"{counted(report.total, 'document')} in {report.seconds:.2f} s: {report.added:,} added, "
        f"{report.updated:,} updated, {report.metadata_updated:,} with new metadata, {report.unchanged:,} unchanged"
        f"{f', {report.removed:,} removed' if report.removed else ''}; "
        f"{report.encoded:,} encoded, {report.from_cache:,} from the cache"
    )


def report_as_json(report: IndexReport) -> dict[str, int | float]:
    """Give what a call did, its speed too, as JSON takes it."""
    return {**asdict(report), "documents_per_s": report.documents_per_s}


def print_plan(plan: IndexPlan) -> None:
    """Print what would become of the documents of a call, and what the model would have to do."""
    took = "" if plan.estimated_s is None or not plan.to_encode else f" in about {plan.estimated_s:,.0f} s"
    click.echo(
        f"{counted(plan.total, 'document')}: {plan.new:,} new, {plan.changed:,} changed, {plan.metadata_only:,} with "
        f"new metadata, {plan.unchanged:,} unchanged, {plan.duplicates:,} with the text of another; "
        f"{counted(plan.to_remove, 'document')} to remove; {counted(plan.to_encode, 'text')} to encode{took}"
    )


def print_reconciled(report: ReconcileReport) -> None:
    """Print what differs, a line each, and what was done about it."""
    from embstore.search.comparison import NOT_WRONG

    left, needs_model = set(report.left), set(report.needs_model)
    for kind, what in _DIFFERENCES.items():
        for doc_id in getattr(report, kind):
            is_right = kind not in NOT_WRONG and doc_id not in left
            done = " (repaired)" if is_right else " (needs the model)" if doc_id in needs_model else ""
            click.echo(f"{printable(doc_id)}: {what}{done}")
    problems = f"{counted(len(left), 'document')} with problems" if left else "no problems"
    repaired = f"; {counted(report.repaired, 'document')} repaired" if report.repaired else ""
    click.echo(f"{problems} in {counted(report.n_records, 'record')}{repaired}")


def print_hits(hits: Iterable[SearchHit]) -> None:
    """Print search hits: place, score and id, and the first line of the text below."""
    for place, hit in enumerate(hits, start=1):
        click.echo(f"{place:>3}. {hit.score:.3f}  {click.style(printable(hit.doc_id), bold=True)}")
        click.echo(f"            {one_line(hit.document, _LINE_CHARS)}")


def print_demo(result: DemoResult) -> None:
    """Print the three runs of the demo side by side, what they show, and the answers."""
    first, second, third = result.runs
    names = ("1 all new", f"2 {result.n_forgotten} forgotten", "3 as before")
    print_table(
        ("run", "documents", "encoded", "from cache", "unchanged", "seconds", "documents/s", "times as fast"),
        [
            (
                name,
                run.total,
                run.encoded,
                run.from_cache,
                run.unchanged,
                run.seconds,
                round(run.documents_per_s),
                first.seconds / run.seconds,
            )
            for name, run in zip(names, result.runs, strict=True)
        ],
    )
    if not result.broken_promises:
        click.echo(
            f"\nThe second run encoded exactly the {second.encoded} documents that were forgotten, "
            f"the third encoded {third.encoded}."
        )
    for answer in result.answers:
        click.echo(f"\n{answer.query}")
        print_hits(answer.hits)


def one_line(text: str, width: int) -> str:
    """Give the first line of a text that is not blank, cut to a width."""
    line = printable(next((line for line in text.splitlines() if line.strip()), "").strip())
    return line if len(line) <= width else line[: width - 1] + "…"


def printable(text: str) -> str:
    """Put U+FFFD in the place of control characters, with which a document could steer a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def counted(n: int, noun: str) -> str:
    """Give a number of things in words."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Give settings, or metadata, in one line."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def megabytes(n_bytes: int) -> str:
    """Give a size in MB, of 1,000,000 bytes."""
    return f"{n_bytes / _BYTES_PER_MB:,.2f} MB"


def _as_texts(row: Sequence[Cell]) -> list[str]:
    return [_as_text(cell) for cell in row]


def _as_text(cell: Cell) -> str:
    if isinstance(cell, str):
        return printable(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.2f}"
