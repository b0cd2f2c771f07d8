"""The documents of a library with their texts, metadata and vectors, read without the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embstore.cache import EmbeddingCache
from embstore.codec import Vectors
from embstore.errors import InvalidInputError
from embstore.identity import ModelIdentity
from embstore.search.base import Metadata, hash_bytes
from embstore.search.defaults import CACHE_NAME, DEFAULT_COLLECTION
from embstore.search.exact_records import metadata_of
from embstore.search.loading import LoadedCollection
from embstore.stores.locations import is_url
from embstore.stores.texts import StoredCollection

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

_CHROMA_NAME = "chroma.sqlite3"


@dataclass(frozen=True)
class Documents:
    """Documents of one model.

    Attributes
    ----------
    model_name : str
    doc_ids : list of n str
    texts : list of n (str or None)
        None where only the vector is stored.
    metadatas : list of n dict
    vectors : ndarray of shape (n, dim), float32
    n_without_vector : int
        Documents that are left out, as no sound vector of them is stored.
    """

    model_name: str
    doc_ids: list[str]
    texts: list[str | None]
    metadatas: list[Metadata]
    vectors: Vectors
    n_without_vector: int = 0


Found = npt.NDArray[np.bool_]
Page = tuple[list[str], list[str | None], list[Metadata], Found, Vectors]


def read_documents(path: str | Path, *, collection: str | None = None, model_name: str | None = None) -> Documents:
    """Read the documents of a collection; nothing is encoded, and no vector is given that is not what was written.

    Parameters
    ----------
    path : str or Path
        A library folder or a database file, or the URL of a server.
    collection : str, optional
        By default the one that a library has by default; of a file that has no texts, all.
    model_name : str, optional
        Where only vectors are stored, and those of several models: whose.

    Raises
    ------
    InvalidInputError
        Nothing is there, no document in the collection has a vector, or several models have some.
    LibraryLockedError, SearchIndexError, StoreError
        The library cannot be read.
    """
    path = str(path) if is_url(path) else Path(path)
    folder, database = (path, path / CACHE_NAME) if isinstance(path, Path) and path.is_dir() else (None, path)
    check_database(database)
    with EmbeddingCache(database) as cache:
        name = DEFAULT_COLLECTION if collection is None else collection
        exact = cache.store.texts.find_collection(name)
        documents = None
        if exact is not None and exact.n_texts:
            documents = _collected(exact.identity, _pages_of_exact(cache, exact))
        elif folder is not None and (folder / _CHROMA_NAME).exists():
            documents = _read_chroma(cache, folder, name)
        if documents is None:
            documents = _without_texts(cache, name if folder and collection else collection, model_name)
    if not documents.doc_ids:
        lost = f"; {documents.n_without_vector:,} have no vector, index them again" * bool(documents.n_without_vector)
        raise InvalidInputError(f"{cache.location!r} has no documents to draw in the collection {name!r}{lost}")
    return documents


def check_database(database: str | Path) -> None:
    """Raise InvalidInputError where nothing is; opening a path that is not there would create it."""
    if isinstance(database, Path) and (not database.is_file() or not database.stat().st_size):
        raise InvalidInputError(f"{str(database)!r} is no database with vectors", path=str(database))


def _collected(identity: ModelIdentity, pages: Iterator[Page]) -> Documents:
    doc_ids, texts, metadatas = list[str](), list[str | None](), list[Metadata]()
    matrices, n_lost = list[Vectors](), 0
    for ids, some_texts, some_metadatas, found, vectors in pages:
        doc_ids += compress(ids, found)
        texts += compress(some_texts, found)
        metadatas += compress(some_metadatas, found)
        matrices.append(vectors[found])
        n_lost += int((~found).sum())
    kept = [matrix for matrix in matrices if len(matrix)]
    vectors = np.concatenate(kept) if kept else np.empty((0, 0), dtype=np.float32)
    return Documents(identity.model_name, doc_ids, texts, metadatas, vectors, n_lost)


def _pages_of_exact(cache: EmbeddingCache, collection: StoredCollection) -> Iterator[Page]:
    loaded = LoadedCollection(cache.store, collection.name, collection.identity)
    for texts, there in loaded.pages_with_vectors():
        yield (
            [text.doc_id for text in texts],
            [text.text for text in texts],
            [metadata_of(text) for text in texts],
            there.found,
            there.vectors,
        )


def _read_chroma(cache: EmbeddingCache, folder: Path, name: str) -> Documents | None:
    """Read a Chroma collection; None where it is not there, or embstore did not make it."""
    from embstore.search.collection import find_collection, noted_identity, open_client
    from embstore.search.lock import LibraryHandle

    handle = LibraryHandle(folder, open_client)
    try:
        found = find_collection(handle.client, name)
        identity = None if found is None else noted_identity(found)
        if found is None or identity is None or not found.count():
            return None
        return _collected(identity, _pages_of_chroma(cache, identity, found))
    finally:
        handle.close()


def _pages_of_chroma(cache: EmbeddingCache, identity: ModelIdentity, collection: Collection) -> Iterator[Page]:
    """Read texts from the index and their vectors from the cache, where each has a checksum and is whole."""
    from embstore.search.chroma_records import stored_document
    from embstore.search.collection import chroma_errors, record_pages

    with chroma_errors("read the library"):
        for page in record_pages(collection, ["documents", "metadatas"]):
            stored = [stored_document(metadata) for metadata in page["metadatas"]]
            there = _look_up(cache, identity, [hash_bytes(document.content_hash) for document in stored])
            yield page["ids"], page["documents"], [document.metadata for document in stored], *there


def _look_up(cache: EmbeddingCache, identity: ModelIdentity, hashes: Sequence[bytes | None]) -> tuple[Found, Vectors]:
    """Give the vectors of n contents, the same of which may come twice: found (n,) and vectors (n, dim)."""
    distinct = list(dict.fromkeys(key for key in hashes if key is not None))
    model = cache.store.find_variant(identity)
    if model is None or not distinct:
        return np.zeros(len(hashes), dtype=np.bool_), np.empty((len(hashes), 0), dtype=np.float32)
    there = cache.store.look_up(model, distinct)
    row_of = {key: row for row, key in enumerate(distinct)}
    rows = np.array([0 if key is None else row_of[key] for key in hashes], dtype=np.intp)
    known = np.array([key is not None for key in hashes], dtype=np.bool_)
    return there.found[rows] & known, there.vectors[rows]


def _without_texts(cache: EmbeddingCache, collection: str | None, model_name: str | None) -> Documents:
    """Read the documents of a cache that has no texts of them."""
    if model_name is None:
        names = list(dict.fromkeys(model.model_name for model in cache.models() if model.n_documents))
        if len(names) > 1:
            raise InvalidInputError(f"documents of several models are stored; say which by model_name: {names}")
        if not names:
            return Documents("", [], [], [], np.empty((0, 0), dtype=np.float32))
        (model_name,) = names
    doc_ids, vectors = cache.matrix(model_name, collection=collection)
    return Documents(model_name, doc_ids, [None] * len(doc_ids), [{} for _ in doc_ids], vectors)
