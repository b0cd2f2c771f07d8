"""The commands that copy a database, and that write it anew without what is unused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from embstore import EmbeddingCache
from embstore.cli.commands import main
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in
from embstore.cli.output import megabytes, print_json, printable

_BACKUP_EPILOG = """\b
Every night, while others index and search:
  embstore backup my-library /backups/embeddings-$(date +%F).db
"""

_COMPACT_EPILOG = """\b
After much was forgotten:
  embstore compact my-library
"""

_path = click.Path(path_type=Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")


@main.command(epilog=_BACKUP_EPILOG)
@click.argument("path", type=_path)
@click.argument("destination", metavar="DEST", type=_path)
@_as_json
def backup(path: Path, destination: Path, as_json: bool) -> None:
    """Copy the database in PATH to the new file DEST, and check the copy.

    PATH is a library or a database file; others may write to it meanwhile. Of a library it is the database alone: a
    Chroma index is built from it again. DEST must not exist. Damage is copied as it is, named, a line each, and makes
    the exit code 1.
    """
    with EmbeddingCache(database_in(path)) as cache:
        problems = cache.backup(destination)
    size_bytes = destination.stat().st_size
    if as_json:
        rows = [asdict(problem) for problem in problems]
        print_json({"path": str(destination), "size_bytes": size_bytes, "problems": rows})
    else:
        for problem in problems:
            click.echo(printable(str(problem)))
        click.echo(f"{megabytes(size_bytes)} copied{', with the damage above' if problems else ''}")
    if problems:
        click.get_current_context().exit(EXIT_NO)


@main.command(epilog=_COMPACT_EPILOG)
@click.argument("path", type=_path)
@_as_json
def compact(path: Path, as_json: bool) -> None:
    """Write the database in PATH anew, without unused space.

    PATH is a library or a database file, which nobody else may be using. As much free space is needed meanwhile.
    """
    with EmbeddingCache(database_in(path)) as cache:
        freed_bytes = cache.compact()
    if as_json:
        print_json({"freed_bytes": freed_bytes})
    else:
        click.echo(f"{megabytes(freed_bytes)} freed")
