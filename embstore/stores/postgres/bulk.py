"""Reading the vectors of many documents from a server: all in one matrix, or in pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import psycopg
from psycopg.sql import SQL, Composed, Literal

from embstore.background import Background
from embstore.codec import VECTOR_DTYPE, Vectors, as_vectors
from embstore.errors import InvalidInputError, UnknownDocumentError
from embstore.stores.base import StoredModel
from embstore.stores.postgres import documents, models
from embstore.stores.postgres.copied import COLUMNS, Block, copy_block, copy_blocks, select_block
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.server_errors import FEATURE_NOT_SUPPORTED, TOO_LARGE, UNDEFINED_FUNCTION
from embstore.stores.postgres.spans import Place, Span, extent, rows_at_once
from embstore.stores.postgres.strings import stored
from embstore.stores.postgres.vacuum import PostgresVacuum
from embstore.stores.shards import Shard
from embstore.truncation import truncated

SOME = SQL(
    """
SELECT {columns}
FROM documents
LEFT JOIN vectors ON vectors.vector_id = documents.vector_id
WHERE documents.model_id = {model_id} AND documents.collection = {collection} AND documents.doc_id = ANY({doc_ids})
"""
)


class PostgresBulk(PostgresVacuum):
    """The part of a `Store` on a server that reads many vectors; see `embstore.stores.base.Store` for each method."""

    _can_copy: bool | None = None  # not known yet

    def matrix(
        self, model: StoredModel, *, collection: str | None, doc_ids: Sequence[str] | None, dim: int | None = None
    ) -> tuple[list[str], Vectors]:
        """See `Store.matrix`."""

        def read(connection: Connection) -> tuple[list[str], Vectors]:
            now = models.as_now(connection, model)
            if doc_ids is not None:
                return list(doc_ids), self._read_some(connection, now, collection, doc_ids, dim)
            return self._read_all(connection, now, collection, dim)

        return self._server.read(read)

    def pages(
        self, model: StoredModel, *, collection: str | None, batch_rows: int, shard: Shard | None = None
    ) -> Iterator[tuple[list[str], Vectors]]:
        """See `Store.pages`."""
        n_documents, last_id = self._server.read(lambda connection: extent(connection, model, collection))
        span = Span(last_id, collection, shard, min(batch_rows, max(1, n_documents)))
        place, n_read = Place(), span.n_rows
        while n_read == span.n_rows:
            read = partial(self._read_span, model=model, span=span, place=place, dim=None)
            doc_ids, vectors, place = self._server.read(read)
            n_read = len(doc_ids)
            if n_read:
                yield doc_ids, vectors

    def _read_all(
        self, connection: Connection, model: StoredModel, collection: str | None, dim: int | None
    ) -> tuple[list[str], Vectors]:
        n_documents, last_id = extent(connection, model, collection)
        span = Span(last_id, collection, None, n_documents)
        if n_documents > rows_at_once(model) and self._can_copy is not False:
            try:
                with connection.transaction():
                    read = self._read_together(connection, model, span, dim)
                if read is not None:
                    return read
            except psycopg.Error as error:
                if error.sqlstate not in (FEATURE_NOT_SUPPORTED, UNDEFINED_FUNCTION, TOO_LARGE):
                    raise
        doc_ids, vectors, _ = self._read_span(connection, model, span, Place(), dim)
        return doc_ids, vectors

    def _read_together(
        self, connection: Connection, model: StoredModel, span: Span, dim: int | None
    ) -> tuple[list[str], Vectors] | None:
        """Read all of a span by one statement, where rows are as sound ones are; what has come is checked meanwhile."""
        vectors = np.empty((span.n_rows, model.dim if dim is None else dim), dtype=VECTOR_DTYPE)
        doc_ids: list[str] = []
        is_whole = True
        with Background() as background:
            for block in copy_blocks(connection, span.together(model), model):
                if block is None or len(doc_ids) + len(block) > span.n_rows:
                    is_whole = False  # and what still comes is let by
                elif is_whole and len(block):
                    background.submit(partial(_put, block, model, vectors, len(doc_ids), dim))
                    doc_ids += block.doc_ids
            background.wait()
        return (doc_ids, vectors) if is_whole and len(doc_ids) == span.n_rows else None

    def _read_span(
        self, connection: Connection, model: StoredModel, span: Span, place: Place, dim: int | None
    ) -> tuple[list[str], Vectors, Place]:
        """Read documents after a place, and tell where the next ones begin; a block is checked while another comes."""
        model = models.as_now(connection, model)
        vectors = np.empty((span.n_rows, model.dim if dim is None else dim), dtype=VECTOR_DTYPE)
        doc_ids: list[str] = []
        with Background() as background:
            while len(doc_ids) < span.n_rows:
                n_rows = min(rows_at_once(model), span.n_rows - len(doc_ids))
                block = self._read_block(connection, span.page_after(place, model, n_rows), model)
                if not len(block):
                    break
                background.submit(partial(_put, block, model, vectors, len(doc_ids), dim))
                doc_ids += block.doc_ids
                place = Place.after(block)
            background.wait()
        return doc_ids, vectors[: len(doc_ids)], place

    def _read_some(
        self,
        connection: Connection,
        model: StoredModel,
        collection: str | None,
        doc_ids: Sequence[str],
        dim: int | None,
    ) -> Vectors:
        distinct = list(dict.fromkeys(doc_ids))
        row_of: dict[str, int] = {}
        vectors = np.empty((len(distinct), model.dim if dim is None else dim), dtype=VECTOR_DTYPE)
        first_of: dict[str, tuple[str, int]] = {}
        names = [name for _, name in documents.scopes(connection, [model.model_id], collection)]
        for start in range(0, len(distinct), rows_at_once(model)):
            some = distinct[start : start + rows_at_once(model)]
            for name in names:
                block = self._read_block(connection, _of(some, model, name), model)
                _check_same(first_of, block)
                block.check(model)
                rows = [row_of.setdefault(doc_id, len(row_of)) for doc_id in block.doc_ids]
                vectors[rows] = _cut(block, dim)
        unknown = [doc_id for doc_id in doc_ids if doc_id not in row_of]
        if unknown:
            raise UnknownDocumentError(
                f"doc_id {unknown[0]!r:.80} and {len(unknown) - 1} more of {len(doc_ids)} are not stored for model "
                f"{str(model.identity)!r}"
                + ("" if collection is None else f" in collection {collection!r}")
                + "; cache them with get_many",
                doc_ids=unknown,
            )
        rows = [row_of[doc_id] for doc_id in doc_ids]
        return vectors if rows == list(range(len(vectors))) else vectors[rows]

    def _read_block(self, connection: Connection, select: Composed, model: StoredModel) -> Block:
        """Read by COPY; by SELECT from a server that refuses it, as CockroachDB does."""
        if self._can_copy is None:
            connection.execute("SAVEPOINT copying")
            try:
                block = copy_block(connection, select, model)
            except psycopg.Error as error:
                if error.sqlstate not in (FEATURE_NOT_SUPPORTED, UNDEFINED_FUNCTION):
                    raise
                connection.execute("ROLLBACK TO SAVEPOINT copying")
                self._can_copy = False
            else:
                connection.execute("RELEASE SAVEPOINT copying")
                self._can_copy = True
                return block
        return (copy_block if self._can_copy else select_block)(connection, select, model)


def _of(doc_ids: Sequence[str], model: StoredModel, collection: str) -> Composed:
    return SOME.format(
        columns=COLUMNS,
        model_id=Literal(model.model_id),
        collection=Literal(stored(collection)),
        doc_ids=Literal(list(map(stored, doc_ids))),
    )


def _check_same(first_of: dict[str, tuple[str, int]], block: Block) -> None:
    """Refuse a doc_id that stands for different texts in several collections."""
    for name, doc_id, vector_id in zip(block.collections, block.doc_ids, block.vector_ids.tolist(), strict=True):
        other = first_of.setdefault(doc_id, (name, vector_id))
        if other[1] != vector_id:
            raise InvalidInputError(
                f"doc_id {doc_id!r:.80} has different texts in the collections {other[0]!r} and {name!r}; "
                f"say which with collection=",
                doc_id=doc_id,
            )


def _put(block: Block, model: StoredModel, vectors: Vectors, start: int, dim: int | None) -> None:
    """Check a block, and put its vectors where they belong."""
    block.check(model)
    vectors[start : start + len(block)] = _cut(block, dim)


def _cut(block: Block, dim: int | None) -> Vectors:
    return as_vectors(block.values) if dim is None else truncated(as_vectors(block.values), dim)
