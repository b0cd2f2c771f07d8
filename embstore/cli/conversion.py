"""The command that stores the vectors of a model in another format."""

from __future__ import annotations

import json
from typing import Any

import click

from embstore import EmbeddingCache
from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.library import database_in
from embstore.cli.output import counted, megabytes, print_json
from embstore.errors import InvalidInputError
from embstore.identity import DTYPES, ROLES, Dtype, Role

_EPILOG = """\b
To halve a library:
  embstore convert my-library all-MiniLM-L6-v2 --dtype float16 --compact
"""


@main.command(epilog=_EPILOG)
@options.path
@click.argument("model_name")
@click.option("--dtype", type=click.Choice(DTYPES), required=True, help="The format to store the vectors in.")
@click.option("--role", type=click.Choice(ROLES), default="document", show_default=True)
@click.option("--settings", metavar="JSON", help="Which of several models of the name; `embstore stats --json` tells.")
@click.option("--compact", is_flag=True, help="Then write the file anew without the space that became free.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")
def convert(
    path: options.Place, model_name: str, dtype: Dtype, role: Role, settings: str | None, compact: bool, as_json: bool
) -> None:
    """Store the vectors of MODEL_NAME in another format.

    PATH is a library, a database file or the URL of a server. No text is encoded again. All vectors are converted or,
    where something is wrong with one of them, none.
    """
    wanted = None if settings is None else read_settings(settings)
    with EmbeddingCache(database_in(path)) as cache:
        n_converted = cache.convert(model_name, dtype=dtype, role=role, settings=wanted)
        freed_bytes = cache.compact() if compact else 0
    if as_json:
        print_json({"n_converted": n_converted, "freed_bytes": freed_bytes})
        return
    freed = f"; {megabytes(freed_bytes)} freed" if compact else ""
    click.echo(f"{counted(n_converted, 'vector')} converted to {dtype}{freed}")


def read_settings(text: str) -> dict[str, Any]:
    """Give the settings of a model that a command was given as JSON."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--settings {text!r:.80} is no JSON: {error}") from None
    if not isinstance(settings, dict):
        raise InvalidInputError(f"--settings {text!r:.80} is no JSON object")
    return settings
