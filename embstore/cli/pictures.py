"""The commands that draw: map and report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in
from embstore.cli.output import counted, megabytes, print_json, printable
from embstore.pictures.projection import METHODS, Method

_MAP_EPILOG = """\b
Every document, coloured by the metadata key "topic":
  embstore map my-library -o map.html --color-by topic

The page is one file that works offline: hover shows a text, the search box highlights, the lasso lists.
It needs: pip install "embstore[map]"
"""

_REPORT_EPILOG = """\b
Every week, to read or to print:
  embstore report my-library -o report.html

Exit code 1 where the report tells of problems.
"""

_output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The page; an earlier one is replaced.",
)


@main.command("map", epilog=_MAP_EPILOG, short_help="Draw every document as a point on a page.")
@options.path
@_output
@click.option("--color-by", metavar="KEY", help="The metadata key to colour by at first.")
@click.option("--method", type=click.Choice(METHODS), default="pca", show_default=True, help='umap: "embstore[umap]".')
@click.option("--collection", help="Part of the library. Default: documents; of a file without texts, all.")
@click.option("--model-name", metavar="NAME", help="Whose vectors, of a file with several models and no texts.")
@click.option(
    "--text-chars",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="How much of each text the page has, to show and to search.",
)
@options.as_json
def map_(
    path: options.Place,
    output: Path,
    color_by: str | None,
    method: Method,
    collection: str | None,
    model_name: str | None,
    text_chars: int,
    as_json: bool,
) -> None:
    """Draw every document of PATH as a point, near to those that mean the same.

    PATH is a library, a database file or the URL of a server. It is only read, and no model is loaded.
    """
    database_in(path)
    from embstore.pictures import draw_map

    drawn = draw_map(
        path,
        output,
        collection=collection,
        model_name=model_name,
        color_by=color_by,
        method=method,
        text_chars=text_chars,
    )
    if as_json:
        print_json(asdict(drawn))
        return
    left_out = f"; {drawn.n_without_vector:,} without a vector left out" if drawn.n_without_vector else ""
    click.echo(
        f"{printable(drawn.path)}: {megabytes(drawn.size_bytes)}, {counted(drawn.n_documents, 'document')} of "
        f"{printable(drawn.model_name)} by {drawn.method.upper()}{left_out}"
    )


@main.command(epilog=_REPORT_EPILOG, short_help="Draw what a cache holds and has saved on a page.")
@options.path
@_output
@options.as_json
def report(path: options.Place, output: Path, as_json: bool) -> None:
    """Draw what PATH holds: models, growth, hits, model time saved, duplicates, size, problems.

    PATH is a library, a database file or the URL of a server. It is only read, and everything in it is checked.
    """
    database_in(path)
    from embstore.pictures import draw_report

    drawn = draw_report(path, output)
    if as_json:
        print_json(asdict(drawn))
    else:
        problems = counted(len(drawn.problems), "problem") if drawn.problems else "no problems"
        click.echo(f"{printable(drawn.path)}: {megabytes(drawn.size_bytes)}, {problems}")
    if drawn.problems:
        click.get_current_context().exit(EXIT_NO)
