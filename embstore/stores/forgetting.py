"""Forgetting documents, models and vectors that nothing uses."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from embstore.stores.base import PruneReport
from embstore.stores.tables import collections, document_rows, documents, encodings, models, usage, vectors


def forget_documents(
    connection: Connection, doc_ids: Sequence[str] | None, model_name: str | None, collection: str | None
) -> int:
    """Forget documents, and their vectors where no other document uses them; tell how many documents."""
    model_ids = None if model_name is None else models.ids(connection, model_name)
    n_forgotten = 0
    changed: set[int] = set()
    for model_id, name in documents.scopes(connection, model_ids, collection):
        there = document_rows.find(connection, model_id, name, doc_ids)
        n_forgotten += documents.delete(connection, model_id, name, None if doc_ids is None else there.doc_ids)
        if vectors.delete_unused(connection, there.vector_ids.tolist()):
            changed.add(model_id)
    collections.vectors_changed(connection, models.identities(connection, changed))
    return n_forgotten


def forget_models(connection: Connection, model_name: str | None) -> int:
    """Forget models with all their vectors and documents; tell how many documents."""
    if model_name is None:
        collections.vectors_changed(connection, None)
        n_forgotten = documents.count(connection)
        for table in (documents, vectors, encodings, usage, models):
            table.delete_all(connection)
        return n_forgotten
    n_forgotten = 0
    model_ids = models.ids(connection, model_name)
    collections.vectors_changed(connection, models.identities(connection, model_ids))
    for model_id in model_ids:
        for _, name in documents.scopes(connection, [model_id]):
            n_forgotten += documents.delete(connection, model_id, name, None)
        vectors.delete_of_model(connection, model_id)
        encodings.delete(connection, model_id)
        usage.delete(connection, model_id)
        models.delete(connection, model_id)
    return n_forgotten


def prune(connection: Connection, *, standalone: bool, dry_run: bool) -> PruneReport:
    """Remove the vectors that no document uses."""
    unused = [row for row in vectors.unused(connection) if standalone or not row[2]]
    if unused and not dry_run:
        vectors.delete_unused(connection, [vector_id for vector_id, _, _, _ in unused])
        collections.vectors_changed(connection, models.identities(connection, {row[1] for row in unused}))
    return PruneReport(len(unused), sum(n_bytes or 0 for _, _, _, n_bytes in unused), removed=not dry_run)
