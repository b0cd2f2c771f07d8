"""Models on a server that get another name, or another format: every vector is checked on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import psycopg

from embstore.checksums import vector_checksums
from embstore.errors import DamagedStoreError, ModelExistsError, UnknownModelError
from embstore.formats import as_stored
from embstore.identity import Dtype
from embstore.stores.base import StoredModel
from embstore.stores.postgres import collections, models, vectors
from embstore.stores.postgres.arrays import ByteaArray, Int8Array
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import given

ROWS_AT_ONCE = 500

READ = """
SELECT vector_id, content_hash, checksum, standalone, vector
FROM vectors
WHERE model_id = %s
ORDER BY vector_id
"""

UPDATE = """
UPDATE vectors
SET checksum = given.checksum, vector = given.vector
FROM unnest(%b, %b, %b) AS given (vector_id, checksum, vector)
WHERE vectors.vector_id = given.vector_id
"""

FIRST_DOCUMENT = """
SELECT doc_id
FROM documents
WHERE model_id = %s AND vector_id = %s
ORDER BY collection, doc_id
LIMIT 1
"""


class PostgresConversion:
    """The part of a `Store` on a server that changes models; see `embstore.stores.base.Store` for each method."""

    _server: Server

    def rename_model(self, old: str, new: str) -> None:
        """See `Store.rename_model`.

        Raises
        ------
        UnknownModelError
            There is no `old`.
        ModelExistsError
            There is a `new` with the settings of one of `old`, in whatever format; nothing was changed.
        """

        def rename(connection: Connection) -> None:
            found = models.find_by_name(connection, old)
            models.lock_whole(connection, [model.model_id for model in found])
            found = models.find_by_name(connection, old)
            if not found:
                raise UnknownModelError(f"no model {old!r} is stored in {self._server.location!r}", model_name=old)
            there = {model.identity.stored_as("float32"): model for model in models.find_by_name(connection, new)}
            for model in found:
                identity = model.identity.renamed(new)
                other = there.get(identity.stored_as("float32"))
                if other is not None:
                    raise _exists(old, new, str(other.identity))
                try:
                    models.update(connection, replace(model, identity=identity))
                except psycopg.errors.UniqueViolation as error:  # that another process has stored at this moment
                    raise _exists(old, new, str(identity)) from error
            collections.rename_model(connection, old, new)

        self._server.write(rename)

    def convert(self, model: StoredModel, dtype: Dtype) -> int:
        """See `Store.convert`: one transaction; who writes vectors of the model waits for its end.

        Raises
        ------
        UnknownModelError
            The model is not stored any more.
        ModelExistsError
            It is stored in that format too.
        DamagedStoreError, OutOfRangeError
            A vector is damaged, or has no place in the format. In each case nothing was changed.
        """

        def convert(connection: Connection) -> int:
            is_there = models.lock_whole(connection, [model.model_id])
            current = models.find_to_change(connection, model) if is_there else None
            if current is None:
                raise UnknownModelError(
                    f"model {str(model.identity)!r} was removed from {self._server.location!r} meanwhile",
                    model_name=model.identity.model_name,
                )
            if current.dtype == dtype:
                return 0
            converted = replace(current, identity=current.identity.stored_as(dtype))
            if models.find(connection, converted.identity) is not None:
                raise ModelExistsError(
                    f"{str(converted.identity)!r} is stored already, beside {str(current.identity)!r}, which so cannot "
                    f"become it; clear(model_name=...) forgets both",
                    model_name=current.identity.model_name,
                )
            n_converted = _convert_all(connection, current, dtype)
            models.update(connection, converted)
            collections.change_model(connection, current.identity, converted.identity)
            return n_converted

        return self._server.write(convert)


def _exists(old: str, new: str, identity: str) -> ModelExistsError:
    return ModelExistsError(
        f"{identity!r} is stored already, so {old!r} cannot take its name; clear(model_name=...) one of the two, or "
        f"choose another name",
        model_name=new,
    )


def _convert_all(connection: Connection, model: StoredModel, dtype: Dtype) -> int:
    n_converted = 0
    # Of one state of the table, that before the first of them is changed; in memory there are never more than some.
    with connection.cursor("embstore_conversion", binary=True) as cursor:
        cursor.execute(READ, (model.model_id,))
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            _convert_some(connection, model, dtype, rows)
            n_converted += len(rows)
    return n_converted


def _convert_some(connection: Connection, model: StoredModel, dtype: Dtype, rows: list[tuple[Any, ...]]) -> None:
    ids, *columns = zip(*rows, strict=True)
    stored = vectors.as_rows(model, *columns)
    sound = stored.sound(model.model_id, stored.content_hashes)
    if not sound.all():
        what = _name(connection, model, ids[int(np.argmin(sound))])
        raise DamagedStoreError(
            f"{what} of model {str(model.identity)!r} is damaged, and nothing was converted; get_many with its text "
            f"mends it, verify() lists all",
            model_name=model.identity.model_name,
        )
    values = as_stored(stored.vectors, dtype, lambda row: _name(connection, model, ids[row]))
    checksums = vector_checksums(model.model_id, stored.content_hashes, stored.standalone, values)
    connection.execute(UPDATE, (Int8Array(ids), Int8Array(checksums), ByteaArray(values)))


def _name(connection: Connection, model: StoredModel, vector_id: int) -> str:
    """Call a vector by the first document that points at it."""
    found = connection.execute(FIRST_DOCUMENT, (model.model_id, vector_id), binary=True).fetchall()
    whose = f"doc_id {given(found[0][0])!r:.80}" if found else "no document"
    return f"the stored vector of {whose} (vector_id {vector_id})"
