"""Giving a model another name in a library as a whole: its cache, and all its indexes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from embstore.identity import check_model_name
from embstore.search.collection import chroma_errors, note_identity, noted_identity, open_client
from embstore.search.lock import LibraryHandle

if TYPE_CHECKING:
    from embstore.cache import EmbeddingCache


def rename_model_in_library(library: Path, cache: EmbeddingCache, old: str, new: str) -> list[str]:
    """Give a model another name in the Chroma collections of a library and in its cache; every vector stays.

    The collections come first. After a crash between them and the cache, calling it again finishes it.

    Parameters
    ----------
    library : Path
        A folder with a Chroma database.
    cache : EmbeddingCache
    old, new : str

    Returns
    -------
    list of str
        The Chroma collections whose model was called `old`.

    Raises
    ------
    UnknownModelError, ModelExistsError, InvalidInputError
        As `EmbeddingCache.rename_model`.
    LibraryLockedError, SearchIndexError, MissingExtraError, StoreError
        In each case the names are what they were.
    """
    check_model_name(new)
    handle = LibraryHandle(library, open_client)
    try:
        with chroma_errors("rename the model of its collections"), ExitStack() as undoing:
            renamed = []
            for collection in handle.client.list_collections():
                identity = noted_identity(collection)
                if identity is not None and identity.model_name == old:
                    undoing.callback(note_identity, collection, identity)
                    note_identity(collection, identity.renamed(new))
                    renamed.append(collection.name)
            cache.rename_model(old, new)
            undoing.pop_all()
    finally:
        handle.close()
    return renamed
