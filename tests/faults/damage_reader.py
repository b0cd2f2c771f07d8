"""A process that damages copies of a file and asks for all they hold, a line of JSON for each.

    python -m tests.faults.damage_reader N FILE PAGE_SIZE SCRATCH

Each line of its input is `[kind, seed, whether to repair it]` in JSON; it answers with what was `told`, how many rows
were `lost`, and the promises that were `broken`, of which there should be none. It writes to no file but SCRATCH, and
what begins with its name.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embstore import EmbeddingCache, EmbstoreError, ModelIdentity
from embstore.codec import Vectors
from embstore.search.loading import LoadedCollection
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.tables import vector_pages
from tests.faults.holdings import ENCODERS, NOTES, Holdings
from tests.faults.injuries import injure
from tests.faults.repair_check import Repairs
from tests.files import connection

# Of every second file vectors are read off the pages, however few they are.
LEAST_ROWS_OFF_PAGES = (1, vector_pages.LEAST_ROWS)

LIVE = ("models", "vectors", "documents", "collections", "texts", "encodings", "byte_values", "usage")


class Examination:
    """What came of asking a damaged file for everything."""

    _expected: ClassVar[dict[tuple[str, str | None], dict[tuple[str, bytes], int]]] = {}  # of the one file read here

    def __init__(self, holdings: Holdings, tables: dict[str, set[Any]]) -> None:
        self.holdings = holdings
        self.tables = tables
        self.broken: list[str] = []
        self.lost: set[str] = set()
        self.failed: list[str] = []
        self.changed: list[str] = []

    def of(self, path: Path) -> dict[str, Any]:
        problems: list[str] = []
        refused = False
        try:
            with EmbeddingCache(path) as cache:
                problems = [str(problem) for problem in cache.verify()]
                self.ask(cache)
                self.compare(path)
                self.ask_by_text(cache)
            told = bool(problems)
        except EmbstoreError as error:
            told = refused = True
            problems.append(f"refused: {error}")
        except Exception as error:
            told = False
            self.broken.append(f"other: no error of ours: {error!r}")
        if not told:
            for what in (sorted(self.lost), self.failed, self.changed):
                self.broken += [f"unseen: {one}" for one in what[:3]]
        return {
            "told": told,
            "refused": refused,
            "lost": len(self.lost),
            "failed": len(self.failed),
            "changed": len(self.changed),
            "broken": self.broken,
            "problems": problems[:5],
        }

    def attempt(self, what: str, ask: Callable[[], object]) -> None:
        """Ask; an error of ours is an answer, any other is a broken promise."""
        try:
            ask()
        except EmbstoreError as error:
            self.failed.append(f"{what}: {type(error).__name__}: {error}")
        except Exception as error:
            self.broken.append(f"other: {what}: no error of ours: {error!r}")

    def ask(self, cache: EmbeddingCache) -> None:
        for model_name in ENCODERS:
            for collection in (None, "", NOTES):
                self.attempt("matrix", lambda m=model_name, c=collection: self.matrix(cache, m, c))
                self.attempt("iter_matrix", lambda m=model_name, c=collection: self.pages(cache, m, c))
            self.attempt("known", lambda m=model_name: self.known(cache, m))
        for (model_name, collection), texts in self.holdings.documents.items():
            self.attempt("by id", lambda m=model_name, c=collection, t=texts: self.by_id(cache, m, c, t))
        self.attempt("documents", lambda: self.listing(cache))
        self.attempt("stats", lambda: self.stats(cache))
        self.attempt("contains", lambda: self.contains(cache))
        self.attempt("texts", lambda: self.texts(cache))
        self.attempt("bytes", lambda: self.bytes(cache))
        self.attempt("index", lambda: self.index(cache))

    def expected(self, model_name: str, collection: str | None) -> dict[tuple[str, bytes], int]:
        """How often each (doc_id, vector) is to come."""
        if (model_name, collection) in self._expected:
            return self._expected[model_name, collection]
        expected = self._expected[model_name, collection] = {}
        for (name, other), texts in self.holdings.documents.items():
            if name == model_name and collection in (None, other):
                for doc_id, vector in zip(texts, ENCODERS[name].stored(list(texts.values())), strict=True):
                    key = (doc_id, vector.tobytes())
                    expected[key] = expected.get(key, 0) + 1
        return expected

    def is_all(self, what: str, doc_ids: list[str], vectors: Vectors, expected: dict[tuple[str, bytes], int]) -> None:
        got: dict[tuple[str, bytes], int] = {}
        for doc_id, vector in zip(doc_ids, vectors, strict=True):
            key = (doc_id, vector.tobytes())
            got[key] = got.get(key, 0) + 1
        if set(got) - set(expected):
            self.broken.append(
                f"wrong vector: {what} gave one that was not stored for {sorted(set(got) - set(expected))[0][0]!r}"
            )
        elif got != expected:
            self.broken.append(
                f"incomplete: {what} gave {len(doc_ids)} documents of {sum(expected.values())}, and no error"
            )

    def matrix(self, cache: EmbeddingCache, model_name: str, collection: str | None) -> None:
        doc_ids, vectors = cache.matrix(model_name, collection=collection)
        self.is_all("matrix", doc_ids, vectors, self.expected(model_name, collection))

    def pages(self, cache: EmbeddingCache, model_name: str, collection: str | None) -> None:
        doc_ids, parts = [], [np.empty((0, ENCODERS[model_name].dim), np.float32)]
        for ids, vectors in cache.iter_matrix(model_name, collection=collection, batch_rows=53):
            doc_ids += ids
            parts.append(vectors)
        self.is_all("iter_matrix", doc_ids, np.concatenate(parts), self.expected(model_name, collection))

    def by_id(self, cache: EmbeddingCache, model_name: str, collection: str, texts: dict[str, str]) -> None:
        doc_ids, vectors = cache.matrix(model_name, collection=collection, doc_ids=list(texts))
        if doc_ids != list(texts) or not np.array_equal(vectors, ENCODERS[model_name].stored(list(texts.values()))):
            self.broken.append("wrong vector: matrix of doc_ids")

    def known(self, cache: EmbeddingCache, model_name: str) -> None:
        encoder, contents = ENCODERS[model_name], self.holdings.contents(model_name)
        self.lost |= {f"text {text!r} of {model_name}" for text in cache.missing(contents, encoder)}

    def listing(self, cache: EmbeddingCache) -> None:
        listed = {(document.model_name, document.collection, document.doc_id) for document in cache.documents()}
        stored = {(*scope, doc_id) for scope, texts in self.holdings.documents.items() for doc_id in texts}
        self.lost |= {f"document {row}" for row in stored - listed}
        self.changed += [f"document {row} is listed" for row in sorted(listed - stored)]

    def stats(self, cache: EmbeddingCache) -> None:
        found = {model.model_name: (model.n_documents, model.n_vectors) for model in cache.stats().models}
        for name in ENCODERS:
            counts = (len(self.holdings.of_model(name)), len(self.holdings.contents(name)))
            if found.get(name) != counts:
                self.changed.append(f"stats: {name} has {found.get(name)}, not {counts}")

    def contains(self, cache: EmbeddingCache) -> None:
        ids = dict.fromkeys(doc_id for texts in self.holdings.documents.values() for doc_id in texts)
        self.lost |= {f"{doc_id!r} in cache" for doc_id in list(ids)[::3] if doc_id not in cache}
        if len(cache) != sum(map(len, self.holdings.documents.values())):
            self.changed.append(f"{len(cache)} documents")

    def texts(self, cache: EmbeddingCache) -> None:
        texts = self.holdings.texts
        found = cache.store.texts.find(NOTES, list(texts))
        self.lost |= {f"text of {doc_id!r}" for doc_id in texts if found.get(doc_id) is None}
        if any(text not in (None, texts[doc_id]) for doc_id, text in found.items()):
            self.broken.append("other: texts that were not stored")

    def bytes(self, cache: EmbeddingCache) -> None:
        values = self.holdings.byte_values
        found = dict(zip(values, cache.store.byte_values.mget(list(values)), strict=True))
        self.lost |= {f"bytes of {key!r}" for key, value in found.items() if value is None}
        if any(value not in (None, values[key]) for key, value in found.items()):
            self.broken.append("other: bytes that were not stored")
        listed = set(cache.store.byte_values.keys())
        self.lost |= {f"key {key!r}" for key in values.keys() - listed}
        self.changed += [f"key {key!r} is listed" for key in sorted(listed - values.keys())]

    def index(self, cache: EmbeddingCache) -> None:
        """What an exact index searches."""
        collection = LoadedCollection(cache.store, NOTES, ModelIdentity("whole"))
        texts = [text for page in collection.pages() for text in page]
        if {text.doc_id: text for text in texts} != self.holdings.texts or len(texts) != len(self.holdings.texts):
            self.broken.append("incomplete: not the texts that were stored, and no error")
        with collection.matrix() as matrix:
            if sorted(matrix.doc_ids) != sorted(self.holdings.texts):
                self.broken.append("incomplete: the index has not all documents, and no error")

    def compare(self, path: Path) -> None:
        """Find rows that are no more as they were, by plain SQL."""
        with connection(path) as connected:
            for table, rows in self.tables.items():
                with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                    now = set(connected.execute(f"SELECT * FROM {table} NOT INDEXED"))
                    self.changed += [f"a row of {table}"] if now != rows else []
                    continue
                self.failed.append(f"rows of {table}")

    def ask_by_text(self, cache: EmbeddingCache) -> None:
        """Ask as an application does, which writes what is missing."""
        for model_name, encoder in ENCODERS.items():
            for (name, collection), texts in self.holdings.documents.items():
                if name == model_name:
                    self.attempt("get", lambda e=encoder, c=collection, t=texts: self.get(cache, e, c, t))
            contents = self.holdings.contents(model_name)
            self.attempt("embed", lambda e=encoder, t=contents: self.are_right("embed", e, t, cache.embed(t, e)))

    def get(self, cache: EmbeddingCache, encoder: Any, collection: str, texts: dict[str, str]) -> None:
        for doc_id, text in list(texts.items())[::7]:
            vector = cache.get(doc_id, text, encoder, collection=collection)
            self.are_right("get", encoder, [text], vector[None])
        vectors = cache.get_many(texts, texts.values(), encoder, collection=collection)
        self.are_right("get_many", encoder, list(texts.values()), vectors)

    def are_right(self, what: str, encoder: Any, texts: list[str], vectors: Vectors) -> None:
        """As they were stored, or encoded anew, which also forgets the format of a model whose row is lost."""
        if not ((vectors == encoder.stored(texts)) | (vectors == encoder.encode(texts))).all():
            self.broken.append(f"wrong vector: {what} gave one of {encoder.model_name}")


def tables_of(path: Path) -> dict[str, set[Any]]:
    with connection(path) as connected:
        return {table: set(connected.execute(f"SELECT * FROM {table}")) for table in LIVE}


def main(n: int, file: Path, page_size: int, scratch: Path) -> None:
    holdings, tables, sound = Holdings(n), tables_of(file), file.read_bytes()
    repairs = Repairs(file, page_size)
    for line in sys.stdin:
        kind, seed, is_repaired = json.loads(line)
        data = bytearray(sound)
        how = injure(data, page_size, kind, seed)
        for left in scratch.parent.glob(f"{scratch.name}*"):
            left.unlink()
        scratch.write_bytes(data)
        repaired = {}
        if is_repaired:
            repaired = repairs.check(scratch, scratch.with_name(f"{scratch.name}-repaired"))
        vector_pages.LEAST_ROWS = LEAST_ROWS_OFF_PAGES[seed % 2]
        found = Examination(holdings, tables).of(scratch)
        found["broken"] += repaired.pop("broken", [])
        sys.stdout.write(json.dumps({"kind": kind, "seed": seed, "how": how, **found, **repaired}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
