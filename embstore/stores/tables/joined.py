"""A document with its vector and the checksum of its model, in one statement."""

from __future__ import annotations

# CROSS JOIN: in this order, whatever statistics say.
ONE = """
SELECT models.checksum, documents.checksum, vectors.checksum, vectors.vector
FROM documents
CROSS JOIN vectors ON vectors.vector_id = documents.vector_id
CROSS JOIN models ON models.model_id = documents.model_id
WHERE documents.model_id = ? AND documents.collection = ? AND documents.doc_id = ?
"""
