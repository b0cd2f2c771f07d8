"""Opening a collection of a library folder: after an unclean end, or where Chroma fails, it is checked and mended."""

from __future__ import annotations

from pathlib import Path

from embstore.errors import LibraryLockedError, SearchIndexError
from embstore.identity import ModelIdentity
from embstore.search.base import VectorSource
from embstore.search.chroma import ChromaIndex
from embstore.search.collection import open_client
from embstore.search.lock import LibraryHandle
from embstore.search.probe import set_aside_failed


def open_library(folder: Path) -> LibraryHandle:
    """Hold a library folder; after an unclean end its collections are looked at first."""
    return LibraryHandle(folder, open_client, set_aside_failed)


def open_index(
    library: LibraryHandle, collection_name: str, identity: ModelIdentity, truncate_dim: int | None = None
) -> ChromaIndex:
    """Open a collection whose documents can be read; `mend_index` is to follow.

    Raises
    ------
    CollectionMismatchError
        As of `ChromaIndex`.
    SearchIndexError
        Chroma cannot read it, and what keeps it from it cannot be removed.
    """
    index = ChromaIndex(library.client, collection_name, identity, library, truncate_dim)
    if library.is_suspect(collection_name):
        return index
    try:
        index.count()  # the first call loads the vector index, and may be the only one that tells of damage
    except SearchIndexError as failure:
        try:
            library.check(set_aside_failed)
        except LibraryLockedError as error:
            raise SearchIndexError(f"{failure}; {error}") from failure
        index = ChromaIndex(library.client, collection_name, identity, library, truncate_dim)
    return index


def mend_index(library: LibraryHandle, index: ChromaIndex, source: VectorSource) -> None:
    """Make searches find all that a collection holds, where that is in doubt."""
    if library.is_suspect(index.name):
        index.mend(source)
