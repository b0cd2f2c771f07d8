"""The commands that bring a cache along and take it away: import, merge and export."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

import click

from embstore import EmbeddingCache, transfer
from embstore.cli.commands import main
from embstore.cli.conversion import read_settings
from embstore.cli.files import documents_in
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in, new_or_present
from embstore.cli.options import Place, PlaceType
from embstore.cli.output import counted, megabytes, print_json, printable
from embstore.errors import InvalidInputError
from embstore.identity import DTYPES, ROLES, Dtype, Role
from embstore.transfer.report import TransferReport

_SHOWN = 10  # rows of each kind; the others are counted

_IMPORT_EPILOG = """\b
From the usual home-made cache, a JSON index and .npy files:
  embstore import my-library old-cache --from npy --model-name my-model

Exit code 1 where rows were skipped, or the cache has something otherwise.
"""

_EXPORT_EPILOG = """\b
For pandas, DuckDB, or embedding-atlas:
  embstore export my-library vectors.parquet --to parquet
"""

_MERGE_EPILOG = """\b
What a colleague has encoded, into a library of one's own:
  embstore merge colleague.db my-library

From a file to a server for many machines, and back:
  embstore merge embeddings.db postgresql://me@db.example.org/vectors
  embstore merge postgresql://me@db.example.org/vectors embeddings.db

Exit code 1 where the two have something otherwise; that in TARGET stays as it is.
"""

_path = click.Path(path_type=Path)
_place = PlaceType(path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")

# Names of functions of embstore.transfer, each of which is loaded when it is used.
_IMPORTS = {
    "npy": "import_npy_folder",
    "langchain": "import_langchain",
    "llm": "import_llm",
    "chroma": "import_chroma",
    "matrix": "import_matrix",
    "parquet": "import_parquet",
    "safetensors": "import_safetensors",
}
_EXPORTS = {
    "npy": "export_npy",
    "parquet": "export_parquet",
    "projector": "export_projector",
    "safetensors": "export_safetensors",
}


@main.command("import", epilog=_IMPORT_EPILOG, short_help="Take vectors from elsewhere, without encoding anything.")
@click.argument("path", type=_place)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--from", "kind", type=click.Choice(list(_IMPORTS)), required=True, help="What SOURCE is.")
@click.option("--model", metavar="MODEL", help="Whose vectors they are: a model that is loaded to tell its identity.")
@click.option("--model-name", metavar="NAME", help="The same by name alone.")
@click.option("--settings", metavar="JSON", help="With --model-name: what else changes the model's vectors.")
@click.option("--role", type=click.Choice(ROLES), default="document", show_default=True)
@click.option("--collection", help="Where the documents come to. Default: as SOURCE says, or none.")
@click.option("--ids", type=_file, help="What the rows of a matrix are: a .jsonl, .json or text file.")
@click.option("--namespace", metavar="NAME", help="Of LangChain's cache. Default: none.")
@click.option("--source-collection", metavar="NAME", help="Of llm or Chroma. Default: all of llm, the one of Chroma.")
@click.option("--id-column", metavar="NAME", help="Of a Parquet file. Default: id.")
@click.option("--text-column", metavar="NAME", help="Of a Parquet file. Default: text.")
@click.option("--vector-column", metavar="NAME", help="Of a Parquet file. Default: vector or embedding.")
@click.option("--source-model", metavar="NAME", help="What entries of an index call the model, if not --model-name.")
@click.option(
    "--texts",
    multiple=True,
    type=_file,
    help="Texts that were cached, where SOURCE has but their keys: files as for `embstore index`.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", help="The format to store a new model in.")
@_as_json
def import_(path: Place, source: Path, kind: str, dtype: Dtype, as_json: bool, **given: Any) -> None:
    """Take the vectors of SOURCE into PATH, without encoding anything.

    PATH is a library, a database file, made where it is not there, or the URL of a server. What is stored stays as it
    is; a second run stores nothing new. Rows are stored by the thousand, so that an error leaves those before it.
    """
    options = _options(kind, **given)
    with EmbeddingCache(new_or_present(path), dtype=dtype) as cache:
        report = getattr(transfer, _IMPORTS[kind])(cache, source, **options)
    _print(report, as_json)


@main.command(epilog=_MERGE_EPILOG, short_help="Take all that another cache holds.")
@click.argument("source", type=_place)
@click.argument("target", type=_place)
@_as_json
def merge(source: Place, target: Place, as_json: bool) -> None:
    """Take all that SOURCE holds, and TARGET does not, into TARGET.

    Each is a library, a database file, or the URL of a server; what is in TARGET stays, and a file is made where it is
    not there. Models, formats, collections and texts come as they are; indexes and counts of use do not. What ends it
    early loses nothing: the same command again takes the rest.
    """
    given = database_in(source)
    with EmbeddingCache(new_or_present(target)) as cache:
        report = transfer.merge(cache, given)
    _print(report, as_json)


@main.command(epilog=_EXPORT_EPILOG)
@click.argument("path", type=_place)
@click.argument("target", type=_path)
@click.option("--to", "kind", type=click.Choice(list(_EXPORTS)), required=True, help="What TARGET is to be.")
@click.option("--model-name", metavar="NAME", help="Whose vectors. Default: those of the one model that there is.")
@click.option("--settings", metavar="JSON", help="Which of several models of the name; `embstore stats --json` tells.")
@click.option("--role", type=click.Choice(ROLES), default="document", show_default=True)
@click.option("--collection", help="Only documents of this collection.")
@click.option("--overwrite", is_flag=True, help="Replace a folder of such an export, or a file of that suffix.")
@_as_json
def export(
    path: Place,
    target: Path,
    kind: str,
    model_name: str | None,
    settings: str | None,
    role: Role,
    collection: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the vectors of documents in PATH to TARGET.

    PATH is a library, a database file or the URL of a server, TARGET a new file (parquet, safetensors) or folder (npy,
    projector), which appears when it is whole. Values are written bit for bit.
    """
    with EmbeddingCache(database_in(path)) as cache:
        report = getattr(transfer, _EXPORTS[kind])(
            cache,
            target,
            model_name or _only_model(cache),
            settings=None if settings is None else read_settings(settings),
            role=role,
            collection=collection,
            overwrite=overwrite,
        )
    if as_json:
        print_json(asdict(report))
    else:
        written = f"{counted(report.n_rows, 'vector')} of {report.dim:,} values written"
        click.echo(f"{printable(report.path)}: {written}, {megabytes(report.size_bytes)}")


def _only_model(cache: EmbeddingCache) -> str:
    names = sorted({model.model_name for model in cache.models()})
    if len(names) != 1:
        raise InvalidInputError(f"{cache.location!r} has {len(names)} models; say by --model-name: {', '.join(names)}")
    return names[0]


def _options(kind: str, texts: Iterable[Path], settings: str | None, role: Role, **others: Any) -> dict[str, Any]:
    """Give what was said as arguments of an import; what was not is not among them."""
    options = {name: value for name, value in others.items() if value is not None}
    options["role"] = role
    if settings is not None:
        options["settings"] = read_settings(settings)
    if texts:
        documents = documents_in(texts)
        by_id = {document.doc_id: document.text for document in documents}
        options["texts"] = by_id if kind == "matrix" else [document.text for document in documents]
    takes = signature(getattr(transfer, _IMPORTS[kind])).parameters
    for name in options:
        if name not in takes:
            raise InvalidInputError(f"--from {kind} takes no --{name.replace('_', '-')}")
    return options


def _print(report: TransferReport, as_json: bool) -> None:
    if as_json:
        counts = {"n_skipped": report.n_skipped, "n_conflicts": report.n_conflicts, "ok": report.ok}
        print_json({**asdict(report), **counts})
    else:
        differing = [conflict for conflict in report.conflicts if not conflict.is_rounding]
        for verb, rows in (("skipped", report.skipped), ("differs", differing)):
            for row in rows[:_SHOWN]:
                click.echo(f"{verb}: {printable(str(row))}")
            if len(rows) > _SHOWN:
                click.echo(f"{verb}: {len(rows) - _SHOWN:,} more; --json lists all")
        n_values = f" and {counted(report.n_values, 'value')}" if report.n_values else ""
        click.echo(
            f"{printable(report.source)}: {counted(report.n_stored, 'vector')}, "
            f"{counted(report.n_documents, 'document')} and {counted(report.n_texts, 'text')}{n_values} stored; "
            f"{counted(report.n_present, 'vector')} were there; "
            f"{counted(len(report.skipped), 'row')} skipped; {len(differing):,} differ, "
            f"{len(report.conflicts) - len(differing):,} more by rounding"
        )
    if not report.ok:
        click.get_current_context().exit(EXIT_NO)
