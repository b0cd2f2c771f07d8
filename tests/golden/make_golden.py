"""Make the golden file of the present schema version: ``python -m tests.golden.make_golden [PATH]``.

Run it once for each version of the schema, before that version is released, and never again: a golden file is what a
user of that version has on the disk. Every row is the same each time, apart from the moment in `applied_at` of
sqlite-utils. Vectors are made of the text's SHA-256 by exact arithmetic, so that they are the same on any machine.
"""

from __future__ import annotations

import hashlib
import sys
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from embstore import EmbeddingCache, content_hash, grouping
from embstore.identity import ModelIdentity
from embstore.search.base import IndexRecord
from embstore.search.exact import ExactIndex
from embstore.stores import schema, sqlite_usage
from embstore.stores.tables import models

FOLDER = Path(__file__).parent
CREATED_AT = "2026-01-02T03:04:05+00:00"
DAY = CREATED_AT[:10]


class GoldenEncoder:
    """Gives a text the bytes of SHA-256(name, text) as values between -1 and 1: exact in float32."""

    def __init__(self, model_name: str, dim: int, **model_settings: Any) -> None:
        self.model_name = model_name
        self.model_settings = model_settings
        self.dim = dim
        self.texts: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.texts += texts
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> np.ndarray:
        digest = hashlib.sha256(self.model_name.encode() + b"\0" + content_hash(text)).digest()
        return np.frombuffer(digest, np.int8)[: self.dim].astype(np.float32) / np.float32(128)

    def vectors(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.vector(text) for text in texts])


class GoldenQueryEncoder(GoldenEncoder):
    """Gives a query another vector than a document."""

    def encode_query(self, texts: list[str]) -> np.ndarray:
        return self.encode([f"query: {text}" for text in texts])


# Of one model in two collections: a text shared, an empty one, ids and texts of any kind. The dim is odd.
PLAIN = GoldenEncoder("plain", dim=7)
DOCUMENTS = {
    ("", "first"): "The weather is lovely today.",
    ("", "same text"): "The weather is lovely today.",
    ("", "empty text"): "",
    ("", "nul\0inside"): "He drove to the stadium.",
    ("", "nul\0"): "größer, 犬は怠け者です 🙂",
    ("", "x" * 100): "A lone surrogate: \ud800.",
    ("other", "first"): "It's so sunny outside!",
    ("größer 🙂", "../../etc/passwd"): "It's so sunny outside!",
}
STANDALONE = "cached without an id"
FORMER = "the former text of a document"

# Of another: settings, and queries that differ.
SETTINGS = {"revision": "abc", "max_seq_length": 256, "scale": 1.0, "lower": True, "prompt": None}
ASYMMETRIC = GoldenQueryEncoder("asymmetric", dim=32, **SETTINGS)
QUERY = "what is the weather like?"

# Of one whose vectors are float16, which has a place for each of its values.
HALF = GoldenEncoder("half", dim=7)

# Of an exact index: the texts and metadata of one of the collections above.
TEXTS_OF = "other"
METADATA = {"größer": [1.5, 2.0], "year": 2026, "draft": True}

# Of no model: bytes by key.
BYTE_VALUES = {"": b"", "key": bytes(range(256)), "größer": b"x" * 100}

# Bits that must survive: -0.0, subnormals, the smallest and the largest.
BITS = np.array([[0x80000000, 1, 0x807FFFFF, 0x00800000], [0x7F7FFFFF, 0xFF7FFFFF, 0x3F800001, 0]], np.uint32)


def make(path: Path) -> None:
    """Fill a new file."""
    with (
        mock.patch.object(models, "datetime") as datetime,
        mock.patch.object(grouping, "time") as clock,
        mock.patch.object(sqlite_usage, "_today", return_value=DAY),
    ):
        datetime.datetime.now.return_value.isoformat.return_value = CREATED_AT
        clock.perf_counter.side_effect = count(step=0.25)  # seconds: each call of an encoder takes as long
        with EmbeddingCache(path) as cache:
            cache.get("first", FORMER, PLAIN)
            for (collection, doc_id), text in DOCUMENTS.items():
                cache.get(doc_id, text, PLAIN, collection=collection)
            cache.embed([STANDALONE], PLAIN)
            cache.get_many(["a", "b"], ["one", "two"], ASYMMETRIC)
            cache.embed_query(QUERY, ASYMMETRIC)
            cache.put_many(["bits", "more bits"], ["one", "two"], BITS.view(np.float32), model_name="without canary")
            with EmbeddingCache(path, dtype="float16") as of_half:
                of_half.get_many(["a", "b"], ["one", "two"], HALF)
            ExactIndex(cache.store, TEXTS_OF, ModelIdentity("plain")).put(
                [
                    IndexRecord(doc_id, text, None, METADATA, PLAIN.vector(text))
                    for (collection, doc_id), text in DOCUMENTS.items()
                    if collection == TEXTS_OF
                ]
            )
            cache.store.byte_values.mset(BYTE_VALUES)
            assert cache.verify() == []


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / f"schema_{schema.SCHEMA_VERSION}.db")
