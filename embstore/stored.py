"""StoredEmbeddings: all that can be asked of a cache file without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from embstore.backup import BackedUp
from embstore.codec import Vectors
from embstore.identity import Dtype, Role, Setting, check_role, is_storable
from embstore.inputs import check_count, check_doc_ids, check_scope, check_shard, check_truncation
from embstore.naming import NamedModels
from embstore.stores import open_store
from embstore.stores.base import DocumentInfo, ModelInfo, Problem, PruneReport, Stats, Store, StoredModel
from embstore.stores.locations import file_of
from embstore.truncation import truncated


class StoredEmbeddings(NamedModels, BackedUp):
    """The embeddings in a file: to read in bulk, to list, to forget, to check. `EmbeddingCache` adds the encoding.

    Parameters
    ----------
    path, timeout_s, allow_network_filesystem, dtype
        As of `EmbeddingCache`.
    """

    def __init__(
        self,
        path: str | Path = "embeddings.db",
        *,
        timeout_s: float = 30.0,
        allow_network_filesystem: bool = False,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__(
            open_store(path, timeout_s=timeout_s, allow_network_filesystem=allow_network_filesystem, dtype=dtype)
        )

    @property
    def location(self) -> str:
        """Where the rows live: the absolute path of the file, or the URL of the server without its password."""
        return self._store.location

    @property
    def path(self) -> Path:
        """The file.

        Raises
        ------
        NotAFileError
            It is on a server; see `location`.
        """
        return file_of(self._store.location)

    @property
    def store(self) -> Store:
        """Where the rows live, for an index that keeps its texts in the same file."""
        return self._store

    @property
    def dtype(self) -> Dtype:
        """The format in which models are stored that are new."""
        return self._store.dtype

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def __len__(self) -> int:
        """Count the rows of the view: documents, of all models and collections."""
        return self._store.count_documents()

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache: `cache or EmbeddingCache()` must not open another

    def __contains__(self, doc_id: object) -> bool:
        """Tell whether a document is stored, of any model in any collection."""
        return is_storable(doc_id) and self._store.has_document(doc_id)

    def matrix(
        self,
        model_name: str,
        *,
        doc_ids: Iterable[str] | None = None,
        role: Role = "document",
        settings: Mapping[str, Setting] | None = None,
        collection: str | None = None,
        dim: int | None = None,
    ) -> tuple[list[str], Vectors]:
        """Read the vectors of documents in bulk: one state of the file, every checksum verified.

        Parameters
        ----------
        model_name : str
        doc_ids : iterable of str, optional
            Which documents, in the order of the result; by default all, in the order in which they are stored.
        role : "document" or "query"
            "query" means the vectors of a model whose queries differ from its documents.
        settings : mapping, optional
            Which of several models of the name; as `models` shows them.
        collection : str, optional
            By default all.
        dim : int, optional
            Give that many leading values of each vector, scaled to length 1, also where these are all; see
            `embstore.truncation`. By default vectors are as stored, bit for bit.

        Returns
        -------
        doc_ids : list of n str
        vectors : ndarray of shape (n, dim), float32
            Row i is the vector of doc_ids[i].

        Raises
        ------
        UnknownModelError, AmbiguousModelError
            Of the name.
        DimensionError, InvalidInputError, InvalidTypeError
            `dim` is no int of at least 1, or more than the model's vectors have.
        UnknownDocumentError
            A doc_id is not stored for the model.
        InvalidInputError
            A doc_id stands for different texts in several collections.
        DamagedStoreError
            A row is not what was written.
        """
        model = self._find_model(model_name, settings, check_role(role))
        check_scope(model_name, collection)
        wanted = None if doc_ids is None else check_doc_ids(doc_ids)
        return self._store.matrix(model, collection=collection, doc_ids=wanted, dim=_checked_dim(dim, model))

    def iter_matrix(
        self,
        model_name: str,
        *,
        batch_rows: int = 8192,
        role: Role = "document",
        settings: Mapping[str, Setting] | None = None,
        collection: str | None = None,
        dim: int | None = None,
        shard: tuple[int, int] | None = None,
    ) -> Iterator[tuple[list[str], Vectors]]:
        """Read what `matrix` reads in pages, in bounded memory; or a share of it, so that several read it together.

        Each page is one state of the file, so that a long reading holds up no writer: a document that is written
        meanwhile can come with its old vector or its new one, or, moved to a content stored before, not at all.

        Parameters
        ----------
        batch_rows : int
            The most rows of a page.
        model_name, role, settings, collection, dim
            As of `matrix`.
        shard : tuple of int, optional
            (i, n): the i-th of n shares, from 0. Those of n readers hold each document once, whenever each begins, and
            are about as large where there are many more than 1,000 vectors a reader. Their pages may be shorter.

        Yields
        ------
        doc_ids : list of n str
        vectors : ndarray of shape (n, dim), float32

        Raises
        ------
        UnknownModelError, AmbiguousModelError, DimensionError, DamagedStoreError
            As of `matrix`; of the model and `dim` at the call, before the first page is asked for.
        InvalidInputError, InvalidTypeError
            `batch_rows` is no int of at least 1, or `shard` no two of them with 0 <= i < n; likewise.
        """
        model = self._find_model(model_name, settings, check_role(role))
        check_scope(model_name, collection)
        shorter = _checked_dim(dim, model)
        batch_rows = check_count(batch_rows, "batch_rows")
        pages = self._store.pages(model, collection=collection, batch_rows=batch_rows, shard=check_shard(shard))
        return pages if shorter is None else ((doc_ids, truncated(vectors, shorter)) for doc_ids, vectors in pages)

    def documents(
        self, *, model_name: str | None = None, collection: str | None = None, doc_id: str | None = None
    ) -> Iterator[DocumentInfo]:
        """List documents by model, collection and id, or those that have one doc_id, without their vectors."""
        check_scope(model_name, collection)
        if doc_id is not None:
            (wanted,) = check_doc_ids([doc_id])
            return iter(self._store.find_documents(wanted, model_name, collection))
        return self._store.list_documents(model_name, collection)

    def models(self) -> list[ModelInfo]:
        """List the stored models, oldest first, with what is stored of each."""
        return list(self.stats().models)

    def stats(self) -> Stats:
        """Count what is stored, without reading a vector."""
        return self._store.stats()

    def invalidate(
        self, doc_ids: str | Iterable[str], *, model_name: str | None = None, collection: str | None = None
    ) -> int:
        """Forget documents, so that their next `get` encodes them anew; all in one transaction.

        A document's present vector is removed where no other document uses it, also where the text was cached without
        an id too.

        Parameters
        ----------
        doc_ids : str or iterable of str
            Ids that are not stored are passed over.
        model_name, collection : str, optional
            Only there; by default everywhere.

        Returns
        -------
        int
            Rows of the view forgotten.

        Raises
        ------
        InvalidInputError, InvalidTypeError, ReadOnlyError, StoreError
            Nothing was forgotten.
        """
        listed = check_doc_ids([doc_ids] if isinstance(doc_ids, str) else doc_ids)
        check_scope(model_name, collection)
        return self._store.forget_documents(list(dict.fromkeys(listed)), model_name=model_name, collection=collection)

    def clear(self, *, model_name: str | None = None, collection: str | None = None) -> int:
        """Forget all embeddings, or those of a model, or of a collection; all in one transaction.

        A model goes with its vectors, its canary and its name. A collection goes as by `invalidate` of each of its
        documents. The texts and metadata of an exact index stay: an engine's `delete_documents` removes them.

        Returns
        -------
        int
            Rows of the view forgotten.

        Raises
        ------
        ReadOnlyError, StoreError
            Nothing was forgotten.
        """
        check_scope(model_name, collection)
        if collection is None:
            return self._store.forget_models(model_name)
        return self._store.forget_documents(None, model_name=model_name, collection=collection)

    def prune(self, *, standalone: bool = False, dry_run: bool = False) -> PruneReport:
        """Remove the vectors that no document uses: former texts of documents that were edited.

        Parameters
        ----------
        standalone : bool
            Those of texts that were cached without an id (queries, `embed`) too.
        dry_run : bool
            Remove nothing, only report.

        Returns
        -------
        PruneReport
            `n_vectors`, `vector_bytes`, `removed`. `compact` gives the space back to the file system.
        """
        return self._store.prune(standalone=standalone, dry_run=dry_run)

    def verify(self) -> list[Problem]:
        """Check everything: SQLite's structures, every checksum, every reference. [] where the file is sound."""
        return self._store.verify()

    def compact(self) -> int:
        """Write the file anew without unused space, and tell how many bytes that gave back.

        Raises
        ------
        StoreBusyError, StoreFullError, ReadOnlyError
            The file is as it was. As much free space as the file has is needed meanwhile.
        """
        return self._store.compact()

    def close(self) -> None:
        """Let go of the file. What was returned before stays usable."""
        self._store.close()


def _checked_dim(dim: int | None, model: StoredModel) -> int | None:
    return None if dim is None else check_truncation(dim, model.dim, model.identity.model_name)
