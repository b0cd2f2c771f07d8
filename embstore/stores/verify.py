"""Every check of a file: SQLite's own, and the checksums of every row of every table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from sqlite3 import Connection, DatabaseError
from typing import Any

import numpy as np

from embstore.checksums import document_checksums
from embstore.codec import HASH_BYTES
from embstore.errors import EmbstoreError
from embstore.stores import schema
from embstore.stores.base import Problem, StoredModel
from embstore.stores.tables import (
    byte_values,
    check_rows,
    collections,
    encodings,
    models,
    texts,
    usage,
    vector_rows,
)

ROWS_AT_ONCE = 5000

# Beyond this many of SQLite's own complaints, more of them say nothing new.
INTEGRITY_CHECK = "PRAGMA integrity_check(100)"

# A table at a time: checks of the whole file would work out what somebody's tables beside ours define.
INTEGRITY_CHECKS = {table: f"PRAGMA integrity_check({table})" for table in schema.TABLES}

FOREIGN_KEY_CHECKS = {table: f"PRAGMA foreign_key_check({table})" for table in schema.TABLES}

ALL_MODELS = f"""
SELECT {models.COLUMNS}
FROM models
"""

VECTOR_IDS = """
SELECT vector_id, model_id, dim
FROM vectors
ORDER BY vector_id
"""

DOCUMENTS = """
SELECT documents.model_id, documents.collection, documents.doc_id, documents.checksum,
    vectors.content_hash, vectors.model_id
FROM documents
LEFT JOIN vectors ON vectors.vector_id = documents.vector_id
"""

# By the table itself: what an index with damaged keys leaves out is to be found.
TEXT_IDS = """
SELECT text_id, collection
FROM texts NOT INDEXED
"""


def problems(connection: Connection) -> list[Problem]:
    """List everything that is not as it was written, [] where the file is sound."""
    found: list[Problem] = []
    for check in CHECKS:
        try:
            found += check(connection)
        except (DatabaseError, EmbstoreError, TypeError, ValueError, OverflowError) as error:
            found.append(Problem(check.__name__.lstrip("_"), "", f"cannot be read: {error}"))
    return found


def _schema(connection: Connection) -> Iterator[Problem]:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != schema.APPLICATION_ID or version not in schema.FINGERPRINTS:
        yield Problem("schema", "", f"application_id {application_id}, version {version} are not ours")
        return
    objects = connection.execute(schema.OBJECTS).fetchall()
    if schema.fingerprint(objects) != schema.FINGERPRINTS[version]:
        yield Problem("schema", "", "the tables or views were changed")
    for name, what in schema.intruders(objects):
        yield Problem("schema", repr(name), f"{what}, which runs inside our statements")


def _structure(connection: Connection) -> Iterator[Problem]:
    objects = connection.execute(schema.OBJECTS).fetchall()
    one_by_one = [INTEGRITY_CHECKS[table] for table in schema.our_tables(objects)]
    for check in one_by_one if schema.others_hold_expressions(objects) else [INTEGRITY_CHECK]:
        for (message,) in connection.execute(check):
            if message != "ok":
                yield Problem("file", "", message)


def _references(connection: Connection) -> Iterator[Problem]:
    for name in schema.our_tables(connection.execute(schema.OBJECTS).fetchall()):
        for table, rowid, parent, _ in connection.execute(FOREIGN_KEY_CHECKS[name]):
            yield Problem(table, "" if rowid is None else str(rowid), f"points at a row of {parent} that is not there")


def _models(connection: Connection) -> Iterator[Problem]:
    for row in connection.execute(ALL_MODELS).fetchall():
        try:
            models.checked(row)
        except EmbstoreError as error:
            yield Problem("models", f"model_id {row[0]!r:.40}", error.message)


def _encodings(connection: Connection) -> Iterator[Problem]:
    if encodings.exists(connection):
        for model_id in encodings.damaged(connection):
            yield Problem("encodings", f"model_id {model_id!r:.40}", "the row is not what was written (checksum)")


def _sound_models(connection: Connection) -> dict[int, StoredModel]:
    sound = {}
    for row in connection.execute(ALL_MODELS).fetchall():
        try:
            sound[row[0]] = models.checked(row)
        except EmbstoreError:
            continue  # _models reports it
    return sound


def _vectors(connection: Connection) -> Iterator[Problem]:
    model_of = _sound_models(connection)
    for rows in _rows_in_groups(connection, VECTOR_IDS):
        for vector_id, model_id, dim in rows:
            model = model_of.get(model_id)
            if model is None or model.dim != dim:
                what = f"model_id {model_id!r:.40} or dim {dim!r:.40} is damaged"
                yield Problem("vectors", f"vector_id {vector_id}", what)
        for model in model_of.values():
            # Sorted: a damaged id can stand anywhere.
            ids = np.unique([row[0] for row in rows if row[1:] == (model.model_id, model.dim)]).astype(np.int64)
            stored = vector_rows.read(connection, ids, model)
            for vector_id in ids[~stored.sound(model.model_id, stored.content_hashes)].tolist():
                yield Problem("vectors", f"vector_id {vector_id}", "the row is not what was written (checksum)")


def _documents(connection: Connection) -> Iterator[Problem]:
    model_of = _sound_models(connection)
    for rows in _rows_in_groups(connection, DOCUMENTS):
        for (model_id, collection), group in groupby(rows, key=lambda row: row[:2]):
            for doc_id, what in document_problems(model_id, collection, [row[2:] for row in group], model_of):
                yield Problem("documents", f"doc_id {doc_id!r:.80}", f"in collection {collection!r:.80}: {what}")


def document_problems(
    model_id: int, collection: str, rows: list[tuple[Any, ...]], model_of: dict[int, StoredModel]
) -> Iterator[tuple[str, str]]:
    """Check rows (doc_id, checksum, content_hash, model_id of the vector) of one model and collection."""
    for doc_id, _, content_hash, owner in rows:
        if model_id not in model_of or owner != model_id or not _is_hash(content_hash):
            yield doc_id, f"model_id {model_id!r:.40} or the vector that it points at is damaged"
        elif not (isinstance(collection, str) and isinstance(doc_id, str)):
            yield doc_id, "the collection or the id is no text"
    if not (isinstance(model_id, int) and isinstance(collection, str)):
        return
    whole = [row for row in rows if isinstance(row[0], str) and _is_hash(row[2])]
    doc_ids, hashes = [row[0] for row in whole], [row[2] for row in whole]
    for row, expected in zip(whole, document_checksums(model_id, collection, doc_ids, hashes), strict=True):
        if row[1] != expected:
            yield row[0], "the row is not what was written (checksum)"


def _collections(connection: Connection) -> Iterator[Problem]:
    for row in connection.execute(collections.ALL).fetchall() if collections.exists(connection) else ():
        try:
            collection = collections.checked(row)
        except EmbstoreError as error:
            yield Problem("collections", repr(row[0])[:80], error.message)
            continue
        n_texts = len(texts.ids(connection, collection.name))
        if n_texts != collection.n_texts:
            yield Problem("collections", repr(row[0])[:80], f"has {n_texts} texts, of {collection.n_texts} written")


def _texts(connection: Connection) -> Iterator[Problem]:
    if not collections.exists(connection):
        return
    for rows in _rows_in_groups(connection, TEXT_IDS):
        for name, group in groupby(rows, key=lambda row: row[1]):
            for text_id, text in texts.read(connection, name, [row[0] for row in group]).items():
                if text is None:
                    what = f"in collection {name!r:.80}: the row is not what was written (checksum)"
                    yield Problem("texts", f"text_id {text_id}", what)


def _rows_in_groups(connection: Connection, statement: str) -> Iterator[list[Any]]:
    cursor = connection.execute(statement)
    n_rows = 0
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        n_rows += len(rows)
        check_rows(connection, n_rows)
        yield rows


def _byte_values(connection: Connection) -> Iterator[Problem]:
    if byte_values.exists(connection):
        for rowid in byte_values.damaged(connection):
            yield Problem("byte_values", f"rowid {rowid}", "the row is not what was written (checksum)")


def _usage(connection: Connection) -> Iterator[Problem]:
    if usage.exists(connection):
        for model_id, day in usage.damaged(connection):
            what = "the row is not what was written (checksum)"
            yield Problem("usage", f"model_id {model_id!r:.40}, day {day!r:.40}", what)


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES


CHECKS = (
    *(_schema, _structure, _references, _models, _encodings, _vectors, _documents),
    *(_collections, _texts, _byte_values, _usage),
)
