"""What the commands know of a library folder: its database, and the model that it was indexed with."""

from __future__ import annotations

import json
import os
from pathlib import Path

from embstore import EmbeddingCache
from embstore.errors import InvalidInputError
from embstore.search.cached_engine import CACHE_NAME

MODELS_NAME = "embstore-cli.json"
"""What collections were indexed with, beside the library's other files."""


def database_in(path: Path) -> Path:
    """Find the database that a command was pointed at; opening a path that is not there would create it.

    Parameters
    ----------
    path : Path
        A library folder or a database file.

    Raises
    ------
    InvalidInputError
        Nothing is there, or an empty file, which would be made a new database.
    """
    file = path / CACHE_NAME if path.is_dir() else path
    if not file.exists():
        what = f"has no {CACHE_NAME}, so it is no library" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"{str(path)!r} {what}", path=str(path))
    if file.is_file() and not file.stat().st_size:
        raise InvalidInputError(f"{str(file)!r} is an empty file", path=str(file))
    return file


def model_of(library: Path, collection: str) -> str | None:
    """Tell which model a collection was indexed with, as something that can be loaded again.

    The commands note it themselves: a model from a folder is stored under a name that says nothing of where it lies.
    For a library that was made from Python, it is the name of the one model that has documents.

    Returns
    -------
    str or None
        None where nothing is indexed.

    Raises
    ------
    InvalidInputError
        Several models have documents, or the note cannot be read.
    """
    noted = _noted_models(library).get(collection)
    if noted is not None or not (library / CACHE_NAME).exists():
        return noted
    with EmbeddingCache(library / CACHE_NAME) as cache:
        stored = sorted({model.model_name for model in cache.models()})
        names = [name for name in stored if any(cache.documents(model_name=name, collection=collection))]
    if len(names) > 1:
        raise InvalidInputError(
            f"the collection {collection!r} in {str(library)!r} has documents of several models; "
            f"say which by --model: {', '.join(names)}"
        )
    return names[0] if names else None


def only_model(library: Path) -> str | None:
    """Tell which model all collections of a library were indexed with; None where they differ, or there are none."""
    models = set(_noted_models(library).values())
    return models.pop() if len(models) == 1 else None


def note_model(library: Path, collection: str, model: str) -> None:
    """Write down which model a collection was indexed with; the note is replaced whole or not at all."""
    # A relative folder would be another one when the next command runs elsewhere.
    noted = str(Path(model).resolve()) if Path(model).is_dir() else model
    models = _noted_models(library)
    if models.get(collection) == noted:
        return
    models[collection] = noted
    written = library / f"{MODELS_NAME}.{os.getpid()}"
    written.write_text(json.dumps({"models": models}, indent=2) + "\n", encoding="utf-8")
    written.replace(library / MODELS_NAME)


def _noted_models(library: Path) -> dict[str, str]:
    file = library / MODELS_NAME
    try:
        models = json.loads(file.read_text(encoding="utf-8"))["models"]
        return {str(collection): str(model) for collection, model in models.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{str(file)!r} cannot be read ({error}); delete it and say which model by --model", path=str(file)
        ) from error
