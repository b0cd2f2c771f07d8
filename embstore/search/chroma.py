"""The index that is a Chroma collection, and what Chroma 1.5 asks of those who use it safely."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from embstore.codec import Vectors, as_vectors, blob_to_vector
from embstore.encoders import without_surrogates
from embstore.errors import CollectionMismatchError, DimensionError
from embstore.identity import ModelIdentity
from embstore.search.base import HASH_KEY, Document, Metadata, MetadataPatch, SearchHit, StoredDocument, Where
from embstore.search.chroma_client import chroma_errors, import_chromadb

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

MODEL_NAME_KEY = "embstore:model_name"
SETTINGS_KEY = "embstore:settings"
CANARY_KEY = "embstore:canary"
SPACE: Final = "cosine"

_PAGE = 1024  # records; larger pages are not faster
_PAGE_BYTES = 2**25  # a server takes requests of 40 MiB, and there are metadata too
_MOST_RESULTS = 2**31 - 1  # Chroma counts in 32 bits


class ChromaIndex:
    """A `VectorIndex` that is a Chroma collection.

    Each record keeps the content hash of its text under `HASH_KEY`, and the collection's metadata keeps the identity
    of the model; nothing is kept elsewhere. Writes are in batches, each of them atomic.

    Parameters
    ----------
    client : chromadb client
        Not closed by the index.
    collection_name : str
        Created where it is missing.
    identity : ModelIdentity
        The model of the document vectors.

    Raises
    ------
    CollectionMismatchError
        The collection holds vectors of another model, was not made by embstore, or does not measure by cosine.
    SearchIndexError
        Chroma raised.
    """

    def __init__(self, client: ClientAPI, collection_name: str, identity: ModelIdentity) -> None:
        self._client = client
        self.name = collection_name
        self._dim: int | None = None
        with self._errors("open"):
            self.collection = self._open(identity)
            self._page = min(client.get_max_batch_size(), _PAGE)
        self.check_identity(identity)

    @property
    def identity(self) -> ModelIdentity:
        """The model whose document vectors the collection holds."""
        metadata = self.collection.metadata
        return ModelIdentity(metadata[MODEL_NAME_KEY], metadata[SETTINGS_KEY])

    def check_identity(self, identity: ModelIdentity) -> None:
        """Raise CollectionMismatchError where the collection holds the vectors of another model."""
        if identity != self.identity:
            raise CollectionMismatchError(
                f"collection {self.name!r} holds vectors of the model {str(self.identity)!r}, not of "
                f"{str(identity)!r}; use another collection_name=, or that model",
                collection_name=self.name,
                stored=self.identity,
                given=identity,
            )

    def canary(self) -> Vectors | None:
        """Read it from the collection's metadata; None also where it cannot be read. See `VectorIndex.canary`."""
        try:
            return blob_to_vector(base64.b64decode(self.collection.metadata[CANARY_KEY], validate=True))
        except (KeyError, TypeError, ValueError):
            return None

    def note_canary(self, canary: Vectors) -> None:
        """Write it into the collection's metadata. See `VectorIndex.note_canary`."""
        noted = base64.b64encode(as_vectors(canary).tobytes()).decode("ascii")
        with self._errors("note the model of"):
            collection = self._get()
            collection.modify(metadata={**_other_metadata(collection), CANARY_KEY: noted})
            self.collection = self._get()

    def count(self) -> int:
        """Count the records. See `VectorIndex.count`."""
        with self._errors("read"):
            return self.collection.count()

    def stored(self, doc_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read the hashes and metadata of distinct doc_ids. See `VectorIndex.stored`."""
        found: dict[str, StoredDocument] = {}
        for page in self._pages(doc_ids):
            with self._errors("read"):
                records = self.collection.get(ids=page, include=["metadatas"])
            for doc_id, record in zip(records["ids"], records["metadatas"] or (), strict=True):
                found[doc_id] = _stored_document(record)
        return found

    def add(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Add documents whose ids are new. See `VectorIndex.add`.

        Raises
        ------
        DimensionError, SearchIndexError
        """
        self._check_dim(vectors)
        self._write(documents, vectors, replace=False)

    def replace(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Delete documents and add what they are now. See `VectorIndex.replace`.

        A crash between the two loses no more than a batch, whose documents are then new to the next call.
        Upserts would be slower, and leave other records out of reach of a search.

        Raises
        ------
        DimensionError, SearchIndexError
        """
        self._check_dim(vectors)
        self._write(documents, vectors, replace=True)

    def update_metadata(self, patches: Mapping[str, MetadataPatch]) -> None:
        """Set and remove keys; Chroma merges, and None removes. See `VectorIndex.update_metadata`."""
        for page in self._pages(list(patches)):
            with self._errors("update"):
                self.collection.update(ids=page, metadatas=cast(Any, [patches[doc_id] for doc_id in page]))

    def delete(self, doc_ids: Sequence[str]) -> int:
        """Remove documents and tell how many were there. See `VectorIndex.delete`."""
        n_deleted = 0
        for page in self._pages(list(dict.fromkeys(doc_ids))):
            with self._errors("delete from"):
                there = self.collection.get(ids=page, include=[])["ids"]
                if there:
                    self.collection.delete(ids=there)
            n_deleted += len(there)
        return n_deleted

    def query(self, vector: Vectors, n_results: int, where: Where | None = None) -> list[SearchHit]:
        """Find the nearest documents. See `VectorIndex.query`."""
        self._check_dim(vector[np.newaxis])
        with self._errors("search"):
            results: Any = self.collection.query(
                query_embeddings=vector[np.newaxis],
                n_results=min(n_results, _MOST_RESULTS),
                where=cast(Any, where),
                include=["documents", "metadatas", "distances"],
            )
        columns = (results[name][0] for name in ("ids", "documents", "metadatas", "distances"))
        return [
            SearchHit(doc_id, document or "", _stored_document(record).metadata, 1.0 - distance)
            for doc_id, document, record, distance in zip(*columns, strict=True)
        ]

    def rename_model(self, model_name: str) -> None:
        """Write another model name into the collection's metadata, in one step."""
        renamed = self.identity.renamed(model_name)
        if renamed != self.identity:
            with self._errors("rename the model of"):
                _write_identity(self._get(), renamed)
                self.collection = self._get()

    def _open(self, identity: ModelIdentity) -> Collection:
        collection = self._get_or_create(identity)
        space = _space(collection)
        if space != SPACE:
            raise CollectionMismatchError(
                f"collection {self.name!r} measures by {space!r}, not by {SPACE!r}; use another collection_name=",
                collection_name=self.name,
                space=space,
            )
        if {MODEL_NAME_KEY, SETTINGS_KEY} <= (collection.metadata or {}).keys():
            return collection
        if collection.count():
            raise CollectionMismatchError(
                f"collection {self.name!r} was not made by embstore, and it holds records whose model is not known; "
                f"use another collection_name=",
                collection_name=self.name,
            )
        _write_identity(collection, identity)
        return self._get()

    def _get(self) -> Collection:
        # Without an embedding function: the default one downloads a model.
        return self._client.get_collection(self.name, embedding_function=None)

    def _get_or_create(self, identity: ModelIdentity) -> Collection:
        try:
            return self._get()
        except import_chromadb().errors.NotFoundError:
            self._client.get_or_create_collection(
                self.name,
                embedding_function=None,
                configuration={"hnsw": {"space": SPACE}},
                metadata=_identity_metadata(identity),
            )
        return self._get()  # where another process was faster, its collection and not ours

    def _write(self, documents: Sequence[Document], vectors: Vectors, *, replace: bool) -> None:
        for rows in self._slices(documents, vectors.shape[1]):
            page = documents[rows]
            ids = [document.doc_id for document in page]
            with self._errors("replace documents of" if replace else "add to"):
                if replace:
                    self.collection.delete(ids=ids)
                self.collection.add(
                    ids=ids,
                    embeddings=cast(Any, vectors[rows]),
                    documents=[without_surrogates(document.text) for document in page],
                    metadatas=cast(Any, [{**document.metadata, HASH_KEY: document.content_hash} for document in page]),
                )
            self._dim = vectors.shape[1]

    def _slices(self, documents: Sequence[Document], dim: int) -> Iterator[slice]:
        """Cut documents into pages that also a server takes."""
        start = n_bytes = 0
        for row, document in enumerate(documents):
            size = 4 * len(document.text) + 6 * dim  # as UTF-8 and as base64 at most
            if row > start and (row - start == self._page or n_bytes + size > _PAGE_BYTES):
                yield slice(start, row)
                start, n_bytes = row, 0
            n_bytes += size
        if documents:
            yield slice(start, len(documents))

    def _check_dim(self, vectors: Vectors) -> None:
        """Refuse vectors that Chroma would refuse, before anything was deleted for them."""
        if self._dim is None:
            with self._errors("read"):
                rows = self.collection.get(limit=1, include=["embeddings"])["embeddings"]
            self._dim = len(rows[0]) if rows is not None and len(rows) else None
        if self._dim is not None and vectors.shape[1] != self._dim:
            raise DimensionError(
                f"collection {self.name!r} holds vectors of {self._dim} values, and model "
                f"{self.identity.model_name!r} gave {vectors.shape[1]}; it is not the model that filled the collection",
                collection_name=self.name,
            )

    def _pages(self, doc_ids: Sequence[str]) -> Iterator[list[str]]:
        return (list(doc_ids[i : i + self._page]) for i in range(0, len(doc_ids), self._page))

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return chroma_errors(f"{doing} the collection {self.name!r}")


def _space(collection: Collection) -> str | None:
    """How a collection measures; read from the JSON, since the parsed form may build an embedding function."""
    configuration = collection.configuration_json
    index = configuration.get("hnsw") or configuration.get("spann") or {}
    space: str | None = index.get("space")
    return space


def _identity_metadata(identity: ModelIdentity) -> dict[str, Any]:
    return {MODEL_NAME_KEY: identity.model_name, SETTINGS_KEY: identity.settings_json}


def _write_identity(collection: Collection, identity: ModelIdentity) -> None:
    """Note the model and keep the other keys, which `modify` would replace."""
    collection.modify(metadata={**_other_metadata(collection), **_identity_metadata(identity)})


def _other_metadata(collection: Collection) -> dict[str, Any]:
    return {key: value for key, value in (collection.metadata or {}).items() if key != "hnsw:space"}


def _stored_document(record: Mapping[str, Any] | None) -> StoredDocument:
    metadata: Metadata = dict(record or {})
    content_hash = metadata.pop(HASH_KEY, None)
    return StoredDocument(content_hash if isinstance(content_hash, str) else None, metadata)
