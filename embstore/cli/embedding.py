"""The command that gives the rows of Parquet files their vectors, here or on a cluster."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.embedding_cluster import embed_on_cluster
from embstore.cli.embedding_jobs import embed_here
from embstore.cli.library import new_or_present
from embstore.cli.output import counted, print_json, printable
from embstore.errors import InvalidInputError
from embstore.identity import DTYPES, ROLES
from embstore.search.defaults import DEFAULT_MODEL
from embstore.stores.locations import is_url

_EPILOG = """\b
Vectors beside the rows of a file, each text encoded once:
  embstore embed --store cache.db articles.parquet -o vectors.parquet

By eight workers of a cluster, into a store that they all reach:
  embstore embed --store postgresql://db/cache --ray --workers 8 s3://bucket/in
"""


@main.command(epilog=_EPILOG, short_help="Give each row of Parquet files the vector of its text.")
@click.argument("files", metavar="FILES...", nargs=-1, required=True)
@click.option("--store", required=True, metavar="STORE", help="A library, a database file, or the URL of a server.")
@click.option("--model", metavar="MODEL", default=DEFAULT_MODEL, show_default=True)
@click.option("--model-name", metavar="NAME", help="To store vectors under. Default: what MODEL says of itself.")
@click.option("-o", "--output", metavar="OUT", help="What to write: the rows with their vectors.")
@click.option("--overwrite", is_flag=True, help="Replace OUT where it is there.")
@click.option("--text-column", metavar="NAME", default="text", show_default=True)
@click.option("--id-column", metavar="NAME", help="Record documents under these ids. Default: texts have no id.")
@click.option("--vector-column", metavar="NAME", default="vector", show_default=True, help="Of OUT.")
@click.option("--collection", metavar="NAME", default="", help="Keeps ids apart. Default: none.")
@click.option("--role", type=click.Choice(ROLES), default="document", show_default=True)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", help="The format to store a new model in.")
@click.option("--ray", "on_cluster", is_flag=True, help="Work as a job of Ray Data.")
@click.option("--ray-address", metavar="ADDRESS", help="Of a cluster. Default: RAY_ADDRESS, or one on this machine.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="With --ray: models at once. Default: 1.")
@options.as_json
def embed(
    files: tuple[str, ...],
    store: str,
    output: str | None,
    overwrite: bool,
    vector_column: str,
    on_cluster: bool,
    ray_address: str | None,
    workers: int | None,
    as_json: bool,
    **embedding: Any,
) -> None:
    """Give each row of FILES the vector of its text, and encode no text twice.

    FILES are Parquet files, folders and patterns. What is encoded is kept in STORE, so that a run that was ended goes
    on where it was. OUT is a Parquet file that appears when it is whole, with all columns of FILES. With --ray it is a
    folder of files, and FILES and OUT may be whatever Ray reads and writes, such as s3://bucket/folder, where all nodes
    of the cluster reach it.
    """
    if not on_cluster and (ray_address or workers):
        raise InvalidInputError("--ray-address and --workers are of a cluster; give --ray too")
    began = time.perf_counter()
    embedding["store"] = new_or_present(store if is_url(store) else Path(store))
    embedding["vector_column"] = vector_column
    if on_cluster:
        report = embed_on_cluster(
            files, output, overwrite=overwrite, address=ray_address, workers=workers or 1, **embedding
        )
    else:
        report = embed_here(files, output, overwrite=overwrite, **embedding)
    seconds = time.perf_counter() - began
    if as_json:
        print_json({**asdict(report), "seconds": seconds, "output": output})
        return
    click.echo(
        f"{counted(report.n_texts, 'text')} in {seconds:.2f} s: {report.n_encoded:,} encoded, "
        f"{report.n_hits:,} from the cache{f'; written to {printable(output)}' if output else ''}"
    )
