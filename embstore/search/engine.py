"""The engines: documents in, search hits out."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from embstore.canary import check_same_model, encode_canary
from embstore.encoders import NamedEncoder
from embstore.errors import StoreClosedError, UnknownModelError
from embstore.identity import check_model_name
from embstore.inputs import check_doc_ids
from embstore.search.base import IndexReport, SearchHit, VectorSource, Where
from embstore.search.chroma import ChromaIndex
from embstore.search.chroma_client import import_chromadb, open_client
from embstore.search.indexing import index_documents, reindex_document
from embstore.search.inputs import check_collection_name, check_document, check_documents, check_folder, check_query
from embstore.search.lock import LibraryHandle
from embstore.search.sources import DirectSource, named_encoder

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

DEFAULT_PATH = "embstore-library"
DEFAULT_COLLECTION = "documents"

# Between comparing and writing, no other thread may write to the same collection: Chroma leaves ids out that it has.
_writers: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()


class SemanticSearchEngine:
    """Semantic search over documents whose vectors the model computes each time they change.

    Parameters
    ----------
    model : str, SentenceTransformer or Encoder, optional
        A hub name, a loaded model, or any object with ``encode(list[str])``. None loads `model_name`, and
        all-MiniLM-L6-v2 where that is None too.
    model_name : str, optional
        What the model is called, where it does not say so itself.
    path : str or path-like
        The library folder, created where it is missing. One process at a time may have it open.
    client : chromadb client, optional
        Used in place of one on `path`, and never closed. With ``chromadb.HttpClient()`` many processes can share
        a library.
    collection_name : str
        The Chroma collection, created where it is missing. It holds the vectors of one model.

    Raises
    ------
    CollectionMismatchError
        The collection holds vectors of another model, or was not made by embstore.
    LibraryLockedError
        Another process has the folder open.
    InvalidInputError, InvalidTypeError, MissingExtraError, ModelLoadError, ModelNameError
        An argument cannot be used, or a package is missing; nothing was created.
    SearchIndexError, StorePathError
        The folder cannot be used.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        model_name: str | None = None,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        client: ClientAPI | None = None,
        collection_name: str = DEFAULT_COLLECTION,
    ) -> None:
        encoder = named_encoder(model, model_name)
        identity = encoder.identity("document")
        check_collection_name(collection_name)
        self._folder = check_folder(path)
        import_chromadb()
        self._library: LibraryHandle | None = None
        self._closed = False
        self._model_is_checked = False
        place = id(client) if client is not None else str(self._folder.resolve())
        self._writer = _writers.setdefault((place, collection_name), threading.RLock())
        with ExitStack() as opened:
            if client is None:
                self._library = LibraryHandle(self._folder, open_client)
                opened.callback(self._library.close)
                client = self._library.client
            self._index = ChromaIndex(client, collection_name, identity)
            self._source = self._open_source(encoder, collection_name, opened)
            self._resources = opened.pop_all()

    def _open_source(self, encoder: NamedEncoder, collection_name: str, opened: ExitStack) -> VectorSource:
        """Give what vectors come from; the one thing in which engines differ."""
        return DirectSource(encoder)

    @property
    def model(self) -> Any:
        """The encoder that was given or loaded."""
        return self._source.encoder.model

    @property
    def model_name(self) -> str:
        """What the model is called."""
        return self._source.encoder.model_name

    @property
    def collection(self) -> Collection:
        """The Chroma collection."""
        return self._open_index().collection

    def index_documents(
        self,
        documents: Iterable[str],
        ids: Iterable[str] | None = None,
        metadatas: Iterable[dict[str, Any] | None] | None = None,
        *,
        progress: bool | None = None,
    ) -> IndexReport:
        """Make the index hold documents as they are given here.

        A document that it holds already costs no model call and no write; one with other metadata no model call.
        Documents are compared and written about a thousand at a time: where a call ends early, what was written
        stays, and the same call again does the rest. Nothing is written where an argument is refused.

        Parameters
        ----------
        documents : iterable of n str
        ids : iterable of n str, optional
            doc_0, doc_1, ... where None.
        metadatas : iterable of n dicts or None, optional
            str, int, float, bool or non-empty lists of one of them, by key. They replace what is there.
        progress : bool, optional
            Whether to show bars; None shows them on a terminal.

        Returns
        -------
        IndexReport

        Raises
        ------
        InvalidInputError, InvalidTypeError
            An argument cannot be used, or an id is given twice with different contents.
        EncoderError, ModelChangedError, DimensionError, SearchIndexError, StoreError
            The model failed or is another one than before, or Chroma or the cache failed.
        """
        checked, n_repeated = check_documents(documents, ids, metadatas)
        index = self._checked_index()
        with self._writer:
            return index_documents(checked, index, self._source, n_repeated=n_repeated, progress=progress)

    def reindex_document(self, doc_id: str, document: str, metadata: dict[str, Any] | None = None) -> IndexReport:
        """Encode a document whatever is known of it, and put it in the place of the one under its id.

        The document that is there stays until the new one is encoded (and cached); a failing model changes nothing.

        Parameters
        ----------
        doc_id, document : str
        metadata : dict, optional
            What the document has from now on.

        Returns
        -------
        IndexReport

        Raises
        ------
        EmbstoreError
            As `index_documents`.
        """
        checked = check_document(doc_id, document, metadata)
        with self._writer:
            return reindex_document(checked, self._checked_index(), self._source)

    def delete_documents(self, ids: Iterable[str]) -> int:
        """Remove documents from the index; vectors that are cached stay cached.

        Returns
        -------
        int
            How many documents were there.

        Raises
        ------
        InvalidInputError, InvalidTypeError, SearchIndexError
            An id cannot be one, and nothing was removed; or Chroma failed.
        """
        checked = check_doc_ids(ids)
        with self._writer:
            return self._open_index().delete(checked)

    def search(self, query: str, n_results: int = 10, where: Where | None = None) -> list[SearchHit]:
        """Find the documents that are nearest to a query in meaning.

        Parameters
        ----------
        query : str
        n_results : int
            How many to give at most.
        where : dict, optional
            Chroma's filter on metadata: ``{"year": {"$gte": 2020}}``.

        Returns
        -------
        list of SearchHit
            Nearest first.

        Raises
        ------
        EmbstoreError
            As `index_documents`; SearchIndexError also for a filter that Chroma cannot read.
        """
        check_query(query, n_results, where)
        index = self._checked_index()
        return index.query(self._source.query(query), n_results, where)

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name, and keep every vector.

        The name changes in this collection, then in the cache. After a crash between the two, open the engine under
        the new name and call this again. Other collections keep the old name until they are renamed too.

        Raises
        ------
        UnknownModelError, ModelExistsError
            The engine's model is not called `old`, or the cache has another one called `new`.
        InvalidInputError, InvalidTypeError, SearchIndexError, StoreError
            `new` cannot be a name, or Chroma or the cache failed. Nothing was changed in any of these cases.
        """
        check_model_name(new)
        index = self._matching_index()
        if self.model_name not in (old, new):
            raise UnknownModelError(f"the engine's model is {self.model_name!r}, not {old!r}", model_name=old)
        before = self.model_name
        index.rename_model(new)
        try:
            self._source.rename_model(old, new)
        except BaseException:
            index.rename_model(before)
            raise

    def close(self) -> None:
        """Release the library folder and close what the engine opened; what was given to it stays open."""
        self._closed = True
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_index(self) -> ChromaIndex:
        if self._closed:
            raise StoreClosedError("the engine was closed; open another one", path=str(self._folder))
        if self._library is not None:
            self._library.check_process()
        return self._index

    def _matching_index(self) -> ChromaIndex:
        """Give the index where the model is still the one that it was opened with; settings of live ones change."""
        index = self._open_index()
        index.check_identity(self._source.encoder.identity("document"))
        return index

    def _checked_index(self) -> ChromaIndex:
        """Give the index where the model gives the vectors that it was filled with; asked once an engine."""
        index = self._matching_index()
        if self._model_is_checked or not self._source.checks_model:
            return index
        encoder = self._source.encoder
        canary, stored = encode_canary(encoder, "document"), index.canary()
        if stored is not None and index.count():
            check_same_model(
                encoder.identity("document"),
                stored,
                canary,
                filled=f"the collection {index.name!r}",
                cure="use another collection_name=, or the model that filled it",
            )
        else:  # what an empty index was filled with once does not matter
            index.note_canary(canary)
        self._model_is_checked = True
        return index
