"""Every check of the tables of a server: their columns, every checksum, and every reference.

In pages, each one state of the tables and a transaction of its own, so that neither memory nor time hold anybody up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, groupby
from typing import Any

import numpy as np

from embstore.errors import DamagedStoreError, EmbstoreError, NewerStoreError, NotAStoreError
from embstore.formats import STORED_DTYPES
from embstore.stores.base import Problem, StoredModel
from embstore.stores.postgres import byte_values, collections, migrating, models, text_rows, usage_rows, vectors
from embstore.stores.postgres.arrays import TextArray
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import given
from embstore.stores.tables.collections import COLUMNS as COLLECTION_COLUMNS
from embstore.stores.verify import document_problems

ROWS_AT_ONCE = 5000
BYTES_AT_ONCE = 2**25

ALL_MODELS = f"""
SELECT identity_hash, {models.COLUMNS}
FROM models
ORDER BY model_id
"""

VECTORS = """
SELECT vector_id, model_id, dim, content_hash, checksum, standalone, vector
FROM vectors
WHERE vector_id > %s
ORDER BY vector_id
LIMIT %s
"""

DOCUMENTS = """
SELECT documents.model_id, documents.collection, documents.doc_id, documents.checksum,
    vectors.content_hash, vectors.model_id
FROM documents
LEFT JOIN vectors ON vectors.model_id = documents.model_id AND vectors.vector_id = documents.vector_id
WHERE (documents.model_id, documents.collection, documents.doc_id) > (%s, %s, %s)
ORDER BY documents.model_id, documents.collection, documents.doc_id
LIMIT %s
"""

COLLECTIONS = f"""
SELECT {COLLECTION_COLUMNS},
    (SELECT count(*) FROM texts WHERE texts.collection = collections.collection)
FROM collections
"""

TEXT_SIZES = """
SELECT text_id, octet_length(text) + octet_length(metadata)
FROM texts
WHERE text_id > %s
ORDER BY text_id
LIMIT %s
"""

TEXTS = f"""
SELECT collection, EXISTS (SELECT 1 FROM collections WHERE collections.collection = texts.collection),
    {text_rows.COLUMNS}
FROM texts
WHERE text_id BETWEEN %s AND %s
ORDER BY text_id
"""

VALUE_SIZES = """
SELECT key, octet_length(value)
FROM byte_values
WHERE key > %s
ORDER BY key
LIMIT %s
"""

OF_NO_MODEL = """
SELECT model_id
FROM {table}
WHERE NOT EXISTS (SELECT 1 FROM models WHERE models.model_id = {table}.model_id)
"""

CHECKSUM = "the row is not what was written (checksum)"
LEAST_ID = -(2**63)


class PostgresVerify:
    """The part of a `Store` on a server that checks it."""

    _server: Server

    def verify(self) -> list[Problem]:
        """See `Store.verify`."""
        found: list[Problem] = []
        for check in CHECKS:
            try:
                found += check(self._server)
            except (DamagedStoreError, NewerStoreError, NotAStoreError) as error:
                found.append(Problem(check.__name__.lstrip("_"), "", f"cannot be read: {error}"))
        return found


def _schema(server: Server) -> list[Problem]:
    server.read(lambda connection: migrating.find_version(connection, server.location))
    return []


def _models(server: Server) -> Iterator[Problem]:
    for key, *row in server.fetch(ALL_MODELS):
        try:
            model = models.checked(tuple(row))
        except EmbstoreError as error:
            yield Problem("models", f"model_id {row[0]}", error.message)
        else:
            if model.identity.digest != key:
                yield Problem("models", f"model_id {row[0]}", "identity_hash is another model's: it cannot be found")


def _noted(server: Server) -> Iterator[Problem]:
    for table, key in server.read(lambda connection: list(usage_rows.damaged(connection))):
        yield Problem(table, key, CHECKSUM)
    for table in ("encodings", "usage"):
        for (model_id,) in server.fetch(OF_NO_MODEL.format(table=table)):
            yield Problem(table, f"model_id {model_id}", "points at a row of models that is not there")


def _sound_models(connection: Connection) -> dict[int, StoredModel]:
    sound = {}
    for _, *row in connection.execute(ALL_MODELS, binary=True):
        try:
            sound[row[0]] = models.checked(tuple(row))
        except EmbstoreError:
            continue  # _models reports it
    return sound


def _vectors(server: Server) -> Iterator[Problem]:
    last, n_rows = LEAST_ID, 1

    def page(connection: Connection) -> tuple[int | None, int, list[Problem]]:
        model_of = _sound_models(connection)
        row_bytes = [model.dim * STORED_DTYPES[model.dtype].itemsize for model in model_of.values()]
        n = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(row_bytes, default=1)))
        rows = connection.execute(VECTORS, (last, n), binary=True).fetchall()
        return rows[-1][0] if rows else None, len(rows), list(_vector_problems(rows, model_of))

    while n_rows:
        last_read, n_rows, problems = server.read(page)
        last = last if last_read is None else last_read
        yield from problems


def _vector_problems(rows: list[tuple[Any, ...]], model_of: dict[int, StoredModel]) -> Iterator[Problem]:
    for (model_id, dim), group in groupby(sorted(rows, key=lambda row: row[1:3]), key=lambda row: row[1:3]):
        model = model_of.get(model_id)
        ids, _, _, *columns = zip(*group, strict=True)
        if model is None or model.dim != dim:
            for vector_id in ids:
                yield Problem("vectors", f"vector_id {vector_id}", f"model_id {model_id} or dim {dim} is damaged")
            continue
        stored = vectors.as_rows(model, *columns)
        sound = stored.sound(model.model_id, stored.content_hashes)
        for row in np.flatnonzero(~sound).tolist():
            yield Problem("vectors", f"vector_id {ids[row]}", CHECKSUM)


def _documents(server: Server) -> Iterator[Problem]:
    last: tuple[Any, ...] = (LEAST_ID, "", "")
    while True:
        with server.reading() as connection:
            model_of = _sound_models(connection)
            rows = connection.execute(DOCUMENTS, (*last, ROWS_AT_ONCE), binary=True).fetchall()
        for (model_id, name), group in groupby(rows, key=lambda row: row[:2]):
            whole = [(given(doc_id), *rest) for _, _, doc_id, *rest in group]
            for doc_id, what in document_problems(model_id, given(name), whole, model_of):
                yield Problem("documents", f"doc_id {doc_id!r:.80}", f"in collection {given(name)!r:.80}: {what}")
        if not rows:
            return
        last = rows[-1][:3]


def _collections(server: Server) -> Iterator[Problem]:
    for *row, n_texts in server.fetch(COLLECTIONS):
        try:
            collection = collections.checked(tuple(row))
        except EmbstoreError as error:
            yield Problem("collections", repr(given(row[0]))[:80], error.message)
            continue
        if n_texts != collection.n_texts:
            what = f"has {n_texts} texts, of {collection.n_texts} written"
            yield Problem("collections", repr(collection.name)[:80], what)


def _texts(server: Server) -> Iterator[Problem]:
    for first, last in _ranges(server, TEXT_SIZES, LEAST_ID):
        for name, has_collection, text_id, *values in server.fetch(TEXTS, (first, last)):
            if not has_collection:
                yield Problem("texts", f"text_id {text_id}", "points at a row of collections that is not there")
            if text_rows.sound(given(name), values) is None:
                yield Problem("texts", f"text_id {text_id}", f"in collection {given(name)!r:.80}: {CHECKSUM}")


def _byte_values(server: Server) -> Iterator[Problem]:
    for keys in chain([[""]], _pieces(server, VALUE_SIZES, "")):  # after the empty key come all others
        array = TextArray([key.encode() for key in keys])
        for key, value, checksum in server.fetch(byte_values.READ, (array,)):
            if not byte_values.is_sound(key, value, checksum):
                yield Problem("byte_values", f"key {given(key)!r:.80}", CHECKSUM)


def _ranges(server: Server, sizes: str, least: Any) -> Iterator[tuple[Any, Any]]:
    return ((keys[0], keys[-1]) for keys in _pieces(server, sizes, least))


def _pieces(server: Server, sizes: str, least: Any) -> Iterator[list[Any]]:
    """Cut the ascending keys of a table into pieces whose rows fit into memory."""
    last, piece, n_bytes = least, list[Any](), 0
    while rows := server.fetch(sizes, (last, ROWS_AT_ONCE)):
        for key, size in rows:
            if piece and n_bytes + size > BYTES_AT_ONCE:
                yield piece
                piece, n_bytes = [], 0
            piece.append(key)
            n_bytes += size
        last = rows[-1][0]
        yield piece
        piece, n_bytes = [], 0


CHECKS: tuple[Callable[[Server], Any], ...] = (
    *(_schema, _models, _noted, _vectors, _documents),
    *(_collections, _texts, _byte_values),
)
