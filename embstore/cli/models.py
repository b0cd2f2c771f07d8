"""The commands that list the stored models, and give one another name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from embstore import EmbeddingCache
from embstore.cli import library as lib
from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.output import counted, print_json, print_table, printable, settings_in_words

_MODELS_EPILOG = """\b
Which models a library has vectors of:
  embstore models my-library
"""

_RENAME_EPILOG = """\b
After a model was published under its own name:
  embstore rename-model my-library models/draft-7 acme/minilm-law
"""


@main.command(epilog=_MODELS_EPILOG)
@options.path
@options.as_json
def models(path: options.Place, as_json: bool) -> None:
    """List the models that PATH has vectors of, oldest first.

    PATH is a library, a database file or the URL of a server. Models of one name and other settings are several: they
    share no vector.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        found = cache.models()
    if as_json:
        print_json([asdict(model) for model in found])
        return
    print_table(
        ("model_name", "role", "dim", "dtype", "documents", "vectors", "canary", "created_at", "settings"),
        [
            (
                model.model_name,
                str(model.settings.get("role", "document")),
                model.dim,
                model.dtype,
                model.n_documents,
                model.n_vectors,
                "yes" if model.has_canary else "no",
                model.created_at,
                settings_in_words(model.settings),
            )
            for model in found
        ],
    )


@main.command(epilog=_RENAME_EPILOG)
@options.path
@click.argument("old")
@click.argument("new")
@options.as_json
def rename_model(path: options.Place, old: str, new: str, as_json: bool) -> None:
    """Give the model OLD in PATH the name NEW; every vector stays.

    PATH is a library, whose indexes are told too, or a database file. All models of the name are renamed, or, where
    something stands against it, none. From then on a model that says OLD of itself is another one.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        if isinstance(path, Path) and path.is_dir():
            lib.rename_model(path, cache, old, new)
        else:
            cache.rename_model(old, new)
        n_vectors = sum(model.n_vectors for model in cache.models() if model.model_name == new)
    if as_json:
        print_json({"model_name": new, "n_vectors": n_vectors})
    else:
        click.echo(f"{printable(old)} is called {printable(new)} now: {counted(n_vectors, 'vector')}")
