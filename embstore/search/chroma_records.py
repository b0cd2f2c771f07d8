"""Documents as Chroma keeps them, and back: the content hash is one of the metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from embstore.codec import Vectors, as_vectors
from embstore.encoders import without_surrogates
from embstore.search.base import HASH_KEY, Document, IndexRecord, Metadata, StoredDocument


def records_of(documents: Sequence[Document], vectors: Vectors) -> list[IndexRecord]:
    """Make records of n documents and their vectors (n, dim)."""
    return [
        IndexRecord(
            document.doc_id, without_surrogates(document.text), document.content_hash, document.metadata, vector
        )
        for document, vector in zip(documents, vectors, strict=True)
    ]


def matrix_of(records: Sequence[IndexRecord]) -> Vectors:
    """Give the vectors of records, none of which is None: (n, dim)."""
    return as_vectors(cast(Any, [record.vector for record in records]))


def whole_metadata(record: IndexRecord) -> Metadata | None:
    """Give what Chroma is to keep of a record besides its text; it takes no empty dict."""
    if record.content_hash is None:
        return record.metadata or None
    return {**record.metadata, HASH_KEY: record.content_hash}


def batch_of(records: Sequence[IndexRecord], vectors: Vectors) -> dict[str, Any]:
    """Give records and their vectors (n, dim) as ``Collection.add`` takes them in one call."""
    return {
        "ids": [record.doc_id for record in records],
        "embeddings": vectors,
        "documents": [record.document for record in records],
        "metadatas": [whole_metadata(record) for record in records],
    }


def stored_document(metadata: Mapping[str, Any] | None) -> StoredDocument:
    """Take the content hash out of what Chroma keeps of a record besides its text."""
    others: Metadata = dict(metadata or {})
    content_hash = others.pop(HASH_KEY, None)
    return StoredDocument(content_hash if isinstance(content_hash, str) else None, others)


def as_records(page: Mapping[str, Any], vectors: Mapping[str, Vectors]) -> list[IndexRecord]:
    """Make records of what `get` gave, and of the vectors that could be read."""
    stored = map(stored_document, page["metadatas"])
    return [
        IndexRecord(doc_id, text, record.content_hash, record.metadata, vectors.get(doc_id))
        for doc_id, text, record in zip(page["ids"], page["documents"], stored, strict=True)
    ]
