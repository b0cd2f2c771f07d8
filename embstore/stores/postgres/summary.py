"""Counting and listing what a server holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embstore.stores.base import DocumentInfo, ModelInfo, Stats, StoredModel
from embstore.stores.postgres import forgetting, models, usage
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.schema import TABLES
from embstore.stores.postgres.strings import given, stored
from embstore.stores.postgres.usage import PostgresUsage

LISTED_AT_ONCE = 1000

COUNT_BY_MODEL = """
SELECT model_id, count(*)
FROM {table}
GROUP BY model_id
"""

COUNT_DOCUMENTS = """
SELECT count(*)
FROM documents
"""

COUNT_USED = """
SELECT count(DISTINCT vector_id), count(DISTINCT doc_id)
FROM documents
"""

SIZE = f"""
SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
    AND relname IN ({", ".join(f"'{name}'" for name in TABLES)})
"""

LIST_DOCUMENTS = """
SELECT documents.doc_id, encode(vectors.content_hash, 'hex')
FROM documents
JOIN vectors ON vectors.model_id = documents.model_id AND vectors.vector_id = documents.vector_id
WHERE documents.model_id = %s AND documents.collection = %s AND documents.doc_id > %s
ORDER BY documents.doc_id
LIMIT %s
"""

FIND_DOCUMENT = """
SELECT documents.doc_id, encode(vectors.content_hash, 'hex')
FROM documents
JOIN vectors ON vectors.model_id = documents.model_id AND vectors.vector_id = documents.vector_id
WHERE documents.model_id = %s AND documents.collection = %s AND documents.doc_id = %s
"""


class PostgresSummary:
    """The part of a `Store` on a server that counts and lists; see `embstore.stores.base.Store` for each method."""

    _server: Server
    _usage: PostgresUsage
    location: str

    def count_documents(self) -> int:
        """See `Store.count_documents`."""
        return int(self._server.fetch(COUNT_DOCUMENTS)[0][0])

    def has_document(self, doc_id: str) -> bool:
        """See `Store.has_document`."""

        def has(connection: Connection) -> bool:
            return any(_find(connection, scope, doc_id) for scope in forgetting.scopes(connection))

        return self._server.read(has)

    def list_documents(self, model_name: str | None, collection: str | None) -> Iterator[DocumentInfo]:
        """See `Store.list_documents`."""
        for model, scope in self._scopes(model_name, collection):
            last = ""  # comes before every doc_id, as none is empty
            while True:
                page = self._server.fetch(LIST_DOCUMENTS, (*scope, last, LISTED_AT_ONCE))
                yield from _infos(model, scope, page)
                if len(page) < LISTED_AT_ONCE:
                    break
                last = page[-1][0]

    def find_documents(self, doc_id: str, model_name: str | None, collection: str | None) -> list[DocumentInfo]:
        """See `Store.find_documents`."""
        with self._server.reading() as connection:
            return [
                info
                for model, scope in self._scopes(model_name, collection)
                for info in _infos(model, scope, _find(connection, scope, doc_id))
            ]

    def stats(self) -> Stats:
        """See `Store.stats`."""
        return self._server.read(self._stats)

    def _scopes(self, model_name: str | None, collection: str | None) -> list[tuple[StoredModel, tuple[int, str]]]:
        def find(connection: Connection) -> list[tuple[StoredModel, tuple[int, str]]]:
            model_of = {model.model_id: model for model in models.find_by_name(connection, model_name)}
            return [(model_of[scope[0]], scope) for scope in forgetting.scopes(connection, model_of, collection)]

        return self._server.read(find)

    def _stats(self, connection: Connection) -> Stats:
        n_vectors, n_documents = (_by_model(connection, table) for table in ("vectors", "documents"))
        infos = [
            ModelInfo(
                model_name=model.identity.model_name,
                settings=model.identity.settings,
                dim=model.dim,
                dtype=model.dtype,
                created_at=model.created_at,
                n_vectors=n_vectors.get(model.model_id, 0),
                n_documents=n_documents.get(model.model_id, 0),
                has_canary=model.canary is not None,
                usage=usage.of_model(connection, model.model_id, *self._usage.waiting(model.model_id)),
            )
            for model in models.find_by_name(connection, None)
        ]
        n_all = sum(n_documents.values())
        n_used, n_doc_ids = connection.execute(COUNT_USED, binary=True).fetchall()[0]
        return Stats(
            path=self.location,
            size_bytes=int(connection.execute(SIZE, binary=True).fetchall()[0][0]),
            n_documents=n_all,
            n_doc_ids=n_doc_ids,
            n_vectors=sum(info.n_vectors for info in infos),
            n_unused=sum(info.n_vectors for info in infos) - n_used,
            models=tuple(infos),
            n_duplicates=n_all - n_used,
        )


def _by_model(connection: Connection, table: str) -> dict[int, int]:
    return dict(connection.execute(COUNT_BY_MODEL.format(table=table), binary=True).fetchall())


def _find(connection: Connection, scope: tuple[int, str], doc_id: str) -> list[tuple[Any, ...]]:
    return connection.execute(FIND_DOCUMENT, (*scope, stored(doc_id)), binary=True).fetchall()


def _infos(model: StoredModel, scope: tuple[int, str], rows: list[tuple[Any, ...]]) -> list[DocumentInfo]:
    identity, collection = model.identity, given(scope[1])
    return [
        DocumentInfo(given(doc_id), collection, identity.model_name, identity.settings, model.dim, key, model.dtype)
        for doc_id, key in rows
    ]
