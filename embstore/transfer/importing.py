"""What all imports have in common: rows of a source are checked, gathered and taken in, a batch a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from embstore.codec import QuantisedError, Vectors, as_vectors, finite_vectors
from embstore.errors import EmbstoreError, SourceError
from embstore.identity import ModelIdentity, Role, Setting
from embstore.inputs import check_collection, check_doc_ids
from embstore.naming import names_dtype
from embstore.progress import progress_bar
from embstore.putting import PutEmbeddings
from embstore.stores.base import Store, StoredModel
from embstore.stores.contents import ContentPage
from embstore.transfer.incoming import Incoming
from embstore.transfer.report import Skipped, TransferReport

ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class SourceRow:
    """A vector of a source.

    Attributes
    ----------
    place : str
        Where it was found, for messages.
    content_hash : bytes
    vector : array-like of shape (dim,), float
    doc_id : str or None
        None for one that is cached without an id.
    collection : str
    """

    place: str
    content_hash: bytes
    vector: Any
    doc_id: str | None = None
    collection: str = ""


@dataclass(frozen=True)
class Owner:
    """The model that vectors are said to be of.

    Attributes
    ----------
    identity : ModelIdentity
    is_exact : bool
        It says in which format vectors are to be stored.
    """

    identity: ModelIdentity
    is_exact: bool

    @classmethod
    def of(
        cls,
        cache: PutEmbeddings,
        model: Any,
        model_name: str | None,
        settings: Mapping[str, Setting] | None,
        role: Role,
    ) -> Owner:
        """Tell as `EmbeddingCache.put_many` does."""
        identity = cache.identity_of(model, model_name=model_name, settings=settings, role=role)
        return cls(identity, names_dtype(settings))

    def find(self, store: Store) -> StoredModel | None:
        """Give the model, where it is stored."""
        return (store.find_model if self.is_exact else store.find_variant)(self.identity)

    def ensure(self, store: Store, dim: int) -> StoredModel:
        """Give the model, stored now where it was not."""
        return (store.ensure_model if self.is_exact else store.ensure_variant)(self.identity, dim, None)


def import_rows(
    cache: PutEmbeddings,
    source: str | Path,
    owner: Owner,
    rows: Iterable[SourceRow | Skipped],
    *,
    total: int | None,
    progress: bool | None,
) -> TransferReport:
    """Take the rows of a source in, 1,000 in one transaction, or more in a file of more than 100,000.

    Raises
    ------
    SourceError
        A row is broken; the message names it, and tells what was stored before.
    OutOfRangeError, DimensionError, ReadOnlyError, StoreError
        Likewise.
    """
    return import_models(cache, source, [(owner, rows)], total=total, progress=progress)


def import_models(
    cache: PutEmbeddings,
    source: str | Path,
    rows_of: Iterable[tuple[Owner, Iterable[SourceRow | Skipped]]],
    *,
    total: int | None,
    progress: bool | None,
) -> TransferReport:
    """Take in the rows of a source that are of several models; as `import_rows` otherwise."""
    incoming = Incoming(cache.store, str(source))
    with incoming.telling(), progress_bar(total, "importing", progress, unit="row") as bar:
        for owner, rows in rows_of:
            dim: int | None = None
            for batch in _batches(rows, cache.store):
                bar.update(len(batch))
                incoming.skipped += [row for row in batch if isinstance(row, Skipped)]
                taken = [row for row in batch if isinstance(row, SourceRow)]
                if taken:
                    page = _page(taken, source, dim)
                    dim = page.vectors.shape[1]
                    _take(incoming, page, owner, taken)
    return incoming.report()


def _take(incoming: Incoming, page: ContentPage, owner: Owner, rows: list[SourceRow]) -> None:
    incoming.take(
        page,
        lambda: owner.find(incoming.store),
        lambda dim: owner.ensure(incoming.store, dim),
        lambda i: rows[i].place,
    )


def _batches(rows: Iterable[SourceRow | Skipped], store: Store) -> Iterator[list[SourceRow | Skipped]]:
    unread = iter(rows)
    while batch := list(islice(unread, max(ROWS_AT_ONCE, store.group_rows()))):
        yield batch


def _page(rows: list[SourceRow], source: str | Path, dim: int | None) -> ContentPage:
    """Check rows and put them together."""
    vectors = _stacked(rows, dim)
    if vectors is None:
        vectors = np.stack(list(_checked(rows, source, dim)))
    return ContentPage(
        [row.content_hash for row in rows],
        vectors,
        np.array([row.doc_id is None for row in rows], dtype=np.bool_),
        [(row.collection, row.doc_id, i) for i, row in enumerate(rows) if row.doc_id is not None],
    )


def _stacked(rows: list[SourceRow], dim: int | None) -> Vectors | None:
    """Give the vectors of rows that are all as they should be, which takes a third of the time; None otherwise."""
    try:
        vectors = [np.asarray(row.vector) for row in rows]
        dims = {vector.shape for vector in vectors} | ({(dim,)} if dim is not None else set())
        if len(dims) > 1 or {vector.dtype.kind for vector in vectors} != {"f"}:
            return None
        check_doc_ids([row.doc_id for row in rows if row.doc_id is not None])
        for collection in {row.collection for row in rows}:
            check_collection(collection)
        return finite_vectors(np.stack(vectors), len(rows))
    except (EmbstoreError, ValueError, TypeError):
        return None


def _checked(rows: list[SourceRow], source: str | Path, dim: int | None) -> Iterator[Vectors]:
    """Give the vectors of rows one by one, and name the row that is not as it should be."""
    for row in rows:
        try:
            (vector,) = finite_vectors(np.asarray(row.vector)[np.newaxis], 1)
            check_doc_ids([] if row.doc_id is None else [row.doc_id])
            check_collection(row.collection)
        except QuantisedError as error:
            raise broken(source, row.place, f"its vector is {error}: quantised vectors are no floats") from None
        except EmbstoreError as error:
            raise broken(source, row.place, str(error)) from error
        except (ValueError, TypeError) as error:
            raise broken(source, row.place, f"its vector is {error}") from error
        dim = dim or len(vector)
        if len(vector) != dim:
            raise broken(source, row.place, f"its vector has {len(vector)} values, those before it have {dim}")
        yield as_vectors(vector)


def broken(source: str | Path, place: str, why: str) -> SourceError:
    """Give the error for a row or a file that is not what it should be."""
    return SourceError(f"{place}: {why}; mend it, or take it out of the source", path=str(source), place=place)
