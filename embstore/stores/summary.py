"""Counting and listing what a file holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

from embstore.errors import DamagedStoreError
from embstore.stores import opening
from embstore.stores.base import DocumentInfo, ModelInfo, Stats, StoredModel
from embstore.stores.tables import documents, encodings, models, usage
from embstore.stores.usage import ModelUsage

# Answered from the index on (model_id, content_hash); the vectors themselves are not read.
COUNT_VECTORS = """
SELECT count(*)
FROM vectors
WHERE model_id = ?
"""

COUNT_DOCUMENTS = """
SELECT count(*)
FROM documents
WHERE model_id = ?
"""

COUNT_USED = """
SELECT count(DISTINCT vector_id)
FROM documents
"""

# CROSS JOIN: in the order of documents, however few vectors there are.
LIST_DOCUMENTS = """
SELECT documents.doc_id, lower(hex(vectors.content_hash))
FROM documents
CROSS JOIN vectors ON vectors.vector_id = documents.vector_id
WHERE documents.model_id = ? AND documents.collection = ? AND documents.doc_id > ?
ORDER BY documents.doc_id
LIMIT ?
"""

FIND_DOCUMENT = """
SELECT documents.doc_id, lower(hex(vectors.content_hash))
FROM documents
CROSS JOIN vectors ON vectors.vector_id = documents.vector_id
WHERE documents.model_id = ? AND documents.collection = ? AND documents.doc_id = ?
"""


def stats(connection: Connection, path: str, waiting: Callable[[int], tuple[int, int]]) -> Stats:
    """Count everything without reading a vector; `waiting` gives a model's hits that are not stored yet."""
    found = models.find_by_name(connection, None)
    infos = tuple(_model_info(connection, model, *waiting(model.model_id)) for model in found)
    n_vectors = sum(info.n_vectors for info in infos)
    with opening.reachable(path):
        size_bytes = Path(path).stat().st_size
    n_documents = documents.count(connection)
    (n_used,) = connection.execute(COUNT_USED).fetchone()
    return Stats(
        path=path,
        size_bytes=size_bytes,
        n_documents=n_documents,
        n_doc_ids=documents.count_distinct_ids(connection),
        n_vectors=n_vectors,
        n_unused=n_vectors - n_used,
        models=infos,
        n_duplicates=max(0, n_documents - n_used),  # damage could make it negative
    )


def _model_info(connection: Connection, model: StoredModel, n_waiting: int, n_waiting_chars: int) -> ModelInfo:
    (n_vectors,) = connection.execute(COUNT_VECTORS, (model.model_id,)).fetchone()
    (n_documents,) = connection.execute(COUNT_DOCUMENTS, (model.model_id,)).fetchone()
    return ModelInfo(
        model_name=model.identity.model_name,
        settings=model.identity.settings,
        dim=model.dim,
        dtype=model.dtype,
        created_at=model.created_at,
        n_vectors=n_vectors,
        n_documents=n_documents,
        has_canary=model.canary is not None,
        usage=_usage(connection, model.model_id, n_waiting, n_waiting_chars),
    )


def _usage(connection: Connection, model_id: int, n_hits: int, n_hit_chars: int) -> ModelUsage:
    days = usage.of_model(connection, model_id)
    n_hits += sum(day.n_hits for day in days)
    n_hit_chars += sum(day.n_hit_chars for day in days)
    n_encoded, n_chars, encode_s = encodings.find(connection, model_id) or (0, 0, 0.0)
    saved_s = n_hit_chars * encode_s / n_chars if n_chars else 0.0
    return ModelUsage(n_hits, n_encoded, encode_s, saved_s, tuple(days))


def list_documents(
    connection: Connection, model: StoredModel, collection: str, after: str, limit: int
) -> list[DocumentInfo]:
    """List documents of a model and collection whose doc_id comes after another's."""
    rows = connection.execute(LIST_DOCUMENTS, (model.model_id, collection, after, limit)).fetchall()
    return _infos(model, collection, rows)


def find_document(connection: Connection, model: StoredModel, collection: str, doc_id: str) -> list[DocumentInfo]:
    """Give the document of a model and collection that has a doc_id; [] where there is none."""
    return _infos(model, collection, connection.execute(FIND_DOCUMENT, (model.model_id, collection, doc_id)).fetchall())


def _infos(model: StoredModel, collection: str, rows: list[tuple[str, str]]) -> list[DocumentInfo]:
    if not all(type(doc_id) is str for doc_id, _ in rows):
        raise DamagedStoreError("the table documents has ids that are no texts; see verify()")
    identity = model.identity
    return [
        DocumentInfo(doc_id, collection, identity.model_name, identity.settings, model.dim, content_hash, model.dtype)
        for doc_id, content_hash in rows
    ]
