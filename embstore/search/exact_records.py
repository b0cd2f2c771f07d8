"""Documents as an exact index keeps them, and back: metadata are JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

from embstore.codec import Vectors
from embstore.encoders import without_surrogates
from embstore.errors import DamagedStoreError
from embstore.identity import content_hash
from embstore.search.base import IndexRecord, Metadata, MetadataPatch
from embstore.stores.texts import StoredText

_SCALARS = {str, int, float, bool}


def stored_text(record: IndexRecord) -> StoredText:
    """Give what is stored of a record besides its vector."""
    text = record.document or ""
    key = content_hash(text) if record.content_hash is None else bytes.fromhex(record.content_hash)
    return StoredText(record.doc_id, key, _as_json(record.metadata), without_surrogates(text))


def patched(text: StoredText, patch: MetadataPatch) -> StoredText:
    """Set and remove keys of the metadata."""
    merged = {**metadata_of(text), **patch}
    metadata = {key: value for key, value in merged.items() if value is not None}
    return replace(text, metadata=_as_json(metadata))


def record_of(text: StoredText, vector: Vectors | None) -> IndexRecord:
    """Make a record of what is stored and its vector (dim,)."""
    return IndexRecord(text.doc_id, text.text, text.content_hash.hex(), metadata_of(text), vector)


def metadata_of(text: StoredText) -> Metadata:
    """Read the metadata; DamagedStoreError where they are none."""
    return read_metadata(text.doc_id, text.metadata)


def read_metadata(doc_id: str, metadata_json: str) -> Metadata:
    """Read the metadata of a document.

    Raises
    ------
    DamagedStoreError
        They are not what is ever written, as in a file whose checksums were made to fit.
    """
    try:
        metadata = json.loads(metadata_json)
    except (ValueError, RecursionError):
        metadata = None
    if type(metadata) is not dict or not all(map(_is_value, metadata.values())):
        raise DamagedStoreError(
            f"the metadata of doc_id {doc_id!r:.80} are no JSON of metadata: {metadata_json!r:.80}; index it again",
            doc_id=doc_id,
        )
    return cast(Metadata, metadata)


def _is_value(value: object) -> bool:
    if type(value) is list:
        return {*map(type, value)} <= _SCALARS
    return type(value) in _SCALARS


def _as_json(metadata: Metadata) -> str:
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
