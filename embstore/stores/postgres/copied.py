"""Rows of documents with their vectors, as a server sends them: blocks of them put together there, laid out at once.

A row by itself costs a client more than all that is done with it, so a server makes one row of many: each column is a
string of bytes. It is sent by COPY in its binary form (https://www.postgresql.org/docs/current/sql-copy.html): a
signature, then the number of fields, and of each its length and its bytes. Where anything is not as it is with sound
rows, and from a server that refuses COPY, rows are read one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
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
    "documents.vector_id, documents.checksum AS document_checksum, vectors.checksum AS vector_checksum, "
    "vectors.vector, documents.collection, documents.doc_id"
)
N_COLUMNS = 6

# An aggregate takes the rows in the order of the query within. Texts are cut by their characters.
TOGETHER = SQL(
    """
SELECT
    int8send(count(*)),
    string_agg(int8send(vector_id), ''),
    string_agg(int8send(document_checksum), ''),
    string_agg(int8send(vector_checksum), ''),
    string_agg(int8send(octet_length(vector)), ''),
    string_agg(int8send(length(collection)), ''),
    string_agg(int8send(length(doc_id)), ''),
    string_agg(collection, ''),
    string_agg(doc_id, ''),
    string_agg(vector, '')
FROM ({}) AS page
"""
)
N_TOGETHER = 10

COPY = SQL("COPY ({}) TO STDOUT (FORMAT BINARY)")

HEADER_BYTES = 19
TRAILER = b"\xff\xff"
LENGTH = struct.Struct(">i")


class NotTogetherError(Exception):
    """What came is not one whole row, or a vector in it is missing or of another length than those of its model."""


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
    def of_fields(cls, fields: Sequence[memoryview], model: StoredModel) -> Block:
        """Make columns of what `TOGETHER` gives.

        Raises
        ------
        NotTogetherError
        """
        numbers = [np.frombuffer(field, dtype=">i8").astype(np.int64) for field in fields[:7]]
        (n,), vector_ids, checksums, vector_checksums, n_bytes, of_names, of_doc_ids = numbers
        dtype = STORED_DTYPES[model.dtype]
        lengths = {*map(len, numbers[1:])}
        if lengths != {n} or (n_bytes != model.dim * dtype.itemsize).any():
            raise NotTogetherError
        values = np.empty((n, model.dim), dtype=dtype)
        values.reshape(-1).view(np.uint8)[:] = np.frombuffer(fields[9], dtype=np.uint8)
        names, doc_ids = (
            cut(str(field, "utf-8"), some) for field, some in zip(fields[7:9], (of_names, of_doc_ids), strict=True)
        )
        return cls(names, doc_ids, vector_ids, checksums, vector_checksums, values, np.ones(n, dtype=np.bool_))

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


def cut(together: str, lengths: npt.NDArray[np.int64]) -> list[str]:
    """Cut texts that stand one after the other, each of so many characters.

    Raises
    ------
    NotTogetherError
        They are not as long together.
    """
    stops = np.cumsum(lengths).tolist()
    if sum(stops[-1:]) != len(together):
        raise NotTogetherError
    if not stops:
        return []
    first = together[: stops[0]]
    if together == first * len(stops):  # one collection, as a rule
        return [given(first)] * len(stops)
    texts = [together[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    return list(map(given, texts)) if "\1" in together else texts


def select_block(connection: Connection, select: Composed, model: StoredModel) -> Block:
    """Give the rows of a statement that selects `COLUMNS`, by SELECT."""
    with connection.cursor(binary=True) as cursor:
        return Block.of_rows(cursor.execute(select).fetchall(), model)


def copy_block(connection: Connection, select: Composed, model: StoredModel) -> Block:
    """Give the rows of a statement that selects `COLUMNS`, by COPY; by SELECT where one is not as the others.

    Raises
    ------
    psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFunction
        The server cannot do that.
    """
    (block,) = copy_blocks(connection, TOGETHER.format(select), model)
    return select_block(connection, select, model) if block is None else block


def copy_blocks(connection: Connection, together: Composed, model: StoredModel) -> Iterator[Block | None]:
    """Give what `TOGETHER` makes of rows, a block each; None for one that is not as those of sound rows are.

    Raises
    ------
    psycopg.Error
        As of the server.
    """
    with connection.cursor() as cursor, cursor.copy(COPY.format(together)) as copy:
        is_first = True
        for message in copy:
            row = memoryview(message)
            if is_first:
                row, is_first = row[HEADER_BYTES:], False
            if len(row) > len(TRAILER):
                try:
                    yield Block.of_fields(_fields(row), model)
                except NotTogetherError:
                    yield None


def _fields(row: memoryview) -> list[memoryview]:
    """Take a row apart; the last one may have what ends all rows behind it."""
    at, fields = 2, []
    try:
        for _ in range(N_TOGETHER):
            (length,) = LENGTH.unpack_from(row, at)
            at += LENGTH.size
            fields.append(row[at : at + max(0, length)])  # -1 for NULL, of no rows
            at += max(0, length)
    except struct.error as error:
        raise NotTogetherError from error
    if row[at:] not in (b"", TRAILER):
        raise NotTogetherError
    return fields
