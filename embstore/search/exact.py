"""The index that needs no second database: texts and metadata beside the vectors, every vector compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np

from embstore.canary import check_same_model
from embstore.codec import Vectors, as_vectors
from embstore.errors import DamagedStoreError, DimensionError, UnknownModelError
from embstore.formats import rounded
from embstore.identity import ModelIdentity
from embstore.search.base import (
    Document,
    IndexRecord,
    MetadataPatch,
    SearchHit,
    StoredDocument,
    VectorSource,
    Where,
    check_same_identity,
)
from embstore.search.exact_records import metadata_of, patched, record_of, stored_text
from embstore.search.filters import compile_filter
from embstore.search.loading import PAGE, LoadedCollection, lost_vectors
from embstore.search.matrix import DocumentMatrix
from embstore.stores.base import Store, VectorLookup
from embstore.stores.texts import StoredText


class ExactIndex:
    """A `VectorIndex` whose texts and metadata are in the file that the vectors are in.

    A search compares the query with every vector of the collection, so that what it finds is exact. The vectors are
    read into memory at the first search, 4 * dim (or truncate_dim) bytes a document, and what any process changed since
    is read at the next one. Several processes may use the file at once. Every write is atomic.

    Parameters
    ----------
    store : Store
        Not closed by the index.
    collection_name : str
        Created by the first write where it is missing.
    identity : ModelIdentity
        The model of the document vectors.
    truncate_dim : int, optional
        Compare that many leading values of the vectors, scaled to length 1: see `embstore.truncation`. The file and
        the records have whole vectors, so that indexes of one collection may differ in this.

    Raises
    ------
    CollectionMismatchError
        The collection is of another model.
    DimensionError
        The model's vectors are stored, and have fewer values than `truncate_dim`.
    StoreError
        The file cannot be read.
    """

    def __init__(
        self, store: Store, collection_name: str, identity: ModelIdentity, truncate_dim: int | None = None
    ) -> None:
        self.name = collection_name
        self._store = store
        self._canary: Vectors | None = None
        self._collection = LoadedCollection(store, collection_name, identity, truncate_dim)
        self.check_identity(identity)
        dim = self._collection.stored_dim()
        if dim is not None:
            self._collection.check_dim(dim)

    @property
    def identity(self) -> ModelIdentity:
        """The model whose document vectors the collection has, in whatever format these are stored."""
        return self._collection.current().identity.stored_as("float32")

    def check_identity(self, identity: ModelIdentity) -> None:
        """Raise CollectionMismatchError where the collection is of another model."""
        check_same_identity(self.name, stored=self.identity, given=identity)

    def canary(self) -> Vectors | None:
        """Read the one that is stored with the model. See `VectorIndex.canary`."""
        model = self._store.find_model(self._collection.current().identity)
        return None if model is None else model.canary

    def is_filled(self) -> bool:
        """Say yes: a model is stored with its vectors, in whatever collections. See `VectorIndex.is_filled`."""
        return True

    def note_canary(self, canary: Vectors) -> None:
        """Keep it for the first write, with which a new model is stored. See `VectorIndex.note_canary`."""
        self._canary = canary

    def stored(self, doc_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Tell what it holds of distinct doc_ids. See `VectorIndex.stored`.

        A damaged document, and one whose vector is not stored or not recorded as its own, has the hash "", so that it
        is indexed anew.
        """
        with self._store.reading():
            texts = self._store.texts.find(self.name, doc_ids)
            sound = {doc_id: text for doc_id, text in texts.items() if text is not None}
            whole = self._collection.whole(list(sound.values()))
        stored = dict.fromkeys(texts, StoredDocument("", {}))
        for text, is_whole in zip(sound.values(), whole.tolist(), strict=True):
            stored[text.doc_id] = StoredDocument(text.content_hash.hex() if is_whole else "", metadata_of(text))
        return stored

    def add(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents, and the vectors that are not stored. See `VectorIndex.add`.

        Raises
        ------
        DimensionError, StoreError
        """
        self.put(
            [
                IndexRecord(document.doc_id, document.text, document.content_hash, document.metadata, vector)
                for document, vector in zip(documents, vectors, strict=True)
            ]
        )

    def replace(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents in the place of those under their ids. See `VectorIndex.replace`.

        Raises
        ------
        DimensionError, StoreError
        """
        self.add(documents, vectors)

    def put(self, records: Sequence[IndexRecord]) -> None:
        """Write records, and the vectors that are not stored, in one transaction. See `VectorIndex.put`.

        Raises
        ------
        DimensionError, StoreError
        """
        if not records:
            return
        texts = [stored_text(record) for record in records]
        row_of = {text.content_hash: row for row, text in enumerate(texts)}
        vectors = as_vectors(cast("list[Vectors]", [records[row].vector for row in row_of.values()]))
        self._collection.check_dim(vectors.shape[1])
        self._store.write(partial(self._put, texts, row_of, vectors))

    def update_metadata(self, patches: Mapping[str, MetadataPatch]) -> None:
        """Set and remove keys, all in one transaction. See `VectorIndex.update_metadata`.

        Raises
        ------
        DamagedStoreError, StoreError
        """
        if not patches:
            return

        def patch() -> None:
            found = self._store.texts.find(self.name, list(patches))
            texts = [patched(self._sound(doc_id, text), patches[doc_id]) for doc_id, text in found.items()]
            self._store.texts.put(self.name, texts)

        self._store.write(patch)

    def delete(self, doc_ids: Sequence[str]) -> int:
        """Remove documents, not their vectors, and tell how many were there. See `VectorIndex.delete`."""
        return self._store.texts.delete(self.name, list(dict.fromkeys(doc_ids)))

    def query(self, vector: Vectors, n_results: int, where: Where | None = None) -> list[SearchHit]:
        """Find the nearest documents; of those equally near, lower ids come first. See `VectorIndex.query`.

        Raises
        ------
        SearchIndexError
            A document of the collection has no vector, also where the filter would leave it out.
        DimensionError, InvalidInputError, StoreError
        """
        lets_through = None if where is None else compile_filter(where)
        with self._collection.matrix() as matrix:
            dim = self._whole_dim(matrix)
            if len(matrix.doc_ids) and dim != len(vector):
                raise DimensionError(
                    f"collection {self.name!r} holds vectors of {dim} values, and model "
                    f"{self.identity.model_name!r} gave {len(vector)}; it is not the model that filled the collection",
                    collection_name=self.name,
                )
            nearest = matrix.nearest(self._collection.cut(vector[np.newaxis])[0], n_results, lets_through)
            text_ids = matrix.text_ids[[row for row, _ in nearest]]
            texts = self._collection.read(np.sort(text_ids))
        ordered = [texts[text_id] for text_id in text_ids.tolist()]
        return [
            SearchHit(text.doc_id, text.text, metadata_of(text), score)
            for text, (_, score) in zip(ordered, nearest, strict=True)
        ]

    def rename_model(self, model_name: str) -> None:
        """Give the model another name, in all collections of the file and in the cache, in one transaction.

        Raises
        ------
        ModelExistsError, StoreError
        """

        def rename() -> None:
            old = self.identity.model_name
            if old != model_name:
                try:
                    self._store.rename_model(old, model_name)
                except UnknownModelError:  # no vector is stored
                    self._store.texts.rename_model(old, model_name)

        self._store.write(rename)
        self._collection.identity = self._collection.identity.renamed(model_name)

    def count(self) -> int:
        """Count the documents. See `VectorIndex.count`."""
        return self._collection.current().n_texts

    def doc_ids(self, where: Where | None = None) -> Iterator[list[str]]:
        """List ids in pages; what is written meanwhile can be left out. See `VectorIndex.doc_ids`."""
        lets_through = None if where is None else compile_filter(where)
        for page in self._collection.pages():
            yield [text.doc_id for text in page if lets_through is None or lets_through(metadata_of(text))]

    def records(self, doc_ids: Sequence[str] | None = None) -> Iterator[list[IndexRecord]]:
        """Read records in pages; what is written meanwhile can be left out. See `VectorIndex.records`.

        Raises
        ------
        DamagedStoreError
            A text is damaged. A vector that is damaged or not stored is None.
        """
        for page, there in self._collection.pages_with_vectors() if doc_ids is None else self._pages_of(doc_ids):
            yield [
                record_of(text, vector if found else None)
                for text, found, vector in zip(page, there.found.tolist(), there.vectors, strict=True)
            ]

    def unreachable(self) -> list[str]:
        """List the documents whose vectors are not stored, and for whom every search fails."""
        return [doc_id for page in self.records() for doc_id in self.not_found(page)]

    def not_found(self, records: Sequence[IndexRecord]) -> list[str]:
        """List the records without a vector: all others are compared. See `VectorIndex.not_found`."""
        return [record.doc_id for record in records if record.vector is None]

    def mend(self, source: VectorSource) -> int:
        """Give 0: a vector that is lost is in no other place. See `VectorIndex.mend`.

        Raises
        ------
        SearchIndexError
            A document of the collection has no vector.
        """
        lost = self.unreachable()
        if lost:
            raise lost_vectors(self.name, lost)
        return 0

    def _put(self, texts: Sequence[StoredText], row_of: Mapping[bytes, int], vectors: Vectors) -> None:
        identity, keys, rows = self._collection.identity, list(row_of), list(row_of.values())
        variant = self._store.ensure_variant(identity, vectors.shape[1], self._canary).identity
        stored = self._store.texts.ensure_collection(self.name, variant).identity
        check_same_identity(self.name, stored=stored.stored_as("float32"), given=identity)
        model = self._store.ensure_model(stored, vectors.shape[1], self._canary)
        vectors = rounded(vectors, model.dtype, lambda row: f"the vector of doc_id {texts[rows[row]].doc_id!r:.80}")
        if self._canary is not None and model.canary is not None:  # another process may have stored it since
            check_same_model(identity, model.canary, self._canary)
        there = self._store.look_up(model, keys)
        new = np.flatnonzero(~there.found | (there.vectors != vectors).any(axis=1))
        self._store.replace_vectors(model, [keys[row] for row in new.tolist()], vectors[new], standalone=False)
        # Vectors that a document points at are not pruned.
        hashes = [text.content_hash for text in texts]
        self._store.put_documents(model, self.name, [text.doc_id for text in texts], hashes)
        self._store.texts.put(self.name, texts)

    def _whole_dim(self, matrix: DocumentMatrix) -> int:
        """Tell how many values the vectors have of which a matrix has perhaps the leading ones."""
        dim = None if self._collection.truncate_dim is None else self._collection.stored_dim()
        return matrix.dim if dim is None else dim

    def _pages_of(self, doc_ids: Sequence[str]) -> Iterator[tuple[list[StoredText], VectorLookup]]:
        for start in range(0, len(doc_ids), PAGE):
            with self._store.reading():
                found = self._store.texts.find(self.name, doc_ids[start : start + PAGE])
                page = [self._sound(doc_id, text) for doc_id, text in found.items()]
                there = self._collection.look_up([text.content_hash for text in page])
            yield page, there

    def _sound(self, doc_id: str, text: StoredText | None) -> StoredText:
        if text is None:
            raise DamagedStoreError(
                f"doc_id {doc_id!r:.80} of collection {self.name!r} is damaged in {self._store.location!r}; index it "
                f"again",
                path=self._store.location,
                doc_id=doc_id,
            )
        return text
