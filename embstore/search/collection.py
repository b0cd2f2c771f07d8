"""Chroma collections: opened with the identity of their model, and read and written in pages."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from embstore.codec import Vectors, as_vectors, blob_to_vector
from embstore.errors import CollectionMismatchError, EmbstoreError, MissingExtraError, SearchIndexError
from embstore.identity import ModelIdentity
from embstore.search.base import Where, check_same_identity

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection

MODEL_NAME_KEY = "embstore:model_name"
SETTINGS_KEY = "embstore:settings"
CANARY_KEY = "embstore:canary"
TRUNCATE_KEY = "embstore:truncate_dim"
SPACE: Final = "cosine"
# Chroma's own 16 and 100 lose one relevant document of SciFact in every third index (`python -m benchmarks.quality`);
# these cost 8 % more time to build.
_HNSW: Any = {"space": SPACE, "max_neighbors": 24, "ef_construction": 200}

PAGE = 1024  # records; larger pages are not faster
PAGE_BYTES = 2**25  # a server takes requests of 40 MiB, and there are metadata too


def import_chromadb() -> Any:
    """Import chromadb.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import chromadb
    except ImportError as error:
        raise MissingExtraError("chromadb", "chroma", "semantic search") from error
    return chromadb


def open_client(folder: Path) -> Client:
    """Open a client on a folder, always with the same settings: Chroma refuses two kinds in a process.

    Raises
    ------
    SearchIndexError
        The folder holds no database of Chroma's, or another client has it open in this process.
    """
    chromadb = import_chromadb()
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    with chroma_errors(f"open the library folder {str(folder)!r}"):
        return cast("Client", chromadb.PersistentClient(folder, settings=settings))


@contextmanager
def chroma_errors(doing: str) -> Iterator[None]:
    """Make a SearchIndexError of whatever Chroma raises."""
    try:
        yield
    except EmbstoreError:
        raise
    except Exception as error:
        raise SearchIndexError(f"Chroma could not {doing}: {type(error).__name__}: {error}") from error


def get_collection(client: ClientAPI, name: str) -> Collection:
    """Get a collection that is there, as it is now: handles keep what was true when they were made."""
    # Without an embedding function: the default one downloads a model.
    return client.get_collection(name, embedding_function=None)


def find_collection(client: ClientAPI, name: str) -> Collection | None:
    """Get a collection where it is there."""
    try:
        return get_collection(client, name)
    except import_chromadb().errors.NotFoundError:
        return None


def open_collection(
    client: ClientAPI, name: str, identity: ModelIdentity, truncate_dim: int | None = None
) -> Collection:
    """Open a collection that knows the model of its vectors and their length, which need not be those that are named.

    Parameters
    ----------
    client : chromadb client
    name : str
        Created where it is missing.
    identity : ModelIdentity
        Noted where the collection holds nothing yet.
    truncate_dim : int, optional
        How many leading values it is to hold of each vector. Noted with the model, and, as long as nothing was ever
        written to the collection, anew.

    Raises
    ------
    CollectionMismatchError
        The collection was not made by embstore, or does not measure by cosine.
    """
    collection = find_collection(client, name) or _create(client, name, identity, truncate_dim)
    space = _space(collection)
    if space != SPACE:
        raise CollectionMismatchError(
            f"collection {name!r} measures by {space!r}, not by {SPACE!r}; use another collection_name=",
            collection_name=name,
            space=space,
        )
    noted = noted_identity(collection)
    if noted is not None:
        is_new = noted == identity and collection.get_model().dimension is None
        if noted_truncation(collection) == truncate_dim or not is_new:
            return collection
    elif collection.count():
        raise CollectionMismatchError(
            f"collection {name!r} was not made by embstore, and it holds records whose model is not known; "
            f"use another collection_name=",
            collection_name=name,
        )
    others = {key: value for key, value in other_metadata(collection).items() if key != TRUNCATE_KEY}
    collection.modify(metadata={**others, **_identity_metadata(identity, truncate_dim)})
    return get_collection(client, name)


def check_made_for(collection: Collection, identity: ModelIdentity, truncate_dim: int | None) -> None:
    """Raise CollectionMismatchError where a collection is of another model, or of vectors of another length."""
    check_same_identity(collection.name, stored=noted_identity(collection), given=identity)
    noted = noted_truncation(collection)
    if noted != truncate_dim:
        raise CollectionMismatchError(
            f"collection {collection.name!r} holds vectors with truncate_dim={noted}, and truncate_dim={truncate_dim} "
            f"is asked for; use truncate_dim={noted}, or another collection_name=, for which no text is encoded again "
            f"that is cached",
            collection_name=collection.name,
            stored=noted,
            given=truncate_dim,
        )


def noted_identity(collection: Collection) -> ModelIdentity | None:
    """Tell which model the vectors of a collection are of; None where embstore did not make it."""
    metadata: Mapping[str, Any] = collection.metadata or {}
    if MODEL_NAME_KEY in metadata and SETTINGS_KEY in metadata:
        return ModelIdentity(metadata[MODEL_NAME_KEY], metadata[SETTINGS_KEY])
    return None


def noted_truncation(collection: Collection) -> int | None:
    """Tell how many leading values of each vector a collection holds; None where it holds all."""
    truncate_dim: int | None = (collection.metadata or {}).get(TRUNCATE_KEY)
    return truncate_dim


def are_alike(one: Collection, other: Collection) -> bool:
    """Tell whether two collections hold vectors of one model and one length, so that records can go from one to other.

    Collections that embstore did not make are alike.
    """
    return (noted_identity(one), noted_truncation(one)) == (noted_identity(other), noted_truncation(other))


def note_identity(collection: Collection, identity: ModelIdentity) -> None:
    """Note another model and keep the other keys, which `modify` would replace."""
    collection.modify(metadata={**other_metadata(collection), **_identity_metadata(identity)})


def noted_canary(collection: Collection) -> Vectors | None:
    """Read the canary of the model that filled a collection; None where none is noted, or none that can be read."""
    try:
        return blob_to_vector(base64.b64decode((collection.metadata or {})[CANARY_KEY], validate=True))
    except (KeyError, TypeError, ValueError):
        return None


def note_canary(collection: Collection, canary: Vectors) -> None:
    """Note the canary of the model and keep the other keys."""
    noted = base64.b64encode(as_vectors(canary).tobytes()).decode("ascii")
    collection.modify(metadata={**other_metadata(collection), CANARY_KEY: noted})


def other_metadata(collection: Collection) -> dict[str, Any]:
    """Give what a collection's metadata say besides its space, which Chroma takes no second time."""
    return {key: value for key, value in (collection.metadata or {}).items() if key != "hnsw:space"}


def record_pages(
    collection: Collection, include: Sequence[str], where: Where | None = None, *, n: int = PAGE
) -> Iterator[Any]:
    """Read what a collection holds, n records at a time; it fails where it is to give more than 32,766 at once."""
    offset = 0
    while True:
        page: Any = collection.get(where=cast(Any, where), limit=n, offset=offset, include=cast(Any, include))
        if page["ids"]:
            yield page
        if len(page["ids"]) < n:
            return
        offset += n


def write_slices(texts: Sequence[str | None], dim: int, n: int) -> Iterator[slice]:
    """Cut records with vectors of `dim` values into pages of n at most, and small enough for a server."""
    start = n_bytes = 0
    for row, text in enumerate(texts):
        size = 4 * len(text or "") + 6 * dim  # as UTF-8 and as base64 at most
        if row > start and (row - start == n or n_bytes + size > PAGE_BYTES):
            yield slice(start, row)
            start, n_bytes = row, 0
        n_bytes += size
    if texts:
        yield slice(start, len(texts))


def _create(client: ClientAPI, name: str, identity: ModelIdentity, truncate_dim: int | None) -> Collection:
    client.get_or_create_collection(
        name,
        embedding_function=None,
        configuration={"hnsw": _HNSW},
        metadata=_identity_metadata(identity, truncate_dim),
    )
    return get_collection(client, name)  # where another process was faster, its collection and not ours


def _space(collection: Collection) -> str | None:
    """How a collection measures; read from the JSON, since the parsed form may build an embedding function."""
    configuration = collection.configuration_json
    index = configuration.get("hnsw") or configuration.get("spann") or {}
    space: str | None = index.get("space")
    return space


def _identity_metadata(identity: ModelIdentity, truncate_dim: int | None = None) -> dict[str, Any]:
    noted: dict[str, Any] = {MODEL_NAME_KEY: identity.model_name, SETTINGS_KEY: identity.settings_json}
    return noted if truncate_dim is None else {**noted, TRUNCATE_KEY: truncate_dim}
