"""The index that is a Chroma collection, and what Chroma 1.5 asks of those who use it safely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embstore.codec import Vectors
from embstore.errors import DimensionError, SearchIndexError
from embstore.identity import ModelIdentity
from embstore.search.base import (
    Document,
    IndexRecord,
    MetadataPatch,
    SearchHit,
    StoredDocument,
    VectorSource,
    Where,
)
from embstore.search.chroma_records import as_records, batch_of, matrix_of, records_of, stored_document
from embstore.search.collection import (
    PAGE,
    check_made_for,
    chroma_errors,
    get_collection,
    import_chromadb,
    note_canary,
    note_identity,
    noted_canary,
    noted_identity,
    open_collection,
    record_pages,
    write_slices,
)
from embstore.search.lock import LibraryHandle
from embstore.search.reach import missed_ids, readable_vectors, unreachable_ids
from embstore.search.repair import finish_swap, mend
from embstore.search.replacing import finish_replacing, put_anew

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_TEXTS: Any = ["documents", "metadatas"]
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
    library : LibraryHandle, optional
        Told where Chroma fails in itself, after which searches may miss what was written before, and where that is
        mended.
    truncate_dim : int, optional
        To how many leading values the vectors are cut that it is given; noted in a new collection.

    Raises
    ------
    CollectionMismatchError
        The collection is of another model or `truncate_dim`, was not made by embstore, or does not measure by cosine.
    SearchIndexError
        Chroma raised.
    """

    def __init__(
        self,
        client: ClientAPI,
        collection_name: str,
        identity: ModelIdentity,
        library: LibraryHandle | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        self._client = client
        self.name = collection_name
        self._library, self._truncate_dim = library, truncate_dim
        self._failure = ""
        self._dim: int | None = None
        with self._errors("open"):
            finish_swap(client, collection_name)
            self.collection = open_collection(client, collection_name, identity, truncate_dim)
            self._page = min(client.get_max_batch_size(), PAGE)
            self._finish_replacing()
        self.check_identity(identity)

    @property
    def identity(self) -> ModelIdentity:
        """The model whose document vectors the collection holds."""
        return cast(ModelIdentity, noted_identity(self.collection))

    def check_identity(self, identity: ModelIdentity) -> None:
        """Raise CollectionMismatchError where the collection holds vectors of another model or length.

        The collection is looked up by its name: another engine may have renamed its model, or built it anew.
        """
        with self._errors("open"):
            self.collection = self._get()
        check_made_for(self.collection, identity, self._truncate_dim)

    def canary(self) -> Vectors | None:
        """Read it from the collection's metadata. See `VectorIndex.canary`."""
        return noted_canary(self.collection)

    def is_filled(self) -> bool:
        """Count the records. See `VectorIndex.is_filled`."""
        return self.count() > 0

    def note_canary(self, canary: Vectors) -> None:
        """Write it into the collection's metadata. See `VectorIndex.note_canary`."""
        with self._errors("note the model of"):
            note_canary(self._get(), canary)
            self.collection = self._get()

    def stored(self, doc_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read the hashes and metadata of distinct doc_ids. See `VectorIndex.stored`."""
        found: dict[str, StoredDocument] = {}
        for page in self._pages(doc_ids):
            with self._errors("read"):
                records = self.collection.get(ids=page, include=["metadatas"])
            for doc_id, record in zip(records["ids"], records["metadatas"] or (), strict=True):
                found[doc_id] = stored_document(record)
        return found

    def add(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Add documents whose ids are new. See `VectorIndex.add`.

        Raises
        ------
        DimensionError, SearchIndexError
        """
        self._check_dim(vectors)
        self._write(records_of(documents, vectors), "add to", lambda batch: self.collection.add(**batch))

    def replace(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Delete documents and add what they are now. See `VectorIndex.replace`.

        A crash between the two loses no more than a batch, whose documents are then new to the next call.
        Upserts would be slower, and leave other records out of reach of a search.

        Raises
        ------
        DimensionError, SearchIndexError
        """
        self._check_dim(vectors)
        self._write(records_of(documents, vectors), "replace documents of", self._replace)

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
            SearchHit(doc_id, document or "", stored_document(record).metadata, 1.0 - distance)
            for doc_id, document, record, distance in zip(*columns, strict=True)
        ]

    def rename_model(self, model_name: str) -> None:
        """Write another model name into the collection's metadata, in one step."""
        renamed = self.identity.renamed(model_name)
        if renamed != self.identity:
            with self._errors("rename the model of"):
                note_identity(self._get(), renamed)
                self.collection = self._get()

    def count(self) -> int:
        """Count the records. See `VectorIndex.count`."""
        with self._errors("count"):
            return self.collection.count()

    def doc_ids(self, where: Where | None = None) -> Iterator[list[str]]:
        """List ids in pages; what is removed meanwhile shifts those to come. See `VectorIndex.doc_ids`."""
        with self._errors("read"):
            for page in record_pages(self.collection, [], where, n=self._page):
                yield page["ids"]

    def records(self, doc_ids: Sequence[str] | None = None) -> Iterator[list[IndexRecord]]:
        """Read records in pages; what is written meanwhile shifts those to come. See `VectorIndex.records`."""
        with self._errors("read"):
            if doc_ids is None:
                pages = record_pages(self.collection, _TEXTS, n=self._page)
            else:
                pages = (self.collection.get(ids=page, include=_TEXTS) for page in self._pages(doc_ids))
            for page in pages:
                yield as_records(page, readable_vectors(self.collection, page["ids"]))

    def put(self, records: Sequence[IndexRecord]) -> None:
        """Put records in the place of those with their ids; a crash meanwhile loses none. See `VectorIndex.put`."""
        self._write(records, "put records into", lambda batch: put_anew(self._client, self.name, batch))

    def unreachable(self) -> list[str]:
        """List what a search for all records does not give. See `VectorIndex.unreachable`."""
        with self._errors("check"):
            return unreachable_ids(self._get())

    def not_found(self, records: Sequence[IndexRecord]) -> list[str]:
        """Search by the vector of each record for it or others with the same. See `VectorIndex.not_found`."""
        searched = [record for record in records if record.vector is not None]
        lost = [record.doc_id for record in records if record.vector is None]
        with self._errors("check"):
            return lost + missed_ids(self.collection, [record.doc_id for record in searched], matrix_of(searched))

    def mend(self, source: VectorSource) -> int:
        """Put a few lost records anew, or build a new collection where many are. See `VectorIndex.mend`."""
        with self._errors("mend"):
            n_mended = mend(self._client, self.name, source, self._failure)
            self.collection, self._failure = self._get(), ""
        if self._library is not None:
            self._library.settle(self.name)
        return n_mended

    def _get(self) -> Collection:
        return get_collection(self._client, self.name)

    def _finish_replacing(self) -> None:
        """Finish what a crash interrupted, unless the collection is to be mended, which does that too."""
        if self._library is not None and self._library.is_suspect(self.name):
            return
        finish_replacing(self._client, self.name)

    def _replace(self, batch: dict[str, Any]) -> None:
        self.collection.delete(ids=batch["ids"])
        self.collection.add(**batch)

    def _write(self, records: Sequence[IndexRecord], doing: str, write: Callable[[dict[str, Any]], None]) -> None:
        """Write records in batches, each as ``Collection.add`` takes it."""
        if not records:
            return
        matrix = matrix_of(records)
        for rows in write_slices([record.document for record in records], matrix.shape[1], self._page):
            with self._errors(doing):
                write(batch_of(records[rows], matrix[rows]))
            self._dim = matrix.shape[1]

    def _check_dim(self, vectors: Vectors) -> None:
        """Refuse vectors that Chroma would refuse, before anything was deleted for them."""
        if self._dim is None:
            with self._errors("read"):
                self._dim = self._get().get_model().dimension
        if self._dim is not None and vectors.shape[1] != self._dim:
            raise DimensionError(
                f"collection {self.name!r} holds vectors of {self._dim} values, and model "
                f"{self.identity.model_name!r} gave {vectors.shape[1]}; it is not the model that filled the collection",
                collection_name=self.name,
            )

    def _pages(self, doc_ids: Sequence[str]) -> Iterator[list[str]]:
        return (list(doc_ids[i : i + self._page]) for i in range(0, len(doc_ids), self._page))

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            with chroma_errors(f"{doing} the collection {self.name!r}"):
                yield
        except SearchIndexError as error:
            errors = import_chromadb().errors
            if isinstance(error.__cause__, errors.NotFoundError):
                error.message += "; it was deleted or built anew meanwhile; open the engine anew"
            elif isinstance(error.__cause__, errors.InternalError):
                self._failure, cure = str(error.__cause__), "reconcile(repair=True)"
                if self._library is not None:
                    self._library.suspect(self.name)
                    cure = f"open the engine anew by path=, or {cure}"
                error.message += f"; to have the index mended, {cure}"
            raise
