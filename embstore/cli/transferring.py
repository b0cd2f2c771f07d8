"""The commands that bring a cache along: import and merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from embstore import EmbeddingCache, transfer
from embstore.cli.commands import main
from embstore.cli.conversion import read_settings
from embstore.cli.files import read_documents
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in
from embstore.cli.output import counted, print_json, printable
from embstore.identity import DTYPES, ROLES, Dtype, Role
from embstore.search.defaults import CACHE_NAME
from embstore.transfer.report import TransferReport

_SHOWN = 10  # rows of each kind; the others are counted

_IMPORT_EPILOG = """\b
From the usual home-made cache, a JSON index and .npy files:
  embstore import my-library old-cache --from npy --model-name my-model

Exit code 1 where rows were skipped, or the cache has something otherwise.
"""

_MERGE_EPILOG = """\b
What a colleague has encoded:
  embstore merge my-library colleague.db

Exit code 1 where the two files have something otherwise; the one in PATH stays as it is.
"""

_path = click.Path(path_type=Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")

_IMPORTS: dict[str, Callable[..., TransferReport]] = {
    "npy": lambda cache, source, options: transfer.import_npy_folder(cache, source, **options),
}


@main.command("import", epilog=_IMPORT_EPILOG)
@click.argument("path", type=_path)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--from", "kind", type=click.Choice(list(_IMPORTS)), required=True, help="What SOURCE is.")
@click.option("--model", metavar="MODEL", help="Whose vectors they are: a model that is loaded to tell its identity.")
@click.option("--model-name", metavar="NAME", help="The same by name alone.")
@click.option("--settings", metavar="JSON", help="With --model-name: what else changes the model's vectors.")
@click.option("--role", type=click.Choice(ROLES), default="document", show_default=True)
@click.option("--collection", help="Where the documents come to.")
@click.option(
    "--texts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts that were cached, where SOURCE has but their keys: files as for `embstore index`.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", help="The format to store a new model in.")
@_as_json
def import_(path: Path, source: Path, kind: str, dtype: Dtype, as_json: bool, **given: Any) -> None:
    """Take the vectors of SOURCE into PATH, without encoding anything.

    PATH is a library or a database file, made where it is not there. What is stored stays as it is; a second run stores
    nothing new. Rows are stored by the thousand, so that an error leaves those before it.
    """
    options = _options(**given)
    with EmbeddingCache(_new_or_present(path), dtype=dtype) as cache:
        report = _IMPORTS[kind](cache, source, options)
    _print(report, as_json)


@main.command(epilog=_MERGE_EPILOG)
@click.argument("path", type=_path)
@click.argument("other", type=click.Path(exists=True, path_type=Path))
@_as_json
def merge(path: Path, other: Path, as_json: bool) -> None:
    """Take all that OTHER holds, and PATH does not, into PATH.

    Both are a library or a database file. Models, formats, collections and texts come as they are; indexes do not.
    """
    with EmbeddingCache(_new_or_present(path)) as cache:
        report = transfer.merge(cache, database_in(other))
    _print(report, as_json)


def _options(texts: Iterable[Path], settings: str | None, role: Role, **others: Any) -> dict[str, Any]:
    """Give what was said as arguments of an import; what was not is not among them."""
    options = {name: value for name, value in others.items() if value is not None}
    options["role"] = role
    if settings is not None:
        options["settings"] = read_settings(settings)
    if texts:
        options["texts"] = [document.text for document in read_documents(texts)]
    return options


def _new_or_present(path: Path) -> Path:
    """Find the database at a path, or say where it is to be: in a folder, unless the path has a suffix."""
    if path.exists() and not path.is_dir():
        return database_in(path)
    return path / CACHE_NAME if path.is_dir() or not path.suffix else path


def _print(report: TransferReport, as_json: bool) -> None:
    if as_json:
        counts = {"n_skipped": report.n_skipped, "n_conflicts": report.n_conflicts, "ok": report.ok}
        print_json({**asdict(report), **counts})
    else:
        for verb, rows in (("skipped", report.skipped), ("differs", report.conflicts)):
            for row in rows[:_SHOWN]:
                click.echo(f"{verb}: {printable(str(row))}")
            if len(rows) > _SHOWN:
                click.echo(f"{verb}: {len(rows) - _SHOWN:,} more; --json lists all")
        click.echo(
            f"{printable(report.source)}: {counted(report.n_stored, 'vector')}, "
            f"{counted(report.n_documents, 'document')} and {counted(report.n_texts, 'text')} stored; "
            f"{counted(report.n_present, 'vector')} were there; {len(report.skipped):,} skipped, "
            f"{len(report.conflicts):,} otherwise"
        )
    if not report.ok:
        click.get_current_context().exit(EXIT_NO)
