"""Reading the vectors of many documents from a server: all in one matrix, or in pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg.sql import SQL, Composed, Literal

from embstore.codec import VECTOR_DTYPE, Vectors, as_vectors
from embstore.errors import InvalidInputError, UnknownDocumentError
from embstore.formats import STORED_DTYPES
from embstore.stores import shards
from embstore.stores.base import StoredModel
from embstore.stores.postgres import documents, models
from embstore.stores.postgres.copied import COLUMNS, Block, copy_block, select_block
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.server_errors import FEATURE_NOT_SUPPORTED
from embstore.stores.postgres.strings import stored
from embstore.stores.postgres.vacuum import PostgresVacuum
from embstore.stores.shards import Shard
from embstore.truncation import truncated

ROWS_AT_ONCE = 8192
BYTES_AT_ONCE = 2**25  # of vectors in a block

# The second bound on vector_id is for the planner: it derives no inequality from the equality of the join.
PAGE = SQL(
    """
SELECT {columns}
FROM documents
LEFT JOIN vectors ON vectors.vector_id = documents.vector_id AND vectors.vector_id >= {first_id}
WHERE documents.model_id = {model_id} AND documents.vector_id BETWEEN {first_id} AND {last_id}
    AND (documents.vector_id, documents.collection, documents.doc_id) > ({first_id}, {collection}, {doc_id}){scope}
ORDER BY documents.vector_id, documents.collection, documents.doc_id
LIMIT {limit}
"""
)
IN_COLLECTION = SQL(" AND documents.collection = {}")
IN_SHARD = SQL(" AND documents.vector_id / {} % {} = {}")

SOME = SQL(
    """
SELECT {columns}
FROM documents
LEFT JOIN vectors ON vectors.vector_id = documents.vector_id
WHERE documents.model_id = {model_id} AND documents.collection = {collection} AND documents.doc_id = ANY({doc_ids})
"""
)

EXTENT = """
SELECT count(*), max(vector_id)
FROM documents
WHERE model_id = %s
"""

EXTENT_OF_COLLECTION = f"{EXTENT} AND collection = %s"


@dataclass(frozen=True)
class Place:
    """Where a page begins: after this document; ids are never negative, and no doc_id is empty."""

    vector_id: int = 0
    collection: str = ""
    doc_id: str = ""

    @classmethod
    def after(cls, block: Block) -> Place:
        """Give where the page after a block begins."""
        return cls(int(block.vector_ids[-1]), block.collections[-1], block.doc_ids[-1])


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
        _, last_id = self._server.read(lambda connection: extent(connection, model, collection))
        place = Place()
        while True:

            def read(connection: Connection, place: Place = place) -> Block:
                now = models.as_now(connection, model)
                select = page_after(place, last_id, now, collection, batch_rows, shard)
                block = self._read_block(connection, select, now)
                block.check(now)
                return block

            block = self._server.read(read)
            if len(block):
                yield block.doc_ids, as_vectors(block.values)
                place = Place.after(block)
            if len(block) < batch_rows:
                return

    def _read_all(
        self, connection: Connection, model: StoredModel, collection: str | None, dim: int | None
    ) -> tuple[list[str], Vectors]:
        n_documents, last_id = extent(connection, model, collection)
        vectors = np.empty((n_documents, model.dim if dim is None else dim), dtype=VECTOR_DTYPE)
        doc_ids: list[str] = []
        place, n_rows = Place(), rows_at_once(model)
        while len(doc_ids) < n_documents:
            select = page_after(place, last_id, model, collection, n_rows, None)
            block = self._read_block(connection, select, model)
            block.check(model)
            vectors[len(doc_ids) : len(doc_ids) + len(block)] = _cut(block, dim)
            doc_ids += block.doc_ids
            place = Place.after(block)
        return doc_ids, vectors

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
                if error.sqlstate != FEATURE_NOT_SUPPORTED:
                    raise
                connection.execute("ROLLBACK TO SAVEPOINT copying")
                self._can_copy = False
            else:
                connection.execute("RELEASE SAVEPOINT copying")
                self._can_copy = True
                return block
        return (copy_block if self._can_copy else select_block)(connection, select, model)


def extent(connection: Connection, model: StoredModel, collection: str | None) -> tuple[int, int]:
    """Count the documents of a model, and give the highest vector_id that one points at, 0 where there are none."""
    values: tuple[Any, ...] = (model.model_id,)
    if collection is None:
        rows = connection.execute(EXTENT, values, binary=True).fetchall()
    else:
        rows = connection.execute(EXTENT_OF_COLLECTION, (*values, stored(collection)), binary=True).fetchall()
    return rows[0][0], rows[0][1] or 0


def page_after(
    place: Place, last_id: int, model: StoredModel, collection: str | None, n_rows: int, shard: Shard | None
) -> Composed:
    """Give the statement for a page of documents, in the order in which their vectors are stored."""
    scope = SQL("") if collection is None else IN_COLLECTION.format(Literal(stored(collection)))
    if shard is not None:
        scope += IN_SHARD.format(Literal(shards.BLOCK_ROWS), Literal(shard[1]), Literal(shard[0]))
    return PAGE.format(
        columns=COLUMNS,
        model_id=Literal(model.model_id),
        first_id=Literal(place.vector_id),
        last_id=Literal(last_id),
        collection=Literal(stored(place.collection)),
        doc_id=Literal(stored(place.doc_id)),
        scope=scope,
        limit=Literal(n_rows),
    )


def rows_at_once(model: StoredModel) -> int:
    """Tell how many rows make a block."""
    return min(ROWS_AT_ONCE, max(1, BYTES_AT_ONCE // (model.dim * STORED_DTYPES[model.dtype].itemsize)))


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


def _cut(block: Block, dim: int | None) -> Vectors:
    return as_vectors(block.values) if dim is None else truncated(as_vectors(block.values), dim)
