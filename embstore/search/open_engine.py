"""An engine that is open: its model, its index, the folder that it holds, and how it lets go of them."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from embstore.codec import Vectors
from embstore.encoders import NamedEncoder
from embstore.errors import SearchIndexError, StoreClosedError
from embstore.search.base import VectorIndex, VectorSource
from embstore.search.chroma import ChromaIndex
from embstore.search.collection import import_chromadb
from embstore.search.exact import ExactIndex
from embstore.search.inputs import (
    IndexKind,
    check_collection_name,
    check_folder,
    check_index,
)
from embstore.search.lock import LibraryHandle
from embstore.search.model_check import check_model
from embstore.search.opening import mend_index, open_index, open_library
from embstore.search.sources import DirectSource, named_encoder
from embstore.stores import open_store
from embstore.stores.base import Store

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection


DEFAULT_PATH = "embstore-library"
DEFAULT_COLLECTION = "documents"
CACHE_NAME = "embeddings.db"  # in the library folder, beside Chroma's own files

# Between comparing and writing, no other thread may write to the same collection: Chroma leaves ids out that it has.
_writers: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()


class OpenEngine:
    """What every engine has; `SemanticSearchEngine` says what the parameters are."""

    def __init__(
        self,
        model: Any = None,
        *,
        model_name: str | None = None,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        client: ClientAPI | None = None,
        collection_name: str = DEFAULT_COLLECTION,
        index: IndexKind = "chroma",
        check_canary: bool = True,
    ) -> None:
        encoder = named_encoder(model, model_name)
        identity = encoder.identity("document")
        check_collection_name(collection_name)
        self._folder = check_folder(path)
        check_index(index, client)
        if index == "chroma":
            import_chromadb()
        self._library: LibraryHandle | None = None
        self._closed = False
        self._canary: Vectors | None = None
        self._check_canary = check_canary
        place = id(client) if client is not None else os.path.realpath(self._folder)
        # By process too: a lock that another thread held at a fork stays locked in the child.
        self._writer = _writers.setdefault((os.getpid(), place, index, collection_name), threading.RLock())
        with ExitStack() as opened:
            self._index: VectorIndex
            if index == "exact":
                self._index = ExactIndex(self._open_store(opened), collection_name, identity)
            elif client is None:
                self._library = open_library(self._folder)
                opened.callback(self._library.close)
                self._index = open_index(self._library, collection_name, identity)
            else:
                self._index = ChromaIndex(client, collection_name, identity)
            self._source = self._open_source(encoder, collection_name, opened)
            if self._library is not None and isinstance(self._index, ChromaIndex):
                with self._writer:
                    mend_index(self._library, self._index, self._source)
            self._resources = opened.pop_all()

    def _open_store(self, opened: ExitStack) -> Store:
        """Open the file that an exact index is in."""
        store = open_store(self._folder / CACHE_NAME)
        opened.callback(store.close)
        return store

    def _open_source(self, encoder: NamedEncoder, collection_name: str, opened: ExitStack) -> VectorSource:
        """Give what vectors come from; the one thing in which engines differ."""
        return DirectSource(encoder, check_canary=self._check_canary)

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
        """The Chroma collection.

        Raises
        ------
        SearchIndexError
            The index is an exact one, which has none.
        """
        index = self._open_index()
        if not isinstance(index, ChromaIndex):
            raise SearchIndexError("an index 'exact' has no Chroma collection; open the engine with index='chroma'")
        return index.collection

    def close(self) -> None:
        """Release the library folder and close what the engine opened; what was given to it stays open."""
        self._closed = True
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_index(self) -> VectorIndex:
        if self._closed:
            raise StoreClosedError("the engine was closed; open another one", path=str(self._folder))
        if self._library is not None:
            self._library.check_process()
        return self._index

    def _matching_index(self) -> VectorIndex:
        """Give the index where the model is still the one that it was opened with; settings of live ones change."""
        index = self._open_index()
        index.check_identity(self._source.encoder.identity("document"))
        return index

    def _checked_index(self) -> VectorIndex:
        """Give the index where the model gives the vectors that it was filled with.

        The model is asked once, the index each time: while it was empty another model may have filled it.
        """
        index = self._matching_index()
        if self._canary is None:
            self._canary = self._source.canary()
        if self._canary is not None:
            check_model(index, self._source.encoder, self._canary)
        return index
