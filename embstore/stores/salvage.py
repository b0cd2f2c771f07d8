"""Carrying every row of a damaged file that is what was written into a new one, and listing the others.

Checksums decide. No reference between tables is trusted but by what they say: a document finds its vector by the
content that its own checksum was made of, whatever number it points at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from sqlite3 import Connection
from typing import Any

import numpy as np

from embstore.checksums import content_sums, content_sums_of_documents, text_checksum, vector_checksums
from embstore.codec import HASH_BYTES
from embstore.errors import DamagedStoreError
from embstore.formats import STORED_DTYPES
from embstore.identity import ModelIdentity
from embstore.stores.base import StoredModel
from embstore.stores.lost import LostRow
from embstore.stores.pages import Pages
from embstore.stores.tables import byte_values, collections, encodings, models, texts, usage
from embstore.stores.tables.carried import CarriedRows, Values
from embstore.stores.texts import StoredCollection

ROWS_AT_ONCE = 500

# Rows are told apart by the types of their values, see `Pages.rows`: those of tables with a rowid, and of the others.
MODEL = ("nttitbti", "nttitnti")
VECTOR = ("nibiiib",)
TEXT = ("nttbtti",)
ENCODING = ("niifi", "niiii")
VECTOR_KEY = ("ibi",)
DOCUMENT = ("ittii",)
DOCUMENT_BY_VECTOR = ("iitt",)
COLLECTION = ("tttiiii",)
USAGE = ("itiiiifi", "itiiiiii")
BYTES = ("tbi",)
BYTES_KEY = ("ti",)
NAMES = ("tti",)  # of a model, or of a text: (model_name, settings, model_id), (collection, doc_id, text_id)
_OF_TABLES = {*MODEL, *VECTOR, *TEXT, *ENCODING, *BYTES}

Found = tuple[int | None, Values]


class Salvage:
    """What a damaged file still has, carried into a new one.

    Parameters
    ----------
    pages : Pages
        Of the damaged file.
    connection : sqlite3.Connection
        To the new file, without rows, in a transaction.
    """

    def __init__(self, pages: Pages, connection: Connection) -> None:
        self._pages = pages
        self._connection = connection
        self._new = CarriedRows(connection)
        self._models: dict[int, StoredModel] = {}
        self._damaged_vectors: dict[int | None, tuple[int, bytes]] = {}
        self._damaged_documents: dict[int, list[Values]] = defaultdict(list)
        self._lost: list[LostRow] = []

    def run(self) -> list[LostRow]:
        """Carry all rows over, and list those that are lost."""
        self._carry_models()
        self._carry_vectors()
        self._carry_documents()
        self._carry_texts()
        self._carry_bytes()
        return self._lost_rows()

    def _rows(self, *types: str, of: str | None = None) -> Iterator[Found]:
        for row in self._pages.rows(*types, of=of):
            if (row.rowid is not None) == (types[0] in _OF_TABLES):
                yield row.rowid, row.values

    # --- models -----------------------------------------------------------------------------

    def _carry_models(self) -> None:
        sound: dict[StoredModel, Values] = {}
        damaged: list[Values] = []
        for rowid, values in self._rows(*MODEL):
            row = (rowid, *values[1:])
            try:
                model = models.checked(row)
                sound.setdefault(replace(model, canary=None), row)
            except DamagedStoreError:
                damaged.append(row)
        n_ids = Counter(model.model_id for model in sound)
        n_identities = Counter(model.identity for model in sound)
        for model, row in sound.items():
            if n_ids[model.model_id] == n_identities[model.identity] == 1:  # else some were removed before
                self._models[model.model_id] = model
                self._new.put_model(row)
        for row in damaged:
            self._mend_model(row)
        for rowid, (_, *totals, checksum) in self._rows(*ENCODING):
            row = (rowid, *totals[:2], float(totals[2]), checksum)
            if rowid in self._models and encodings.is_sound(row):
                self._connection.execute(encodings.UPSERT, row)
        for _, (model_id, day, *totals, seconds, checksum) in self._rows(*USAGE):
            row = (model_id, day, *totals, float(seconds), checksum)
            if model_id in self._models and usage.is_sound(row):
                self._connection.execute(usage.UPSERT, row)

    def _mend_model(self, row: Values) -> None:
        """Keep a model whose row and whose index say the same of who it is, without its canary.

        All of its vectors depend on that row, and most of the row is the canary, which its first use writes anew.
        """
        model_id, model_name, settings, *_, created_at, _ = row
        dims = Counter(values[3] for _, values in self._rows(*VECTOR) if values[1] == model_id and values[3] > 0)
        keys = {values for _, values in self._rows(*NAMES)}
        known = {model.identity for model in self._models.values()}
        with suppress(ValueError, TypeError, IndexError, AttributeError):
            identity = ModelIdentity(model_name, settings)
            datetime.fromisoformat(created_at)
            model = StoredModel(model_id, identity, dims.most_common(1)[0][0], None, created_at)
            if (model_name, settings, model_id) in keys and model_id not in self._models and identity not in known:
                self._models[model_id] = model
                self._new.put_model(models.row(model))
                self._lost.append(LostRow("canaries", str(identity)))

    def _name(self, model_id: int) -> str:
        model = self._models.get(model_id)
        return f"model_id {model_id}" if model is None else str(model.identity)

    # --- vectors ----------------------------------------------------------------------------

    def _carry_vectors(self) -> None:
        left_over: list[Values] = []  # whose numbers are taken, or higher than a file of this size can have come to
        highest = len(self._pages.live) * self._pages.page_size
        for group in _groups(self._rows(*VECTOR), lambda found: found[1][1:4:2]):
            for vector_id, *row in self._sound_vectors(group):
                if 0 < vector_id <= highest and not self._new.has_vector_id(vector_id):
                    self._new.put("vectors", (vector_id, *row), tuple(row[:2]), tuple(row[3:]))
                else:
                    left_over.append(tuple(row))
        for row_ in left_over:
            self._new.put("vectors", (None, *row_), row_[:2], row_[3:])

    def _sound_vectors(self, group: Sequence[Found]) -> Iterator[Values]:
        """Give those rows of one model and dim that are what was written; note the others."""
        _, model_id, _, dim, *_ = group[0][1]
        model = self._models.get(model_id)
        whole: list[int] = []
        if model is not None and model.dim == dim:
            dtype = STORED_DTYPES[model.dtype]
            n_bytes = dim * dtype.itemsize
            whole = [i for i, (_, v) in enumerate(group) if len(v[2]) == HASH_BYTES and len(v[6]) == n_bytes]
        sound = set[int]()
        if whole:
            _, _, hashes, _, standalone, checksums, blobs = zip(*(group[i][1] for i in whole), strict=True)
            vectors = np.frombuffer(b"".join(blobs), dtype=dtype).reshape(len(whole), dim)
            is_standalone = np.array(standalone) == 1
            fits = vector_checksums(model_id, hashes, is_standalone, vectors) == np.array(checksums, dtype=np.int64)
            fits &= is_standalone | (np.array(standalone) == 0)
            fits &= np.isfinite(vectors).all(axis=1)  # checksums that a stranger has made fit
            sound = {i for i, is_sound in zip(whole, fits.tolist(), strict=True) if is_sound}
        for i, (vector_id, values) in enumerate(group):
            if i in sound:
                yield (vector_id, *values[1:])
            else:
                self._damaged_vectors[vector_id] = values[1:3]

    # --- documents and texts ----------------------------------------------------------------

    def _carry_documents(self) -> None:
        by_content: dict[int, dict[int, int]] = {}
        for model_id in self._models:
            hashes, vector_ids = self._new.contents(model_id)
            by_content[model_id] = dict(zip(content_sums(hashes).tolist(), vector_ids, strict=True))
        for group in _groups(self._rows(*DOCUMENT), lambda found: found[1][:2]):
            rows = [values for _, values in group]
            model_id, collection = rows[0][:2]
            checksums = np.array([row[4] for row in rows], dtype=np.int64)
            sums = content_sums_of_documents(model_id, collection, [row[2] for row in rows], checksums).tolist()
            for row, content_sum in zip(rows, sums, strict=True):
                vector_id = by_content.get(model_id, {}).get(content_sum)
                if vector_id is None or not row[2]:
                    self._damaged_documents[row[3]].append(row[:3])
                else:
                    self._new.put("documents", (*row[:3], vector_id, row[4]), row[:3], (vector_id, row[4]))

    def _carry_texts(self) -> None:
        there: dict[str, StoredCollection] = {}
        for _, values in self._rows(*COLLECTION):
            with suppress(DamagedStoreError):  # its texts name it
                there[values[0]] = collections.checked(values)
                collections.put(self._connection, there[values[0]])
        keys: set[tuple[str, str]] = {values[:2] for _, values in self._rows(*NAMES) if values[0] in there}
        for _, (_, *row) in self._rows(*TEXT):
            keys.add((row[0], row[1]))
            if row[0] in there and text_checksum(*row[:5]) == row[5]:
                self._new.put("texts", tuple(row), tuple(row[:2]), tuple(row[2:]))
        lost = sorted(key for key in keys if not self._new.has("texts", key))
        self._lost += [LostRow("collections", collection=name) for name in sorted({key[0] for key in lost} - {*there})]
        self._lost += [LostRow("texts", collection=name, doc_id=doc_id) for name, doc_id in lost]
        for name, collection in there.items():
            n_texts = len(texts.ids(self._connection, name))
            if n_texts != collection.n_texts:  # whoever keeps some in memory is to read them anew
                n_unnamed = collection.n_texts - n_texts - sum(key[0] == name for key in lost)
                self._lost += [LostRow("texts", collection=name)] * n_unnamed
                collections.put(
                    self._connection, replace(collection, n_texts=n_texts, texts_version=collection.texts_version + 1)
                )

    def _carry_bytes(self) -> None:
        keys = {row[0] for _, row in self._rows(*BYTES_KEY, of="sqlite_autoindex_byte_values_1")}
        keys |= {row[0] for _, row in self._rows(*BYTES, of="byte_values")}
        for _, row in self._rows(*BYTES):
            if byte_values.is_sound(*row):
                self._new.put("byte_values", row, row[:1], row[1:])
        lost = (key for key in keys if not self._new.has("byte_values", (key,)))
        self._lost += [LostRow("byte_values", key=key) for key in sorted(lost)]

    # --- what is lost -----------------------------------------------------------------------

    def _lost_rows(self) -> list[LostRow]:
        """Name what is lost by the indexes or, where these do not have it, by the damaged rows themselves."""
        vectors, documents = self._lost_vectors(), self._lost_documents()
        names = {self._name(model_id) for model_id in self._models}
        gone = {row.model for row in vectors | documents} - names
        found = ({LostRow("models", name) for name in gone}, vectors, documents)
        self._lost += self._unnamed("vectors", vectors, VECTOR, (VECTOR_KEY, "sqlite_autoindex_vectors_1"))
        self._lost += self._unnamed("documents", documents, DOCUMENT, (DOCUMENT_BY_VECTOR, "documents_by_vector"))
        return [row for rows in found for row in sorted(rows, key=str)] + self._lost

    def _unnamed(
        self, table: str, named: set[LostRow], types: tuple[str, ...], index: tuple[tuple[str, ...], str]
    ) -> list[LostRow]:
        """Tell of rows of which nothing can be read where they are, nor in the index that has their keys too."""
        if not self._pages.are_live_known:  # they can be rows that were removed
            return []
        n_there = max(self._pages.count(*types, of=table), self._pages.count(*index[0], of=index[1]))
        return [LostRow(table)] * (n_there - len(named) - self._new.counts()[table])

    def _lost_vectors(self) -> set[LostRow]:
        keys = dict(self._damaged_vectors)
        for _, (*key, vector_id) in self._rows(*VECTOR_KEY):
            if not self._new.has_vector_id(vector_id):
                keys[vector_id] = (key[0], key[1])
        return {LostRow("vectors", self._name(key[0]), key[1].hex()) for key in keys.values() if not self._has(key)}

    def _has(self, key: tuple[int, bytes]) -> bool:
        return self._new.has("vectors", key)

    def _lost_documents(self) -> set[LostRow]:
        n_entries = Counter[int]()
        missing: dict[int, list[Values]] = defaultdict(list)
        for _, (vector_id, *key) in self._rows(*DOCUMENT_BY_VECTOR):
            n_entries[vector_id] += 1
            if not self._new.has("documents", tuple(key)):
                missing[vector_id].append(tuple(key))
        # Where as many are kept as there are entries, it is an entry that is damaged.
        named = {v: keys for v, keys in missing.items() if n_entries[v] > self._new.count_of_vector(v)}
        lost = {key for keys in {**self._damaged_documents, **named}.values() for key in keys}
        return {
            LostRow("documents", self._name(key[0]), None, *key[1:])
            for key in lost
            if not self._new.has("documents", key)
        }


def _groups(rows: Iterator[Found], key: Callable[[Found], Any]) -> Iterator[list[Found]]:
    """Put rows of one key that follow on each other together, at most so many."""
    group: list[Found] = []
    for row in rows:
        if group and (len(group) == ROWS_AT_ONCE or key(group[0]) != key(row)):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
