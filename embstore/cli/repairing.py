"""The command that saves what a damaged database still has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from embstore.cli.commands import main
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in
from embstore.cli.options import Place, PlaceType
from embstore.cli.output import counted, print_json, printable
from embstore.repairing import repair as repair_file

_EPILOG = """\b
To save a library whose database is damaged, while nobody uses it:
  embstore repair my-library -o repaired.db
  mv my-library/embeddings.db damaged.db
  mv repaired.db my-library/embeddings.db

Exit code 1 where rows are lost. Texts whose vectors are lost are encoded again when they are next asked for.
"""


@main.command(epilog=_EPILOG)
@click.argument("path", type=PlaceType(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The new file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")
def repair(path: Place, output: Path, as_json: bool) -> None:
    """Write all of PATH that is undamaged into a new file.

    PATH is a library or a database file, and stays as it is. What is lost is named, a line each.
    """
    report = repair_file(database_in(path) if isinstance(path, Path) else path, output)
    if as_json:
        print_json({**asdict(report), "n_lost": report.n_lost, "ok": report.ok})
    else:
        for row in report.lost:
            click.echo(f"lost: {printable(str(row))}")
        kept = [
            counted(report.n_vectors, "vector"),
            counted(report.n_documents, "document"),
            counted(report.n_texts, "text"),
        ]
        if report.n_byte_values:
            kept.append(counted(report.n_byte_values, "byte value"))
        lost = ", ".join(f"{n:,} {table}" for table, n in report.n_lost.items())
        click.echo(f"{printable(report.path)}: {', '.join(kept)} kept; lost: {lost or 'nothing'}")
        if report.n_missing_pages:
            click.echo(
                f"{counted(report.n_missing_pages, 'page')} of the file are missing: what was there is not named"
            )
        if report.may_hold_removed:
            click.echo("it cannot be told what had been removed before: some of it may be back")
    if not report.ok:
        click.get_current_context().exit(EXIT_NO)
