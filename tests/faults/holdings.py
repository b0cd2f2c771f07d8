"""A file with something of everything that the schema has, and what it holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from embstore._migrations.migrations import migrations
from sqlite_utils import Database

from embstore import EmbeddingCache, ModelIdentity, content_hash
from embstore.canary import CANARY_TEXT
from embstore.codec import Vectors
from embstore.identity import Dtype
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.texts import StoredText
from tests.scifact import SCIFACT

NOTES = "notes"

Scope = tuple[str, str]
"""model_name, collection"""


@cache
def _scifact() -> Vectors:
    vectors: Vectors = np.load(SCIFACT / "minilm_docs.npy", mmap_mode="r")
    return vectors


@dataclass(frozen=True)
class RealEncoder:
    """Gives each text one of SciFact's vectors, or their leading values."""

    model_name: str
    dim: int
    dtype: Dtype = "float32"

    def encode(self, texts: list[str]) -> Vectors:
        return np.ascontiguousarray(_scifact()[list(map(_row, texts)), : self.dim])

    def stored(self, texts: list[str]) -> Vectors:
        """What the file gives back of them: float32 of shape (n, dim)."""
        return _stored(self, tuple(texts))


@cache
def _stored(encoder: RealEncoder, texts: tuple[str, ...]) -> Vectors:
    vectors = encoder.encode(list(texts))
    return vectors.astype(np.float16).astype(np.float32) if encoder.dtype == "float16" else vectors


@cache
def _row(text: str) -> int:
    return (
        0
        if text == CANARY_TEXT
        else int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") % len(_scifact())
    )


ENCODERS = {
    "whole": RealEncoder("whole", 384),
    "half": RealEncoder("half", 384, "float16"),
    "seven": RealEncoder("seven", 7),
}


class Holdings:
    """What a file of about n documents holds.

    Attributes
    ----------
    documents : dict
        The text of each doc_id of each model and collection.
    standalone : dict
        The texts of each model that were cached without an id.
    texts : dict
        Those of the collection "notes", by doc_id.
    byte_values : dict
        Bytes by key.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.documents: dict[Scope, dict[str, str]] = {
            ("whole", ""): {_id(i): f"text {i // 2}" for i in range(n)},
            ("whole", NOTES): {_id(i): f"text {i + n // 4}" for i in range(n // 3)},
            ("half", ""): {_id(i): f"text {i}" for i in range(n // 3)},
            ("seven", ""): {_id(i): f"text {i}" for i in range(n)},
        }
        self.standalone = {"whole": [f"query {i}" for i in range(5)], "half": ["query 1"], "seven": []}
        self.texts = {
            doc_id: StoredText(doc_id, content_hash(text), json.dumps({"n": i}), text + " and more" * (300 * (i % 3)))
            for i, (doc_id, text) in enumerate(self.documents["whole", NOTES].items())
        }
        self.byte_values = {f"key {i}": f"bytes {i}".encode() * (i % 5 * 20) for i in range(n)}

    def contents(self, model_name: str) -> list[str]:
        """The distinct texts that there is a vector of."""
        of_documents = [
            text for scope, texts in self.documents.items() if scope[0] == model_name for text in texts.values()
        ]
        return list(dict.fromkeys(of_documents + self.standalone[model_name]))

    def of_model(self, model_name: str) -> list[tuple[str, str]]:
        """The (doc_id, text) of all its documents."""
        return [item for scope, texts in self.documents.items() if scope[0] == model_name for item in texts.items()]

    def build(self, path: Path, page_size: int) -> None:
        """Write the file; pages of it are free, and were something else before."""
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"PRAGMA page_size = {page_size}")
        migrations.apply(Database(connection))
        connection.close()
        with EmbeddingCache(path) as cache:
            gone = [f"gone {i}" for i in range(self.n // 2)]
            cache.get_many(gone, gone, ENCODERS["whole"])
            for (model_name, collection), texts in self.documents.items():
                with EmbeddingCache(path, dtype=ENCODERS[model_name].dtype) as formatted:
                    former = [f"former {text}" for text in texts.values()]
                    formatted.get_many(texts, former, ENCODERS[model_name], collection=collection)
                    formatted.get_many(texts, texts.values(), ENCODERS[model_name], collection=collection)
            for model_name, queries in self.standalone.items():
                cache.embed(queries, ENCODERS[model_name])
            cache.store.texts.ensure_collection(NOTES, ModelIdentity("whole"))
            cache.store.texts.put(NOTES, list(self.texts.values()))
            cache.store.byte_values.mset(self.byte_values)
            cache.invalidate(gone)
            cache.prune()
            assert cache.verify() == []


def _id(i: int) -> str:
    return f"doc {i}" + " of a long name" * (i % 4) * 5
