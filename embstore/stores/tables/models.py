"""The table models."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from sqlite3 import Connection, DatabaseError
from typing import Any

from embstore.checksums import model_checksum
from embstore.codec import MAX_DIM, Vectors, are_finite, as_vectors, blob_to_vector
from embstore.errors import DamagedStoreError
from embstore.identity import DTYPES, Dtype, ModelIdentity
from embstore.stores.base import StoredModel
from embstore.stores.sqlite_errors import is_damage

COLUMNS = "model_id, model_name, settings, dim, dtype, canary, created_at, checksum"

FIND = f"""
SELECT {COLUMNS}
FROM models
WHERE model_name = ? AND settings = ?
"""

FIND_BY_NAME = f"""
SELECT {COLUMNS}
FROM models
WHERE model_name = ?1 OR ?1 IS NULL
ORDER BY model_id
"""

FIND_DTYPE = """
SELECT dtype
FROM models
WHERE model_id = ?
"""

IDS = """
SELECT model_id
FROM models
WHERE model_name = ?1 OR ?1 IS NULL
"""

INSERT = """
INSERT INTO models (model_name, settings, dim, dtype, canary, created_at, checksum)
VALUES (?, ?, ?, ?, ?, ?, 0)
"""

UPDATE = """
UPDATE models
SET model_name = ?, settings = ?, dtype = ?, canary = ?, checksum = ?
WHERE model_id = ?
"""

DELETE_ALL = """
DELETE FROM models
"""

DELETE = """
DELETE FROM models
WHERE model_id = ?
"""


def find(connection: Connection, identity: ModelIdentity) -> StoredModel | None:
    """Read one model; DamagedStoreError where its row is not what was written."""
    row = connection.execute(FIND, (identity.model_name, identity.settings_json)).fetchone()
    return None if row is None else checked(row)


def find_by_name(connection: Connection, model_name: str | None) -> list[StoredModel]:
    """Read the models of a name (None: all), oldest first."""
    return [checked(row) for row in connection.execute(FIND_BY_NAME, (model_name,))]  # none after a damaged one


def find_variant(connection: Connection, identity: ModelIdentity, preferred: Dtype) -> StoredModel | None:
    """Read the model of an identity in the format that it says or, where it says none, in whichever is stored."""
    asked: tuple[Dtype, ...] = DTYPES if identity.dtype == "float32" else ("float16",)
    for dtype in sorted(asked, key=lambda dtype: dtype != preferred):
        model = find(connection, identity.stored_as(dtype))
        if model is not None:
            return model
    return None


def dtype_now(connection: Connection, model: StoredModel) -> Dtype:
    """Tell in which format a model is stored that was found a while ago; that of then where it is gone or damaged."""
    row = connection.execute(FIND_DTYPE, (model.model_id,)).fetchone()
    return row[0] if row is not None and row[0] in DTYPES else model.dtype


def ids(connection: Connection, model_name: str | None) -> list[int]:
    """List the models of a name (None: all) to forget them, which a damaged row does not prevent."""
    return [model_id for (model_id,) in connection.execute(IDS, (model_name,))]


def identities(connection: Connection, model_ids: Collection[int]) -> set[ModelIdentity] | None:
    """Give the identities of some models; None where they cannot be told, as the row of one is damaged."""
    if not model_ids:
        return set()
    try:
        row_of = {row[0]: row for row in connection.execute(FIND_BY_NAME, (None,))}
        return {checked(row_of[model_id]).identity for model_id in model_ids}
    except (DamagedStoreError, KeyError):
        return None
    except (DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        return None


def insert(connection: Connection, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
    """Store a new model."""
    created_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    blob = None if canary is None else as_vectors(canary).tobytes()
    cursor = connection.execute(
        INSERT, (identity.model_name, identity.settings_json, dim, identity.dtype, blob, created_at)
    )
    model = StoredModel(int(cursor.lastrowid or 0), identity, dim, canary, created_at)
    update(connection, model)
    return model


def update(connection: Connection, model: StoredModel) -> None:
    """Write a model's identity and canary, and the checksum of its row."""
    blob = None if model.canary is None else as_vectors(model.canary).tobytes()
    fields = (model.identity.model_name, model.identity.settings_json, model.dtype, blob)
    connection.execute(UPDATE, (*fields, checksum(model), model.model_id))


def row(model: StoredModel) -> tuple[Any, ...]:
    """Give the columns of a model without a canary, in the order of COLUMNS."""
    identity = model.identity
    fields = (identity.model_name, identity.settings_json, model.dim, model.dtype)
    return (model.model_id, *fields, None, model.created_at, checksum(model))


def delete(connection: Connection, model_id: int) -> None:
    """Remove a model of which nothing is stored any more."""
    connection.execute(DELETE, (model_id,))


def delete_all(connection: Connection) -> None:
    """Remove all models, once all else is gone."""
    connection.execute(DELETE_ALL)


def checked(row: tuple[Any, ...]) -> StoredModel:
    """Make a model of a row, once its checksum and types are right."""
    model_id, model_name, settings, dim, dtype, canary, created_at, stored = row
    try:
        vector = None if canary is None else blob_to_vector(canary)
        model = StoredModel(model_id, ModelIdentity(model_name, settings), dim, vector, created_at)
        sound = dtype == model.dtype and checksum(model) == stored and _is_possible(model)
    except (TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise DamagedStoreError(
            f"the row of model {model_name!r:.80} (model_id {model_id!r:.20}) is damaged: "
            f"its checksum does not fit; clear(model_name=...) removes it with its vectors",
            model_name=model_name,
        )
    return model


def _is_possible(model: StoredModel) -> bool:
    """Tell whether a row whose checksum fits is one that is ever written: a stranger's checksums fit, too."""
    canary = model.canary
    is_dim = type(model.dim) is int and 0 < model.dim <= MAX_DIM
    return (
        is_dim
        and type(model.created_at) is str
        and (canary is None or (len(canary) == model.dim and are_finite(canary)))
    )


def checksum(model: StoredModel) -> int:
    """Give the checksum of a model's row."""
    identity = model.identity
    fields = (identity.model_name, identity.settings_json, model.dim, model.dtype, model.created_at)
    canary = None if model.canary is None else as_vectors(model.canary).tobytes()
    return model_checksum(model.model_id, fields, canary)
