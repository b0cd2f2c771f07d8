"""Which records of a Chroma collection a search finds, and which vectors it still has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embstore.codec import Vectors, as_vectors
from embstore.search.collection import import_chromadb, record_pages

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

_QUERIES = 128  # vectors; a server is sent them as text
_NEAREST = 3  # of a record's own vector: itself, and room for others with the same
_SAME = 1e-5  # a distance that rounding does not reach


def unreachable_ids(collection: Collection) -> list[str]:
    """List the records that neither one search for as many as there are nor one by their own vector gives.

    The first one alone would not do: among many vectors that are the same it leaves some out, in a sound index too.

    Parameters
    ----------
    collection : chromadb Collection
        As `get_collection` gives it now: one from before its first record does not know its dimension.
    """
    n, dim = collection.count(), collection.get_model().dimension
    if not n or dim is None:
        return []
    everywhere = np.ones((1, dim), dtype=np.float32)
    found = set(collection.query(query_embeddings=everywhere, n_results=n, include=[])["ids"][0])
    lost: list[str] = []
    for page in record_pages(collection, []):
        doc_ids = [doc_id for doc_id in page["ids"] if doc_id not in found]
        vectors = readable_vectors(collection, doc_ids)
        missed = missed_ids(collection, list(vectors), as_vectors(list(vectors.values()))) if vectors else []
        lost += [doc_id for doc_id in doc_ids if doc_id not in vectors] + missed
    return lost


def missed_ids(collection: Collection, doc_ids: Sequence[str], vectors: Vectors) -> list[str]:
    """List the records that a search by their own vector does not give.

    Where so many have the same vector that they fill the results, one of them is as good as another.

    Parameters
    ----------
    collection : chromadb Collection
    doc_ids : sequence of n str
    vectors : ndarray of shape (n, dim), float32
        As the collection has them.
    """
    missed = []
    for start in range(0, len(doc_ids), _QUERIES):
        rows = slice(start, start + _QUERIES)
        results: Any = collection.query(query_embeddings=vectors[rows], n_results=_NEAREST, include=["distances"])
        for doc_id, ids, distances in zip(doc_ids[rows], results["ids"], results["distances"], strict=True):
            crowded_out = len(ids) == _NEAREST and distances[-1] <= _SAME
            if doc_id not in ids and not crowded_out:
                missed.append(doc_id)
    return missed


def readable_vectors(collection: Collection, doc_ids: Sequence[str]) -> dict[str, Vectors]:
    """Read the vectors of some records as far as the collection still has them: float32 of shape (dim,) by id."""
    if not doc_ids:
        return {}
    try:
        page: Any = collection.get(ids=list(doc_ids), include=["embeddings"])
    except import_chromadb().errors.InternalError:
        # Where one of them is lost Chroma gives none, and does not say which it is.
        if len(doc_ids) == 1:
            return {}
        half = len(doc_ids) // 2
        return {**readable_vectors(collection, doc_ids[:half]), **readable_vectors(collection, doc_ids[half:])}
    return dict(zip(page["ids"], as_vectors(page["embeddings"]), strict=True))
