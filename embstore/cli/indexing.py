"""The commands that put documents into a library, and that tell beforehand what this would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from embstore.cli import library as lib
from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.engines import open_engine, planning_engine
from embstore.cli.output import counted, print_json, print_plan, print_report, report_as_json
from embstore.encoders import as_encoder
from embstore.encoders.tokens import token_counter
from embstore.identity import DTYPES, Dtype
from embstore.search.defaults import DEFAULT_MODEL
from embstore.search.inputs import INDEX_KINDS, IndexKind

if TYPE_CHECKING:
    from embstore.search import CachedSemanticSearchEngine

_INDEX_EPILOG = """\b
A folder of notes, and after they were edited the same again:
  embstore index my-library notes

Articles of a database, with two columns to filter by:
  embstore index my-library blog.db --sql "SELECT id, body, year, author FROM posts" --text-column body
"""

_PLAN_EPILOG = """\b
How long would it take?
  embstore plan my-library notes --remove-missing
"""

_SPLIT = "--chunk-tokens splits them"

_OPTIONS = [
    click.argument("library", type=click.Path(file_okay=False, path_type=Path)),
    *options.source,
    click.option("--model", metavar="MODEL", help="Default: that of the collection, all-MiniLM-L6-v2 for a new one."),
    click.option(
        "--index",
        "index_kind",
        type=click.Choice(INDEX_KINDS),
        help="What answers searches; exact needs no Chroma. Default: that of the collection, chroma for a new one.",
    ),
    options.truncate_dim,
    options.collection,
    click.option("--remove-missing", is_flag=True, help="Remove documents of the collection that are not among FILES."),
]


class _Target(NamedTuple):
    """Where documents go to."""

    library: Path
    model: str
    collection: str
    kind: IndexKind
    truncate_dim: int | None


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@main.command(epilog=_INDEX_EPILOG)
@_with_options
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", help="The format to store a new model in.")
@click.option(
    "--max-removed",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Do nothing where a larger share of the collection would be removed.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing, as `embstore plan`.")
@options.as_json
def index(
    remove_missing: bool,
    dtype: Dtype,
    max_removed: float,
    dry_run: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """Put FILES into LIBRARY.

    FILES are files, folders and patterns such as 'notes/**/*.md'. A text file is one document, and its path is the id.
    In a .jsonl file each line is a document: {"id": "a", "text": "...", "metadata": {"year": 2026}}, where metadata can
    be left out. In a .csv, .tsv or .parquet file each row is one, and with --sql each row of a query. Files are UTF-8.
    Where one of them cannot be read, nothing is indexed. Only texts that the library has no vector of are encoded. Of a
    long text a model reads the beginning alone: it is told how many were cut off, and --chunk-tokens splits them.
    """
    source, target = _source_and_target(**said)
    if dry_run:
        _plan(source, target, remove_missing, as_json)
        return
    library, model, collection, kind, truncate_dim = target
    with open_engine(library, model, collection, kind, truncate_dim=truncate_dim, dtype=dtype) as engine:
        given = source.given_to(engine)
        n_cut = _count_cut(engine, given.texts)
        report = engine.index_documents(*given, remove_missing=remove_missing, max_removed=max_removed)
        n_former = engine.delete_documents(source.former_ids(engine, given))
        report = replace(report, removed=report.removed + n_former)
    lib.note_collection(library, collection, model, kind, truncate_dim, source.chunking)
    if as_json:
        print_json({**report_as_json(report), "n_cut": n_cut})
        return
    print_report(report)
    if n_cut:
        click.echo(f"{counted(n_cut, 'text')} had more tokens than the model reads, and the rest was cut off; {_SPLIT}")


@main.command(epilog=_PLAN_EPILOG)
@_with_options
@options.as_json
def plan(remove_missing: bool, as_json: bool, **said: Any) -> None:
    """Tell what `embstore index` would do with FILES in LIBRARY.

    Nothing is written, and no text is encoded. It is told how many texts the model would cut off and, where the library
    has seen the model at work, how long it would take.
    """
    _plan(*_source_and_target(**said), remove_missing, as_json)


def _plan(source: options.Source, target: _Target, remove_missing: bool, as_json: bool) -> None:
    library, model, collection, kind, truncate_dim = target
    with planning_engine(library, model, collection, kind, truncate_dim=truncate_dim) as engine:
        given = source.given_to(engine)
        found = engine.plan(*given, remove_missing=remove_missing)
        if not remove_missing:
            found = replace(found, to_remove=len(source.former_ids(engine, given)))
        n_cut = _count_cut(engine, given.texts)
    if as_json:
        print_json({**asdict(found), "n_cut": n_cut})
        return
    print_plan(found)
    if n_cut:
        click.echo(f"{counted(n_cut, 'text')} to encode, of which the model would not read the end; {_SPLIT}")


def _count_cut(engine: CachedSemanticSearchEngine, texts: list[str]) -> int | None:
    """Count the texts to be encoded whose end the model does not read; None where it shows no tokenizer."""
    encoder = as_encoder(engine.model, engine.model_name)
    counter = token_counter(encoder)
    if counter is None:
        return None
    return counter.count_cut(engine.cache.missing(filter(counter.may_cut, texts), encoder))


def _source_and_target(
    library: Path,
    model: str | None,
    collection: str,
    index_kind: IndexKind | None,
    truncate_dim: int | None,
    **source: Any,
) -> tuple[options.Source, _Target]:
    """Read all that is to be indexed, and decide where to."""
    read = options.read_source(**source, library=library, collection=collection)
    return read, _target(library, model, collection, index_kind, truncate_dim)


def _target(
    library: Path, model: str | None, collection: str, index_kind: IndexKind | None, truncate_dim: int | None
) -> _Target:
    """Decide what was not said: as the collection is, and for a new one the defaults."""
    return _Target(
        library,
        model or lib.model_of(library, collection) or DEFAULT_MODEL,
        collection,
        lib.index_of(library, collection, index_kind),
        lib.truncation_of(library, collection, truncate_dim),
    )
