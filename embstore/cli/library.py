"""What the commands know of a library folder: its database, and the model and the index of each collection."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from embstore import EmbeddingCache
from embstore.cli.chunking import Chunking
from embstore.errors import InvalidInputError, MissingExtraError
from embstore.search.defaults import CACHE_NAME
from embstore.search.inputs import IndexKind, check_collection_name, check_index
from embstore.search.note import read_small

if TYPE_CHECKING:
    from embstore.search.base import IndexRecord

NOTE_NAME = "embstore-cli.json"
"""What collections were indexed with, beside the library's other files."""

_CHROMA_NAME = "chroma.sqlite3"
_NOTED = ("models", "indexes", "truncate_dims", "chunkings")


def database_in(path: Path | str) -> Path | str:
    """Find the database that a command was pointed at; opening a path that is not there would create it.

    Parameters
    ----------
    path : Path or str
        A library folder or a database file; or the URL of a server.

    Raises
    ------
    InvalidInputError
        Nothing is there, or an empty file, or a server without tables, which would be made a new database.
    StoreError
        The server cannot be used.
    """
    if not isinstance(path, Path):
        return _on_server(path)
    file = path / CACHE_NAME if path.is_dir() else path
    if not file.exists():
        what = f"has no {CACHE_NAME}, so it is no library" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"{str(path)!r} {what}", path=str(path))
    if file.is_file() and not file.stat().st_size:
        raise InvalidInputError(f"{str(file)!r} is an empty file", path=str(file))
    return file


def new_or_present(path: Path | str) -> Path | str:
    """Find the database at a path, or say where it is to be: in a folder, unless the path has a suffix; or a URL.

    A file that is empty is one to be: another process may be about to make it, or had no room to.
    """
    if not isinstance(path, Path) or (path.exists() and not path.is_dir()):
        return path
    return path / CACHE_NAME if path.is_dir() or not path.suffix else path


def _on_server(url: str) -> str:
    from embstore.stores.postgres.condition import read_condition

    condition = read_condition(url)
    if not condition.schema_version:
        raise InvalidInputError(
            f"{condition.location!r} has no tables of embstore in its schema {condition.schema!r}; "
            f"`embstore migrate` makes them",
            path=condition.location,
        )
    return url


def has_collection(library: Path, collection: str) -> bool:
    """Tell whether a library has a collection, which an engine would create.

    Raises
    ------
    InvalidInputError, LibraryLockedError, SearchIndexError
        It is no name for a collection, or the library cannot be opened.
    """
    from embstore.search.collection import import_chromadb, open_client
    from embstore.search.lock import LibraryHandle

    check_collection_name(collection)
    if not (library / _CHROMA_NAME).exists():
        return False
    handle = LibraryHandle(library, open_client)
    try:
        handle.client.get_collection(collection, embedding_function=None)
    except import_chromadb().errors.NotFoundError:
        return False
    finally:
        handle.close()
    return True


def chroma_record(library: Path, collection: str, doc_id: str) -> IndexRecord | None:
    """Give what the Chroma index of a library has of a document, without its vector.

    Returns
    -------
    IndexRecord or None
        None where there is no such index or record, or Chroma is not installed.

    Raises
    ------
    LibraryLockedError, SearchIndexError
        The library cannot be opened.
    """
    if not (library / _CHROMA_NAME).exists():
        return None
    from embstore.search.chroma_records import as_records
    from embstore.search.collection import chroma_errors, find_collection, open_client
    from embstore.search.lock import LibraryHandle

    try:
        handle = LibraryHandle(library, open_client)
    except MissingExtraError:
        return None
    try:
        with chroma_errors("read a record"):
            found = find_collection(handle.client, collection)
            page = None if found is None else found.get(ids=[doc_id], include=["documents", "metadatas"])
            records = [] if page is None else as_records(page, {})
    finally:
        handle.close()
    return records[0] if records else None


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
    noted = _noted(library, "models").get(collection)
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


def indexed_model(library: Path, collection: str, model: str | None) -> str:
    """Give the model that was named, else the one that a collection was indexed with.

    Raises
    ------
    InvalidInputError
        As `model_of`, or there is no library, or nothing is indexed.
    """
    database_in(library)
    model = model or model_of(library, collection)
    # An engine would create the collection.
    if model is None or not (_present_index(library, collection) or has_collection(library, collection)):
        raise InvalidInputError(f"{str(library)!r} has no documents in the collection {collection!r}")
    return model


def index_of(library: Path, collection: str, asked: IndexKind | None = None) -> IndexKind:
    """Tell which index a collection has, or is to have where it is new: the one that is asked for, or Chroma.

    Raises
    ------
    InvalidInputError
        It has another one than is asked for, or the note cannot be read.
    """
    present = _present_index(library, collection)
    if asked is None or present is None or asked == present:
        return present or asked or "chroma"
    raise InvalidInputError(
        f"the collection {collection!r} in {str(library)!r} has the index {present!r}; for {asked!r} index its files "
        f"into another --collection, for which no text is encoded again"
    )


def _present_index(library: Path, collection: str) -> IndexKind | None:
    """Tell by what is there, also of a library that was made from Python; of an empty collection, by the note."""
    if (library / CACHE_NAME).exists():
        with EmbeddingCache(library / CACHE_NAME) as cache:
            if cache.store.texts.find_collection(collection) is not None:
                return "exact"
            if any(cache.documents(collection=collection)):
                return "chroma"
    noted = _noted(library, "indexes").get(collection)
    return None if noted is None else check_index(noted)


def truncation_of(library: Path, collection: str, asked: int | None) -> int | None:
    """Give the number of leading values that is asked for, else the one that a collection was indexed with; None: all.

    A note that cannot be read says nothing: a Chroma collection knows itself what does not fit it.
    """
    if asked is None:
        with suppress(KeyError, ValueError):
            return int(_noted(library, "truncate_dims")[collection])
    return asked


def chunking_of(library: Path, collection: str) -> Chunking | None:
    """Tell how the documents of a collection were split when it was last indexed; None: not, or nobody noted it."""
    with suppress(KeyError, ValueError):
        return Chunking.parse(_noted(library, "chunkings")[collection])
    return None


def note_collection(
    library: Path,
    collection: str,
    model: str,
    index: IndexKind,
    truncate_dim: int | None = None,
    chunking: Chunking | None = None,
) -> None:
    """Write down what a collection was indexed with; the note is replaced whole or not at all."""
    # A relative folder would be another one when the next command runs elsewhere.
    noted = str(Path(model).resolve()) if Path(model).is_dir() else model
    before = {what: _noted(library, what) for what in _NOTED}
    note = {
        "models": {**before["models"], collection: noted},
        "indexes": {**before["indexes"], collection: index},
        "truncate_dims": {**before["truncate_dims"], **({collection: str(truncate_dim)} if truncate_dim else {})},
        "chunkings": {
            **{name: split for name, split in before["chunkings"].items() if name != collection},
            **({collection: str(chunking)} if chunking else {}),
        },
    }
    if note != before:
        _write_note(library, note)


def _write_note(library: Path, note: dict[str, dict[str, str]]) -> None:
    if not any(note.values()):
        return
    written = library / f"{NOTE_NAME}.{os.getpid()}"
    written.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    written.replace(library / NOTE_NAME)


def rename_model(library: Path, cache: EmbeddingCache, old: str, new: str) -> None:
    """Give a model another name in the indexes and the cache of a library, and load it by that name from then on.

    Raises
    ------
    UnknownModelError, ModelExistsError, InvalidInputError
        As `EmbeddingCache.rename_model`.
    LibraryLockedError, SearchIndexError, MissingExtraError, StoreError
        In each case the names are what they were.
    """
    noted = {what: _noted(library, what) for what in _NOTED}
    if (library / _CHROMA_NAME).exists():
        from embstore.search.renaming import rename_model_in_library

        rename_model_in_library(library, cache, old, new)
    else:
        cache.rename_model(old, new)
    _write_note(
        library, {**noted, "models": {of: new if name == old else name for of, name in noted["models"].items()}}
    )


def _noted(library: Path, what: str) -> dict[str, str]:
    """Read the note: what is noted of each collection, {} where nothing is."""
    file = library / NOTE_NAME
    try:
        noted = json.loads(read_small(file)).get(what, {})
        return {str(collection): str(value) for collection, value in noted.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInputError(
            f"{str(file)!r} cannot be read ({error}); delete it and say which model by --model", path=str(file)
        ) from error
