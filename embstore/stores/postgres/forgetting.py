"""Forgetting documents, models and vectors that nothing uses, on a server.

Who removes rows of a model has locked it, so that nobody points a document at a vector that is being removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from embstore.stores.base import PruneReport
from embstore.stores.postgres import collections, models
from embstore.stores.postgres.arrays import Int8Array, TextArray
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import stored

KEYS_AT_ONCE = 10_000

MODEL_IDS = """
SELECT model_id
FROM models
WHERE model_name = %s OR %s
"""

# One search of the key for each, as the planner would read all documents.
SCOPES = """
WITH RECURSIVE scopes (model_id, collection) AS (
    (SELECT model_id, collection FROM documents ORDER BY model_id, collection LIMIT 1)
    UNION ALL
    SELECT next.model_id, next.collection
    FROM scopes
    CROSS JOIN LATERAL (
        SELECT documents.model_id, documents.collection
        FROM documents
        WHERE (documents.model_id, documents.collection) > (scopes.model_id, scopes.collection)
        ORDER BY documents.model_id, documents.collection
        LIMIT 1
    ) AS next
)
SELECT model_id, collection
FROM scopes
"""

HAS_ANY = """
SELECT EXISTS (SELECT 1 FROM documents WHERE model_id = %s AND collection = %s AND doc_id = ANY(%b))
"""

DELETE_DOCUMENTS = """
DELETE FROM documents
WHERE model_id = %s AND collection = %s AND doc_id = ANY(%b)
RETURNING vector_id
"""

DELETE_SCOPE = """
DELETE FROM documents
WHERE model_id = %s AND collection = %s
RETURNING vector_id
"""

IS_UNUSED = """NOT EXISTS (
    SELECT 1 FROM documents WHERE documents.model_id = vectors.model_id AND documents.vector_id = vectors.vector_id
)"""

DELETE_UNUSED = f"""
DELETE FROM vectors
WHERE model_id = %s AND vector_id = ANY(%b) AND {IS_UNUSED}
"""

# Rows of no model, which only damage leaves, go with the last.
DELETE_OF_MODELS = """
DELETE FROM {table}
WHERE model_id = ANY(%b) OR (%s AND NOT EXISTS (SELECT 1 FROM models WHERE models.model_id = {table}.model_id))
"""

DELETE_MODELS = """
DELETE FROM models
WHERE model_id = ANY(%b)
"""

UNUSED = f"""
SELECT model_id, count(*), sum(octet_length(vector))
FROM vectors
WHERE (%s OR NOT standalone) AND {IS_UNUSED}
GROUP BY model_id
ORDER BY model_id
"""

PRUNE = f"""
WITH pruned AS (
    DELETE FROM vectors
    WHERE model_id = %s AND (%s OR NOT standalone) AND {IS_UNUSED}
    RETURNING octet_length(vector) AS n_bytes
)
SELECT count(*), coalesce(sum(n_bytes), 0)
FROM pruned
"""


class PostgresForgetting:
    """The part of a `Store` on a server that removes rows; see `embstore.stores.base.Store` for each method."""

    _server: Server

    def forget_documents(self, doc_ids: Sequence[str] | None, *, model_name: str | None, collection: str | None) -> int:
        """See `Store.forget_documents`."""
        return self._server.write(lambda connection: _forget_documents(connection, doc_ids, model_name, collection))

    def forget_models(self, model_name: str | None) -> int:
        """See `Store.forget_models`."""
        return self._server.write(lambda connection: _forget_models(connection, model_name))

    def prune(self, *, standalone: bool, dry_run: bool) -> PruneReport:
        """See `Store.prune`."""
        unused = self._server.fetch(UNUSED, (standalone,))
        if not dry_run and unused:
            model_ids = [model_id for model_id, _, _ in unused]
            return self._server.write(lambda connection: _prune(connection, model_ids, standalone))
        n_vectors, n_bytes = (sum(int(row[column]) for row in unused) for column in (1, 2))
        return PruneReport(n_vectors, n_bytes, removed=not dry_run)


def model_ids(connection: Connection, model_name: str | None) -> list[int]:
    """List the models of a name (None: all) to forget them, which a damaged row does not prevent."""
    values = (stored(model_name or ""), model_name is None)
    return [model_id for (model_id,) in connection.execute(MODEL_IDS, values, binary=True)]


def scopes(
    connection: Connection, of_models: Iterable[int] | None = None, collection: str | None = None
) -> list[tuple[int, str]]:
    """List the (model_id, collection) that have documents; collections as they are stored."""
    wanted = None if of_models is None else set(of_models)
    return [
        (model_id, name)
        for model_id, name in connection.execute(SCOPES, binary=True)
        if (wanted is None or model_id in wanted) and (collection is None or name == stored(collection))
    ]


def _forget_documents(
    connection: Connection, doc_ids: Sequence[str] | None, model_name: str | None, collection: str | None
) -> int:
    of_models = None if model_name is None else model_ids(connection, model_name)
    there = scopes(connection, of_models, collection)
    if doc_ids is not None:
        there = [scope for scope in there if _has_any(connection, scope, doc_ids)]
    models.lock_whole(connection, {model_id for model_id, _ in there})
    n_forgotten, changed = 0, set[int]()
    for scope in there:
        pointers = _delete_documents(connection, scope, doc_ids)
        n_forgotten += len(pointers)
        if _delete_unused(connection, scope[0], pointers):
            changed.add(scope[0])
    collections.vectors_changed(connection, models.identities(connection, changed))
    return n_forgotten


def _has_any(connection: Connection, scope: tuple[int, str], doc_ids: Sequence[str]) -> bool:
    return any(connection.execute(HAS_ANY, (*scope, keys), binary=True).fetchall()[0][0] for keys in _arrays(doc_ids))


def _delete_documents(connection: Connection, scope: tuple[int, str], doc_ids: Sequence[str] | None) -> list[int]:
    """Remove some documents, or all of a model and collection, and give the vectors that they pointed at."""
    if doc_ids is None:
        return [vector_id for (vector_id,) in connection.execute(DELETE_SCOPE, scope, binary=True)]
    return [
        vector_id
        for keys in _arrays(doc_ids)
        for (vector_id,) in connection.execute(DELETE_DOCUMENTS, (*scope, keys), binary=True)
    ]


def _delete_unused(connection: Connection, model_id: int, vector_ids: Sequence[int]) -> int:
    """Remove those of some vectors that no document uses, and count them."""
    distinct = sorted(set(vector_ids))
    return sum(
        connection.execute(DELETE_UNUSED, (model_id, Int8Array(distinct[start : start + KEYS_AT_ONCE]))).rowcount
        for start in range(0, len(distinct), KEYS_AT_ONCE)
    )


def _forget_models(connection: Connection, model_name: str | None) -> int:
    is_all = model_name is None
    locked = models.lock_whole(connection, model_ids(connection, model_name))
    identities = None if is_all else models.identities(connection, locked)
    keys = Int8Array(locked)
    n_forgotten = 0
    for table in ("documents", "vectors", "encodings", "usage"):
        n_rows = connection.execute(DELETE_OF_MODELS.format(table=table), (keys, is_all)).rowcount
        n_forgotten += n_rows if table == "documents" else 0
    collections.vectors_changed(connection, identities)
    connection.execute(DELETE_MODELS, (keys,))
    return n_forgotten


def _prune(connection: Connection, of_models: Sequence[int], standalone: bool) -> PruneReport:
    models.lock_whole(connection, of_models)
    n_vectors, n_bytes, changed = 0, 0, set[int]()
    for model_id in of_models:
        ((n, vector_bytes),) = connection.execute(PRUNE, (model_id, standalone), binary=True).fetchall()
        n_vectors, n_bytes = n_vectors + n, n_bytes + int(vector_bytes)
        if n:
            changed.add(model_id)
    collections.vectors_changed(connection, models.identities(connection, changed))
    return PruneReport(n_vectors, n_bytes, removed=True)


def _arrays(doc_ids: Sequence[str]) -> Iterator[TextArray]:
    for start in range(0, len(doc_ids), KEYS_AT_ONCE):
        yield TextArray([stored(doc_id).encode() for doc_id in doc_ids[start : start + KEYS_AT_ONCE]])
