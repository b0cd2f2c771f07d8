"""The tables that a server has: their version, and their columns."""

from __future__ import annotations

from embstore.errors import NewerStoreError

SCHEMA_VERSION = 1

MIGRATIONS = "embstore_migrations"

# With the view, as the last file of migrations/postgres leaves them.
TABLES = {
    "models": "model_id identity_hash model_name settings dim dtype canary created_at checksum",
    "vectors": "vector_id checksum model_id dim standalone content_hash vector",
    "documents": "model_id collection doc_id vector_id checksum",
    "encodings": "model_id n_texts n_chars seconds checksum",
    "usage": "model_id day n_hits n_hit_chars n_encoded n_stored encode_s checksum",
    "collections": "collection model_name settings n_texts texts_version vectors_version checksum",
    "texts": "text_id collection doc_id content_hash metadata text checksum",
    "byte_values": "key value checksum",
    "leases": "identity_hash content_hash owner since until",
    "embeddings": "doc_id content_hash model_name dim vector settings collection",
    MIGRATIONS: "version applied_at",
}


def check_known(version: int, location: str) -> None:
    """Refuse tables that a newer embstore has made: they may depend on rows that this one would not know to write.

    Raises
    ------
    NewerStoreError
    """
    if version > SCHEMA_VERSION:
        raise NewerStoreError(
            f"{location!r} has schema version {version}, and this embstore knows {SCHEMA_VERSION}; upgrade embstore",
            path=location,
        )
