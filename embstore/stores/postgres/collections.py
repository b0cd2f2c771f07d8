"""The table collections of a server; see `embstore.stores.tables.collections` for what its numbers mean.

Who changes a row has locked it before reading it, as its checksum is of all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from embstore.checksums import collection_checksum
from embstore.errors import DamagedStoreError
from embstore.identity import ModelIdentity
from embstore.stores.postgres.arrays import TextArray
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import check_keys, given, stored
from embstore.stores.tables import collections as sqlite_collections
from embstore.stores.texts import StoredCollection

FIND = f"""
SELECT {sqlite_collections.COLUMNS}
FROM collections
WHERE collection = %s
"""

ALL = f"""
SELECT {sqlite_collections.COLUMNS}
FROM collections
ORDER BY collection
"""

LOCK = f"""
SELECT {sqlite_collections.COLUMNS}
FROM collections
WHERE collection = ANY(%b)
ORDER BY collection
FOR UPDATE
"""

INSERT = f"""
INSERT INTO collections ({sqlite_collections.COLUMNS})
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (collection) DO NOTHING
"""

UPDATE = """
UPDATE collections
SET model_name = %s, settings = %s, n_texts = %s, texts_version = %s, vectors_version = %s, checksum = %s
WHERE collection = %s
"""


def find(connection: Connection, name: str) -> StoredCollection | None:
    """Read one collection; DamagedStoreError where its row is not what was written."""
    rows = connection.execute(FIND, (stored(name),), binary=True).fetchall()
    return checked(rows[0]) if rows else None


def lock(connection: Connection, name: str) -> StoredCollection | None:
    """Read one collection, which nobody else changes before this transaction has ended; as `find`."""
    rows = _locked(connection, [name])
    return checked(rows[0]) if rows else None


def list_all(connection: Connection) -> list[StoredCollection]:
    """Read all collections, by name; DamagedStoreError where the row of one is not what was written."""
    return [checked(row) for row in connection.execute(ALL, binary=True).fetchall()]


def insert(connection: Connection, collection: StoredCollection) -> bool:
    """Write a collection that is new; tell whether it was, as another process can be first.

    Raises
    ------
    InvalidInputError
        Its name is longer than what a server can find again.
    """
    check_keys("", [stored(collection.name).encode()], "the name of a collection")
    name, *values = _values(collection)
    return connection.execute(INSERT, (name, *values)).rowcount == 1


def put(connection: Connection, collection: StoredCollection) -> None:
    """Write a collection that is there, and locked."""
    name, *values = _values(collection)
    connection.execute(UPDATE, (*values, name))


def rename_model(connection: Connection, old: str, new: str) -> None:
    """Give the model of all collections that are of `old` another name."""
    for collection in _sound(connection):
        if collection.identity.model_name == old:
            put(connection, replace(collection, identity=collection.identity.renamed(new)))


def change_model(connection: Connection, old: ModelIdentity, new: ModelIdentity) -> None:
    """Make all collections of a model those of another one, which has others of its vectors."""
    for collection in _sound(connection, [old]):
        put(connection, replace(collection, identity=new, vectors_version=collection.vectors_version + 1))


def vectors_changed(connection: Connection, identities: Collection[ModelIdentity] | None) -> None:
    """Note that vectors of some models were replaced or removed; None: of whatever models."""
    for collection in _sound(connection, identities):
        put(connection, replace(collection, vectors_version=collection.vectors_version + 1))


def checked(row: tuple[Any, ...]) -> StoredCollection:
    """Make a collection of a row, once its checksum and types are right."""
    name, model_name, settings, *rest = row
    return sqlite_collections.checked((given(name), given(model_name), given(settings), *rest))


def _sound(connection: Connection, identities: Collection[ModelIdentity] | None = None) -> Iterator[StoredCollection]:
    """Lock those collections of some models (None: of all) whose rows are what was written, and give them."""
    if identities is not None and not identities:
        return
    wanted = [
        collection.name
        for collection in _undamaged(connection.execute(ALL, binary=True).fetchall())
        if identities is None or collection.identity in identities
    ]
    for collection in _undamaged(_locked(connection, wanted)):
        if identities is None or collection.identity in identities:
            yield collection


def _undamaged(rows: Sequence[tuple[Any, ...]]) -> Iterator[StoredCollection]:
    for row in rows:
        try:
            yield checked(row)
        except DamagedStoreError:
            continue  # whoever reads it is told


def _locked(connection: Connection, names: Sequence[str]) -> list[tuple[Any, ...]]:
    keys = TextArray([stored(name).encode() for name in names])
    return connection.execute(LOCK, (keys,), binary=True).fetchall() if names else []


def _values(collection: StoredCollection) -> tuple[Any, ...]:
    fields = sqlite_collections.fields(collection)
    name, model_name, settings, *numbers = fields
    return (stored(name), stored(model_name), stored(settings), *numbers, collection_checksum(fields))
