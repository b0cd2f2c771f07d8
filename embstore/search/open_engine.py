"""An engine that is open: its model, its index, the folder that it holds, and how it lets go of them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, cast

from embstore.codec import Vectors
from embstore.encoders import NamedEncoder
from embstore.errors import SearchIndexError, StoreClosedError
from embstore.identity import ModelIdentity
from embstore.inputs import check_count
from embstore.search.base import VectorIndex, VectorSource, Where
from embstore.search.chroma import ChromaIndex
from embstore.search.collection import import_chromadb
from embstore.search.defaults import CACHE_NAME, DEFAULT_COLLECTION, DEFAULT_PATH
from embstore.search.exact import ExactIndex
from embstore.search.filters import compile_filter
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
from embstore.search.truncating import TruncatingSource, check_truncate_dim
from embstore.stores import open_store
from embstore.stores.base import Store, StoredModel

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection


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
        truncate_dim: int | None = None,
        check_canary: bool = True,
    ) -> None:
        encoder = named_encoder(model, model_name)
        encoder.identity("document")  # a model that says none is refused before anything is created
        check_collection_name(collection_name)
        self._folder = check_folder(path)
        check_index(index, client)
        self._truncate_dim = None if truncate_dim is None else check_count(truncate_dim, "truncate_dim")
        if index == "chroma":
            import_chromadb()
        self._library: LibraryHandle | None = None
        self._closed = False
        self._canary: Vectors | None = None
        self._check_canary = check_canary
        place = id(client) if client is not None else os.path.realpath(self._folder)
        # By process too: a lock that another thread held at a fork stays locked in the child.
        self._writer = _writers.setdefault((os.getpid(), place, index, collection_name), threading.RLock())
        self._index: VectorIndex
        self._source: VectorSource
        with ExitStack() as opened:
            if index == "exact":
                self._open_exact(encoder, collection_name, opened)
            else:
                self._open_chroma(encoder, collection_name, client, opened)
            self._resources = opened.pop_all()

    def _open_exact(self, encoder: NamedEncoder, collection_name: str, opened: ExitStack) -> None:
        """Open an index of whole vectors, which cuts them as it reads them: what it is given, it stores."""
        self._check_dim(encoder)
        store, identity = self._open_store(opened), encoder.identity("document")
        self._index = ExactIndex(store, collection_name, identity, self._truncate_dim)
        self._source = self._open_source(encoder, collection_name, opened)

    def _open_chroma(
        self, encoder: NamedEncoder, collection_name: str, client: ClientAPI | None, opened: ExitStack
    ) -> None:
        """Open an index of vectors that are cut before it is given them."""
        identity, truncate_dim = encoder.identity("document"), self._truncate_dim
        self._check_dim(encoder)
        if client is None:
            self._library = open_library(self._folder)
            opened.callback(self._library.close)
        source = self._open_source(encoder, collection_name, opened)
        self._check_dim(encoder, self._stored_model(identity))
        self._source = source if truncate_dim is None else TruncatingSource(source, truncate_dim)
        if self._library is None:
            self._index = ChromaIndex(cast("ClientAPI", client), collection_name, identity, truncate_dim=truncate_dim)
            return
        self._index = index = open_index(self._library, collection_name, identity, truncate_dim)
        with self._writer:
            mend_index(self._library, index, self._source)

    def _check_dim(self, encoder: NamedEncoder, stored: StoredModel | None = None) -> None:
        """Raise DimensionError where it is known that a model's vectors have too few values for `truncate_dim`."""
        if self._truncate_dim is not None:
            check_truncate_dim(self._truncate_dim, encoder, encoder.dim if stored is None else stored.dim)

    def _stored_model(self, identity: ModelIdentity) -> StoredModel | None:
        """Give what is stored of the model, where vectors are kept."""
        return None

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

    def doc_ids(self, where: Where | None = None) -> Iterator[str]:
        """List the ids of the documents that the collection holds, in no order; records of other programs are none.

        Parameters
        ----------
        where : dict, optional
            A filter on metadata, as of `search`: only those that it lets through.

        Yields
        ------
        str

        Raises
        ------
        InvalidInputError, SearchIndexError, StoreError
            It is no filter, or the index cannot be read.
        """
        if where is not None:
            compile_filter(where)
        index = self._open_index()
        for page in index.doc_ids(where):
            yield from (doc_id for doc_id, held in index.stored(page).items() if held.content_hash is not None)

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
            canary = self._source.canary()
            if canary is not None and self._truncate_dim is not None:
                check_truncate_dim(self._truncate_dim, self._source.encoder, canary.size)
            self._canary = canary
        if self._canary is not None:
            check_model(index, self._source, self._canary)
        return index
