"""Rows of documents with their vectors, as a server sends them: blocks of them laid out at once.

The binary form of COPY (https://www.postgresql.org/docs/current/sql-copy.html): a signature, then of each row the
number of its fields, and of each field its length and its bytes. Columns of one length come first, so that numpy reads
those of many rows together; a server that refuses COPY is asked by SELECT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg.sql import SQL, Composed

from embstore.checksums import content_sums_of_documents, content_sums_of_vectors, is_content
from embstore.codec import StoredValues, are_finite
from embstore.errors import DamagedStoreError
from embstore.formats import STORED_DTYPES
from embstore.stores.base import StoredModel
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import given
from embstore.stores.postgres.vectors import as_values

COLUMNS = SQL(
    "documents.vector_id, documents.checksum, vectors.checksum, vectors.vector, documents.collection, documents.doc_id"
)
N_COLUMNS = 6

SIGNATURE, HEADER_BYTES = b"PGCOPY\n\xff\r\n\0", 19
TRAILER = b"\xff\xff"


class NotCopiedError(Exception):
    """What came is not one whole row a message, or a vector is missing or of another length than those of its model."""


@dataclass(frozen=True)
class Block:
    """Some documents, unchecked: parallel columns.

    Attributes
    ----------
    values : ndarray of shape (n, dim), float32 or float16
        In the format of the model.
    is_whole : ndarray of shape (n,), bool
        There is a vector, and it has the model's dim.
    """

    collections: list[str]
    doc_ids: list[str]
    vector_ids: npt.NDArray[np.int64]
    checksums: npt.NDArray[np.int64]
    vector_checksums: npt.NDArray[np.int64]
    values: StoredValues
    is_whole: npt.NDArray[np.bool_]

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[Any, ...]], model: StoredModel) -> Block:
        """Make columns of rows; those of a vector that is not there are None."""
        columns = zip(*rows, strict=True) if rows else [()] * N_COLUMNS
        vector_ids, checksums, vector_checksums, blobs, names, doc_ids = columns
        values, is_whole = as_values(model, [blob or b"" for blob in blobs])
        return cls(
            [given(name) for name in names],
            [given(doc_id) for doc_id in doc_ids],
            np.array(vector_ids, dtype=np.int64),
            np.array(checksums, dtype=np.int64),
            np.array([checksum or 0 for checksum in vector_checksums], dtype=np.int64),
            values,
            is_whole,
        )

    @classmethod
    def of_messages(cls, messages: Sequence[Any], model: StoredModel) -> Block:
        """Make columns of what COPY has sent, a row each.

        Raises
        ------
        NotCopiedError
        """
        fixed = _fixed_dtype(model)
        try:
            rows = np.frombuffer(b"".join([message[: fixed.itemsize] for message in messages]), dtype=fixed)
        except ValueError as error:
            raise NotCopiedError from error
        lengths = {"n": N_COLUMNS, "l1": 8, "l2": 8, "l3": 8, "l4": fixed["vector"].itemsize}
        if len(rows) != len(messages) or any((rows[name] != length).any() for name, length in lengths.items()):
            raise NotCopiedError
        at = fixed.itemsize
        stops = (at + rows["l5"]).tolist()
        if any(stop + 4 > len(message) for stop, message in zip(stops, messages, strict=True)):
            raise NotCopiedError
        names = [bytes(message[at:stop]) for message, stop in zip(messages, stops, strict=True)]
        doc_ids = [str(message[stop + 4 :], "utf-8") for message, stop in zip(messages, stops, strict=True)]
        name_of = {name: given(name.decode()) for name in set(names)}
        dtype = STORED_DTYPES[model.dtype]
        return cls(
            [name_of[name] for name in names],
            list(map(given, doc_ids)),
            rows["vector_id"].astype(np.int64),
            rows["checksum"].astype(np.int64),
            rows["vector_checksum"].astype(np.int64),
            np.ascontiguousarray(rows["vector"]).view(dtype).reshape(len(rows), model.dim),
            np.ones(len(rows), dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.doc_ids)

    def check(self, model: StoredModel) -> None:
        """Compare each vector with the content that its document was written for.

        Raises
        ------
        DamagedStoreError
            One is not what was written; the message names its document.
        """
        sums = content_sums_of_vectors(model.model_id, self.vector_checksums, self.values)
        sound = self.is_whole.copy()
        if not are_finite(self.values):
            sound &= np.isfinite(self.values).all(axis=1)
        names = np.array(self.collections) if len(set(self.collections)) > 1 else None
        for name in dict.fromkeys(self.collections):
            at = np.arange(len(self)) if names is None else np.flatnonzero(names == name)
            doc_ids = self.doc_ids if names is None else [self.doc_ids[i] for i in at.tolist()]
            of_documents = content_sums_of_documents(model.model_id, name, doc_ids, self.checksums[at])
            sound[at] &= is_content(sums[at], of_documents)
        if not sound.all():
            damaged = [self.doc_ids[i] for i in np.flatnonzero(~sound).tolist()]
            raise DamagedStoreError(
                f"the stored vector of doc_id {damaged[0]!r:.80} (and {len(damaged) - 1} more) of model "
                f"{str(model.identity)!r} is damaged; get_many with its text mends it, verify() lists all",
                doc_ids=damaged,
            )


def _fixed_dtype(model: StoredModel) -> np.dtype[Any]:
    n_bytes = model.dim * STORED_DTYPES[model.dtype].itemsize
    return np.dtype(
        [
            ("n", ">i2"),
            ("l1", ">i4"),
            ("vector_id", ">i8"),
            ("l2", ">i4"),
            ("checksum", ">i8"),
            ("l3", ">i4"),
            ("vector_checksum", ">i8"),
            ("l4", ">i4"),
            ("vector", np.uint8, (n_bytes,)),
            ("l5", ">i4"),
        ]
    )


def select_block(connection: Connection, select: Composed, model: StoredModel) -> Block:
    """Give the rows of a statement that selects `COLUMNS`, by SELECT."""
    with connection.cursor(binary=True) as cursor:
        return Block.of_rows(cursor.execute(select).fetchall(), model)


def copy_block(connection: Connection, select: Composed, model: StoredModel) -> Block:
    """Give the rows of a statement that selects `COLUMNS`, by COPY; by SELECT where one is not as the others.

    Raises
    ------
    psycopg.errors.FeatureNotSupported
        The server refuses it.
    """
    statement = SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(select)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        messages = [memoryview(data) for data in copy]
    if messages and bytes(messages[0][:HEADER_BYTES]).startswith(SIGNATURE) and bytes(messages[-1]).endswith(TRAILER):
        messages[0] = messages[0][HEADER_BYTES:]
        messages[-1] = messages[-1][: -len(TRAILER)]
        try:
            return Block.of_messages([message for message in messages if len(message)], model)
        except NotCopiedError:
            pass
    return select_block(connection, select, model)
