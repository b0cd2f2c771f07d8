"""Which documents of a server are read in bulk, and the statements that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed, Literal

from embstore.formats import STORED_DTYPES
from embstore.stores import shards
from embstore.stores.base import StoredModel
from embstore.stores.postgres.copied import COLUMNS, TOGETHER, Block
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import stored
from embstore.stores.shards import Shard

ROWS_AT_ONCE = 8192
# Of vectors in a block: what is much larger costs both sides memory that they have to ask the system for. A page of its
# own costs a statement, and a part of a longer answer does not.
PAGE_BYTES = 2**20
PART_BYTES = 2**19

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

# All in one statement, which is sent while it is worked on: the documents in spans of about so many.
EVERYTHING = SQL(
    """
SELECT together.*
FROM (
    SELECT vector_id AS first_id, lead(vector_id, 1, {end}) OVER (ORDER BY vector_id) AS next_id
    FROM (
        SELECT vector_id, row_number() OVER (ORDER BY vector_id) AS number
        FROM documents
        WHERE model_id = {model_id}{scope}
    ) AS numbered
    WHERE (number - 1) % {n_rows} = 0
) AS spans
CROSS JOIN LATERAL ({together}) AS together
"""
)
SPAN = SQL(
    """
SELECT {columns}
FROM documents
LEFT JOIN vectors ON vectors.vector_id = documents.vector_id
    AND vectors.vector_id >= first_id AND vectors.vector_id < next_id
WHERE documents.model_id = {model_id} AND documents.vector_id >= first_id AND documents.vector_id < next_id{scope}
ORDER BY documents.vector_id, documents.collection, documents.doc_id
"""
)
HIGHEST_ID = 2**63 - 1

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


@dataclass(frozen=True)
class Span:
    """Which documents are read: so many at most, of a collection and a shard where one is said, up to a vector_id."""

    last_id: int
    collection: str | None
    shard: Shard | None
    n_rows: int

    def together(self, model: StoredModel) -> Composed:
        """Give the statement for all of a collection, or of all: blocks in the order in which vectors are stored."""
        scope, model_id = self._scope(), Literal(model.model_id)
        return EVERYTHING.format(
            end=Literal(HIGHEST_ID),
            model_id=model_id,
            scope=scope,
            n_rows=Literal(rows_at_once(model, PART_BYTES)),
            together=TOGETHER.format(SPAN.format(columns=COLUMNS, model_id=model_id, scope=scope)),
        )

    def _scope(self) -> SQL | Composed:
        return SQL("") if self.collection is None else IN_COLLECTION.format(Literal(stored(self.collection)))

    def page_after(self, place: Place, model: StoredModel, n_rows: int) -> Composed:
        """Give the statement for a page of them, in the order in which their vectors are stored."""
        scope = self._scope()
        if self.shard is not None:
            scope += IN_SHARD.format(Literal(shards.BLOCK_ROWS), Literal(self.shard[1]), Literal(self.shard[0]))
        return PAGE.format(
            columns=COLUMNS,
            model_id=Literal(model.model_id),
            first_id=Literal(place.vector_id),
            last_id=Literal(self.last_id),
            collection=Literal(stored(place.collection)),
            doc_id=Literal(stored(place.doc_id)),
            scope=scope,
            limit=Literal(n_rows),
        )


def extent(connection: Connection, model: StoredModel, collection: str | None) -> tuple[int, int]:
    """Count the documents of a model, and give the highest vector_id that one points at, 0 where there are none."""
    values: tuple[Any, ...] = (model.model_id,)
    if collection is None:
        rows = connection.execute(EXTENT, values, binary=True).fetchall()
    else:
        rows = connection.execute(EXTENT_OF_COLLECTION, (*values, stored(collection)), binary=True).fetchall()
    return rows[0][0], rows[0][1] or 0


def rows_at_once(model: StoredModel, n_bytes: int = PAGE_BYTES) -> int:
    """Tell how many rows make a block."""
    return min(ROWS_AT_ONCE, max(1, n_bytes // (model.dim * STORED_DTYPES[model.dtype].itemsize)))
