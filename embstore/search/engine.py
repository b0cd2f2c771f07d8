"""The engines: documents in, search hits out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from embstore.errors import InvalidInputError, UnknownModelError
from embstore.identity import check_model_name
from embstore.inputs import check_doc_ids
from embstore.search.base import IndexPlan, IndexReport, SearchHit, Where
from embstore.search.comparison import ReconcileReport
from embstore.search.given import GivenDocuments
from embstore.search.indexing import index_documents, plan_documents, reindex_document
from embstore.search.inputs import (
    check_document,
    check_query,
    check_removal,
)
from embstore.search.open_engine import OpenEngine
from embstore.search.reconcile import reconcile
from embstore.search.removal import Removal


class SemanticSearchEngine(OpenEngine):
    """Semantic search over documents whose vectors the model computes each time they change.

    Parameters
    ----------
    model : str, SentenceTransformer or Encoder, optional
        A hub name, a loaded model, or any object with ``encode(list[str])``. None loads `model_name`, and
        all-MiniLM-L6-v2 where that is None too.
    model_name : str, optional
        What the model is called, where it does not say so itself.
    path : str or path-like
        The library folder, created where it is missing. With Chroma one process at a time may have it open.
    client : chromadb client, optional
        Used in place of one on `path`, and never closed. With ``chromadb.HttpClient()`` many processes can share
        a library.
    collection_name : str
        The part of the library, created where it is missing. It holds the vectors of one model.
    index : "chroma" or "exact"
        "exact" compares a query with every vector, up to a million or so, and needs neither Chroma nor a lock: texts
        and metadata are in the file ``embeddings.db`` in the folder, beside the vectors, and several processes may
        use it at once. "chroma" is approximate and scales further.
    truncate_dim : int, optional
        Search that many leading values of the vectors, scaled to length 1: see `embstore.truncation`. What is cached
        stays whole, so that no text is encoded again for another `truncate_dim`. A Chroma collection has one from its
        first document on. An exact one keeps whole vectors: each engine may give another, and has 4 * `truncate_dim`
        bytes a document in memory.
    check_canary : bool
        Encode one fixed text, to tell whether the model behind a name is still the one that filled the collection.

    Raises
    ------
    CollectionMismatchError
        The collection holds vectors of another model or with another `truncate_dim`, or was not made by embstore.
    DimensionError
        The model's vectors have fewer values than `truncate_dim`. Where nobody knows how many they have, it is raised
        by the first call that encodes, and nothing is written to the index.
    LibraryLockedError
        Another process has the folder open.
    InvalidInputError, InvalidTypeError, MissingExtraError, ModelLoadError, ModelNameError
        An argument cannot be used, or a package is missing; nothing was created.
    SearchIndexError, StorePathError
        The folder cannot be used.
    """

    def index_documents(
        self,
        documents: Iterable[str],
        ids: Iterable[str] | None = None,
        metadatas: Iterable[dict[str, Any] | None] | None = None,
        *,
        remove_missing: bool = False,
        scope: Where | None = None,
        max_removed: float = 0.5,
        progress: bool | None = None,
    ) -> IndexReport:
        """Make the index hold documents as they are given here.

        A document that it holds already costs no model call and no write; one with other metadata no model call.
        Documents are compared and written about a thousand at a time: where a call ends early, what was written
        stays, and the same call again does the rest. Where `documents` is a list, or anything else that has a length,
        nothing is written unless every argument can be used. Iterators are read as they are indexed, in bounded
        memory: what is wrong further on is noticed there.

        Parameters
        ----------
        documents : iterable of n str
        ids : iterable of n str, optional
            doc_0, doc_1, ... where None.
        metadatas : iterable of n dicts or None, optional
            str, int, float, bool or non-empty lists of one of them, by key. They replace what is there.
        remove_missing : bool
            At the end, when all else is done, remove the documents that the index holds and that were not given.
            Their vectors stay in the cache, and records that another program wrote stay in the index.
        scope : dict, optional
            A filter as of `search`: remove only documents that it lets through.
        max_removed : float
            The most to remove, as a share of all documents that the collection held before the call. An empty
            `documents` counts as one that removes everything.
        progress : bool, optional
            Whether to show a bar; None shows it on a terminal.

        Returns
        -------
        IndexReport

        Raises
        ------
        InvalidInputError, InvalidTypeError
            An argument cannot be used, or an id is given twice with different contents.
        CollectionMismatchError
            The collection is of another model, or another program wrote a record of it under the id of a document.
        TooManyRemovalsError
            More than `max_removed` would be removed. Nothing was written where `documents` has a length; of an
            iterator everything was indexed. Nothing was removed.
        EncoderError, ModelChangedError, DimensionError, SearchIndexError, StoreError
            The model failed or is another one than before, or Chroma or the cache failed.
        """
        check_removal(remove_missing, scope, max_removed)
        given = GivenDocuments(documents, ids, metadatas)
        with self._writer:
            index = self._checked_index()
            removal = Removal(index, scope, max_removed) if remove_missing else None
            return index_documents(given, index, self._source, removal, progress=progress)

    def plan(
        self,
        documents: Iterable[str],
        ids: Iterable[str] | None = None,
        metadatas: Iterable[dict[str, Any] | None] | None = None,
        *,
        remove_missing: bool = False,
        scope: Where | None = None,
    ) -> IndexPlan:
        """Tell what `index_documents` would do; nothing is written and no model is called.

        Parameters
        ----------
        documents, ids, metadatas, remove_missing, scope
            As of `index_documents`. Iterators are used up.

        Returns
        -------
        IndexPlan

        Raises
        ------
        EmbstoreError
            As `index_documents`, but for what the model would raise, and for TooManyRemovalsError: `to_remove` is
            told whatever it is.
        """
        check_removal(remove_missing, scope)
        given, index = GivenDocuments(documents, ids, metadatas), self._matching_index()
        return plan_documents(given, index, self._source, Removal(index, scope) if remove_missing else None)

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

    def reconcile(
        self,
        documents: Iterable[str] | None = None,
        ids: Iterable[str] | None = None,
        metadatas: Iterable[dict[str, Any] | None] | None = None,
        *,
        repair: bool = False,
        progress: bool | None = None,
    ) -> ReconcileReport:
        """Compare the index, record by record, with the cache and with the documents that it should hold.

        The model is not called. Records are read in pages, and each is searched for by its own vector.

        Parameters
        ----------
        documents, ids, metadatas
            As of `index_documents`, all that the index should hold. Without them it is compared with the cache only.
        repair : bool
            Set right what is wrong with the vectors that the cache has; where Chroma has failed, build its index anew.
            Documents that the source does not have stay: `index_documents` removes them with ``remove_missing=True``.
            Nobody else may write to the index meanwhile. After a crash the call can be repeated.
        progress : bool, optional
            Whether to show a bar; None shows it on a terminal.

        Returns
        -------
        ReconcileReport

        Raises
        ------
        InvalidInputError, InvalidTypeError
            An argument cannot be used.
        SearchIndexError, StoreError
            Chroma or the cache failed; where it was Chroma, `repair` may help.
        """
        if documents is None and (ids is not None or metadatas is not None):
            raise InvalidInputError("ids and metadatas are of documents; pass these too")
        given = None if documents is None else GivenDocuments(documents, ids, metadatas)
        with self._writer:
            return reconcile(self._open_index(), self._source, given, repair=repair, progress=progress)

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
            A filter on metadata, ``{"year": {"$gte": 2020}}``: see `embstore.search.filters`.

        Returns
        -------
        list of SearchHit
            Nearest first.

        Raises
        ------
        EmbstoreError
            As `index_documents`; InvalidInputError also for what is no filter.
        """
        check_query(query, n_results, where)
        index = self._checked_index()
        return index.query(self._source.query(query), n_results, where)

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name, and keep every vector.

        The name changes in this collection, then in the cache. After a crash between the two, open the engine under
        the new name and call this again. Other collections keep the old name until they are renamed too. With an
        exact index it is one step, for all collections of the file.

        Raises
        ------
        UnknownModelError, ModelExistsError
            Neither the engine's model nor one of the cache is called `old`, or the cache has another one called `new`.
        InvalidInputError, InvalidTypeError, SearchIndexError, StoreError
            `new` cannot be a name, or Chroma or the cache failed. Nothing was changed in any of these cases.
        """
        check_model_name(new)
        with self._writer:
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
