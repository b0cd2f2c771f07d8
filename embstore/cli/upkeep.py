"""The commands that look after a database: copy it, remove what is unused, bring it up to date."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from embstore import EmbeddingCache
from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in
from embstore.cli.output import counted, megabytes, print_json, printable
from embstore.errors import ReadOnlyError
from embstore.stores.condition import read_condition
from embstore.stores.schema import SCHEMA_VERSION

_BACKUP_EPILOG = """\b
Every night, while others index and search:
  embstore backup my-library /backups/embeddings-$(date +%F).db
"""

_COMPACT_EPILOG = """\b
After much was forgotten:
  embstore compact my-library
"""

_PRUNE_EPILOG = """\b
Former texts of documents that were edited, then the space that they took:
  embstore prune my-library
  embstore compact my-library
"""

_MIGRATE_EPILOG = """\b
Before a new version is rolled out to all that use a file:
  embstore backup my-library before.db
  embstore migrate my-library
"""


@main.command(epilog=_BACKUP_EPILOG, short_help="Copy a database while others use it, and check the copy.")
@options.path
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@options.as_json
def backup(path: options.Place, destination: Path, as_json: bool) -> None:
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
@options.path
@options.as_json
def compact(path: options.Place, as_json: bool) -> None:
    """Write the database in PATH anew, without unused space.

    PATH is a library or a database file, which nobody else may be using, and as much free space is needed meanwhile. Or
    it is the URL of a server, whose tables are vacuumed while others use them: what becomes free is mostly for new
    rows.
    """
    with EmbeddingCache(database_in(path)) as cache:
        freed_bytes = cache.compact()
    if as_json:
        print_json({"freed_bytes": freed_bytes})
    else:
        click.echo(f"{megabytes(freed_bytes)} freed")


@main.command(epilog=_PRUNE_EPILOG)
@options.path
@click.option("--standalone", is_flag=True, help="Those of texts without an id, such as queries, too.")
@click.option("--dry-run", is_flag=True, help="Count them, and remove nothing.")
@options.as_json
def prune(path: options.Place, standalone: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the vectors in PATH that no document uses.

    PATH is a library, a database file or the URL of a server. They are those of former texts of documents that were
    edited or forgotten: a text that comes again would be encoded again.
    """
    with EmbeddingCache(database_in(path)) as cache:
        report = cache.prune(standalone=standalone, dry_run=dry_run)
    if as_json:
        print_json(asdict(report))
    else:
        done = "would be removed" if dry_run else "removed"
        click.echo(f"{counted(report.n_vectors, 'vector')} of {megabytes(report.vector_bytes)} {done}")


def _schema_versions(place: options.Place) -> tuple[int, int]:
    """Give the schema version of what is there, and the one of this embstore."""
    if isinstance(place, Path):
        return read_condition(place).schema_version, SCHEMA_VERSION
    from embstore.stores.postgres import condition, schema

    return condition.read_condition(place).schema_version, schema.SCHEMA_VERSION


@main.command(epilog=_MIGRATE_EPILOG, short_help="Bring the tables in PATH to this schema version.")
@options.path
@click.option("--dry-run", is_flag=True, help="Tell which versions, and change nothing.")
@options.as_json
def migrate(path: options.Place, dry_run: bool, as_json: bool) -> None:
    """Bring the tables in PATH to the schema version of this embstore, with every row kept.

    PATH is a library, a database file or the URL of a server, where new tables are made if there are none. Any command
    that opens a file does the same; a process that has it open with an older embstore is to be ended first.
    """
    place = database_in(path) if isinstance(path, Path) else path
    before, latest = _schema_versions(place)
    after = latest
    if not dry_run:
        EmbeddingCache(place).close()
        after, _ = _schema_versions(place)
        if after < latest:
            raise ReadOnlyError(
                f"{str(place)!r} has schema version {after} and can only be read; migrate it where it can be written",
                path=str(place),
            )
    if as_json:
        print_json({"from_version": before, "to_version": after, "migrated": not dry_run and before != after})
    elif before == after:
        click.echo(f"schema version {before}, the one of this embstore: nothing to migrate")
    else:
        click.echo(f"schema version {before} {'would become' if dry_run else 'became'} {after}")
