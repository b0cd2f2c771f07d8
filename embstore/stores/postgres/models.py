"""The table models of a server."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from embstore.codec import Vectors, as_vectors
from embstore.errors import DamagedStoreError, UnknownModelError
from embstore.identity import DTYPES, Dtype, ModelIdentity
from embstore.stores.base import StoredModel
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import given, stored
from embstore.stores.tables import models as sqlite_models

COLUMNS = "model_id, model_name, settings, dim, dtype, canary, created_at, checksum"

FIND = f"""
SELECT {COLUMNS}
FROM models
WHERE identity_hash = %b
"""

FIND_VARIANTS = f"""
SELECT {COLUMNS}
FROM models
WHERE identity_hash IN (%b, %b)
"""

FIND_BY_NAME = f"""
SELECT {COLUMNS}
FROM models
WHERE model_name = %s
ORDER BY model_id
"""

FIND_ALL = f"""
SELECT {COLUMNS}
FROM models
ORDER BY model_id
"""

FIND_DTYPE = """
SELECT dtype
FROM models
WHERE model_id = %s
"""

FIND_TO_CHANGE = f"""
SELECT {COLUMNS}
FROM models
WHERE model_id = %s
FOR NO KEY UPDATE
"""

# Who removes rows of a model locks it FOR UPDATE, which waits for this.
LOCK = """
SELECT dtype
FROM models
WHERE model_id = %s
FOR KEY SHARE
"""

# Models that are new are stored one after the other: one in two formats would be two models.
LOCK_NEW = """
SELECT version
FROM embstore_migrations
WHERE version = 0
FOR UPDATE
"""

LOCK_WHOLE = """
SELECT model_id
FROM models
WHERE model_id = ANY(%s)
ORDER BY model_id
FOR UPDATE
"""

INSERT = """
INSERT INTO models (identity_hash, model_name, settings, dim, dtype, canary, created_at, checksum)
VALUES (%b, %s, %s, %s, %s, %b, %s, 0)
ON CONFLICT (identity_hash) DO NOTHING
RETURNING model_id
"""

UPDATE = """
UPDATE models
SET identity_hash = %b, model_name = %s, settings = %s, dtype = %s, canary = %b, checksum = %s
WHERE model_id = %s
"""

DELETE = """
DELETE FROM models
WHERE model_id = %s
"""


def find(connection: Connection, identity: ModelIdentity) -> StoredModel | None:
    """Read one model; DamagedStoreError where its row is not what was written."""
    rows = connection.execute(FIND, (identity.digest,), binary=True).fetchall()
    return None if not rows else _of_identity(checked(rows[0]), identity)


def find_by_name(connection: Connection, model_name: str | None) -> list[StoredModel]:
    """Read the models of a name (None: all), oldest first."""
    if model_name is None:
        return [checked(row) for row in connection.execute(FIND_ALL, binary=True).fetchall()]
    return [checked(row) for row in connection.execute(FIND_BY_NAME, (stored(model_name),), binary=True).fetchall()]


def find_variant(connection: Connection, identity: ModelIdentity, preferred: Dtype) -> StoredModel | None:
    """Read the model of an identity in the format that it says or, where it says none, in whichever is stored."""
    asked: tuple[Dtype, ...] = DTYPES if identity.dtype == "float32" else ("float16", "float16")
    variants = [identity.stored_as(dtype) for dtype in sorted(asked, key=lambda dtype: dtype != preferred)]
    keys = [variant.digest for variant in variants]
    found = [checked(row) for row in connection.execute(FIND_VARIANTS, keys, binary=True).fetchall()]
    for variant in variants:
        for model in found:
            if model.identity == variant:
                return model
    return _of_identity(found[0], identity) if found else None


def find_to_change(connection: Connection, model: StoredModel) -> StoredModel | None:
    """Read a model as it is now, which nobody else changes before this transaction has ended; None where it is gone."""
    rows = connection.execute(FIND_TO_CHANGE, (model.model_id,), binary=True).fetchall()
    return checked(rows[0]) if rows else None


def as_now(connection: Connection, model: StoredModel) -> StoredModel:
    """Give a model that was found a while ago in its present format; as it was where it is gone or damaged."""
    rows = connection.execute(FIND_DTYPE, (model.model_id,), binary=True).fetchall()
    return _in_format(model, rows[0][0]) if rows else model


def locked(connection: Connection, model: StoredModel) -> StoredModel:
    """Give a model in its present format, which nobody changes or removes before this transaction has ended.

    Raises
    ------
    UnknownModelError
        It was removed.
    """
    rows = connection.execute(LOCK, (model.model_id,), binary=True).fetchall()
    if not rows:
        raise UnknownModelError(
            f"model {str(model.identity)!r} was removed meanwhile; do it again", model_name=model.identity.model_name
        )
    return _in_format(model, rows[0][0])


def lock_new(connection: Connection) -> None:
    """Let nobody else store a new model before this transaction has ended."""
    connection.execute(LOCK_NEW)


def lock_whole(connection: Connection, model_ids: Collection[int]) -> list[int]:
    """Let nobody write rows of models before this transaction has ended; give those that are there."""
    rows = connection.execute(LOCK_WHOLE, (list(model_ids),), binary=True).fetchall() if model_ids else []
    return [model_id for (model_id,) in rows]


def identities(connection: Connection, model_ids: Iterable[int]) -> set[ModelIdentity] | None:
    """Give the identities of some models; None where they cannot be told, as the row of one is damaged."""
    wanted = set(model_ids)
    if not wanted:
        return set()
    try:
        identity_of = {model.model_id: model.identity for model in find_by_name(connection, None)}
        return {identity_of[model_id] for model_id in wanted}
    except (DamagedStoreError, KeyError):
        return None


def insert(
    connection: Connection, identity: ModelIdentity, dim: int, canary: Vectors | None
) -> tuple[StoredModel, bool]:
    """Store a new model or find the one that another process has stored meanwhile; tell whether it is new."""
    created_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    key, name, settings = identity.digest, stored(identity.model_name), stored(identity.settings_json)
    values = (key, name, settings, dim, identity.dtype, _blob(canary), created_at)
    rows = connection.execute(INSERT, values, binary=True).fetchall()
    if rows:
        model = StoredModel(rows[0][0], identity, dim, canary, created_at)
        update(connection, model)
        return model, True
    found = find(connection, identity)  # a new statement sees what ON CONFLICT has met
    if found is None:  # and was removed again
        return insert(connection, identity, dim, canary)
    return found, False


def update(connection: Connection, model: StoredModel) -> None:
    """Write a model's identity, format and canary, and the checksum of its row."""
    key, settings = model.identity.digest, stored(model.identity.settings_json)
    values = (key, stored(model.identity.model_name), settings, model.dtype, _blob(model.canary))
    connection.execute(UPDATE, (*values, checksum(model), model.model_id))


def delete(connection: Connection, model_id: int) -> None:
    """Remove a model of which nothing is stored any more."""
    connection.execute(DELETE, (model_id,))


def checked(row: tuple[Any, ...]) -> StoredModel:
    """Make a model of a row, once its checksum and types are right."""
    model_id, model_name, settings, *rest = row
    return sqlite_models.checked((model_id, given(model_name), given(settings), *rest))


def checksum(model: StoredModel) -> int:
    """Give the checksum of a model's row."""
    return sqlite_models.checksum(model)


def _of_identity(model: StoredModel, identity: ModelIdentity) -> StoredModel:
    if model.identity != identity:
        raise DamagedStoreError(
            f"the row of model {model.identity.model_name!r:.80} (model_id {model.model_id}) is damaged: it is found "
            f"as {str(identity)!r:.80}; clear(model_name=...) removes it with its vectors",
            model_name=model.identity.model_name,
        )
    return model


def _in_format(model: StoredModel, dtype: str) -> StoredModel:
    if dtype == model.dtype or dtype not in DTYPES:
        return model
    return replace(model, identity=model.identity.stored_as(dtype))


def _blob(canary: Vectors | None) -> bytes | None:
    return None if canary is None else as_vectors(canary).tobytes()
