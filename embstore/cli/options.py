"""The arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from embstore.search.defaults import DEFAULT_COLLECTION

path = click.argument("path", type=click.Path(path_type=Path))
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")
collection = click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="Part of the library.")
truncate_dim = click.option(
    "--truncate-dim",
    type=click.IntRange(min=1),
    metavar="N",
    help="Search N leading values of the vectors. Default: as the collection was indexed, all for a new one.",
)
