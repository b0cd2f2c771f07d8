"""The table collections: which model a collection of texts belongs to, and what has been done to it.

Two numbers tell those who keep something of a collection in memory whether it is still right: `texts_version` moves
on when a text of the collection is written or removed, `vectors_version` when vectors of its model are replaced or
removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from sqlite3 import Connection
from typing import Any

from embstore.checksums import collection_checksum
from embstore.errors import DamagedStoreError
from embstore.identity import ModelIdentity
from embstore.stores.tables import has_table, is_count
from embstore.stores.texts import StoredCollection

COLUMNS = "collection, model_name, settings, n_texts, texts_version, vectors_version, checksum"

FIND = f"""
SELECT {COLUMNS}
FROM collections
WHERE collection = ?
"""

ALL = f"""
SELECT {COLUMNS}
FROM collections
"""

UPSERT = f"""
INSERT INTO collections ({COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (collection) DO UPDATE
SET model_name = excluded.model_name, settings = excluded.settings, n_texts = excluded.n_texts,
    texts_version = excluded.texts_version, vectors_version = excluded.vectors_version, checksum = excluded.checksum
"""


def exists(connection: Connection) -> bool:
    """Tell whether the file has the table: one of schema version 1 that can only be read has not."""
    return has_table(connection, "collections")


def find(connection: Connection, name: str) -> StoredCollection | None:
    """Read one collection; DamagedStoreError where its row is not what was written."""
    row = connection.execute(FIND, (name,)).fetchone() if exists(connection) else None
    return None if row is None else checked(row)


def list_all(connection: Connection) -> list[StoredCollection]:
    """Read all collections, by name; DamagedStoreError where the row of one is not what was written."""
    rows = connection.execute(ALL).fetchall() if exists(connection) else []
    return sorted((checked(row) for row in rows), key=lambda collection: collection.name)


def put(connection: Connection, collection: StoredCollection) -> None:
    """Write a collection in place of any of its name."""
    values = fields(collection)
    connection.execute(UPSERT, (*values, collection_checksum(values)))


def rename_model(connection: Connection, old: str, new: str) -> None:
    """Give the model of all collections that are of `old` another name."""
    for collection in _sound(connection):
        if collection.identity.model_name == old:
            put(connection, replace(collection, identity=collection.identity.renamed(new)))


def change_model(connection: Connection, old: ModelIdentity, new: ModelIdentity) -> None:
    """Make all collections of a model those of another one, which has others of its vectors."""
    for collection in _sound(connection):
        if collection.identity == old:
            put(connection, replace(collection, identity=new, vectors_version=collection.vectors_version + 1))


def vectors_changed(connection: Connection, identities: Collection[ModelIdentity] | None) -> None:
    """Note that vectors of some models were replaced or removed; None: of whatever models."""
    if identities is not None and not identities:
        return
    for collection in _sound(connection):
        if identities is None or collection.identity in identities:
            put(connection, replace(collection, vectors_version=collection.vectors_version + 1))


def checked(row: tuple[Any, ...]) -> StoredCollection:
    """Make a collection of a row, once its checksum and types are right."""
    name, model_name, settings, n_texts, texts_version, vectors_version, checksum = row
    try:
        identity = ModelIdentity(model_name, settings)
        collection = StoredCollection(name, identity, n_texts, texts_version, vectors_version)
        are_numbers = is_count(n_texts) and is_count(texts_version) and is_count(vectors_version)
        sound = are_numbers and collection_checksum(fields(collection)) == checksum
    except (TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise DamagedStoreError(
            f"the row of collection {name!r:.80} is damaged: its checksum does not fit; index its documents into "
            f"another collection, where no text is encoded again",
            collection=name,
        )
    return collection


def fields(collection: StoredCollection) -> tuple[str, str, str, int, int, int]:
    """Give the columns of a row, without its checksum."""
    identity = collection.identity
    versions = (collection.texts_version, collection.vectors_version)
    return (collection.name, identity.model_name, identity.settings_json, collection.n_texts, *versions)


def _sound(connection: Connection) -> Iterator[StoredCollection]:
    for row in connection.execute(ALL).fetchall():
        try:
            yield checked(row)
        except DamagedStoreError:
            continue  # whoever reads it is told
