"""The collections of texts in an SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.errors import DamagedStoreError
from embstore.identity import ModelIdentity
from embstore.stores.connection import Database
from embstore.stores.tables import collections, texts
from embstore.stores.texts import StoredCollection, StoredText


class SQLiteTexts:
    """A `TextStore` in an SQLite file; see `embstore.stores.texts.TextStore` for what each method does.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find_collection(self, name: str) -> StoredCollection | None:
        """See `TextStore.find_collection`.

        Raises
        ------
        DamagedStoreError
            Its row is not what was written, or there are texts of a collection that is not there.
        """
        with self._database.reading() as connection:
            return _find(connection, name)

    def list_collections(self) -> list[StoredCollection]:
        """See `TextStore.list_collections`.

        Raises
        ------
        DamagedStoreError
            The row of one is not what was written.
        """
        with self._database.reading() as connection:
            return collections.list_all(connection)

    def ensure_collection(self, name: str, identity: ModelIdentity) -> StoredCollection:
        """See `TextStore.ensure_collection`: takes no write lock where there is nothing to write."""
        found = self.find_collection(name)
        if found is not None and (found.n_texts or found.identity == identity):
            return found
        with self._database.writing() as connection:
            found = _find(connection, name) or StoredCollection(name, identity)
            if not found.n_texts:
                found = replace(found, identity=identity)
                collections.put(connection, found)
            return found

    def rename_model(self, old: str, new: str) -> None:
        """See `TextStore.rename_model`."""
        with self._database.writing() as connection:
            collections.rename_model(connection, old, new)

    def text_ids(self, collection: str) -> npt.NDArray[np.int64]:
        """See `TextStore.text_ids`.

        Raises
        ------
        DamagedStoreError
            There are fewer or more than were written.
        """
        with self._database.reading() as connection:
            ids = texts.ids(connection, collection)
            found = _find(connection, collection)
        n_written = 0 if found is None else found.n_texts
        if len(ids) != n_written or (np.diff(ids) == 0).any():
            raise DamagedStoreError(
                f"of collection {collection!r} of {self._database.path!r} {n_written} texts were written, and "
                f"{len(set(ids.tolist()))} are found: keys are damaged; index its documents into another collection, "
                f"where no text is encoded again",
                path=self._database.path,
                collection=collection,
            )
        return ids

    def read(self, collection: str, text_ids: npt.NDArray[np.int64]) -> dict[int, StoredText]:
        """See `TextStore.read`.

        Raises
        ------
        DamagedStoreError
            A row is not what was written.
        """
        with self._database.reading() as connection:
            found = texts.read(connection, collection, text_ids.tolist())
        damaged = [text_id for text_id, text in found.items() if text is None]
        if damaged:
            raise DamagedStoreError(
                f"the row text_id {damaged[0]} (and {len(damaged) - 1} more) of collection {collection!r} of "
                f"{self._database.path!r} is damaged; index its documents again, or see verify()",
                path=self._database.path,
                text_ids=damaged,
            )
        return {text_id: text for text_id, text in found.items() if text is not None}

    def find(self, collection: str, doc_ids: Sequence[str]) -> dict[str, StoredText | None]:
        """See `TextStore.find`."""
        with self._database.reading() as connection:
            return texts.find(connection, collection, doc_ids)

    def put(self, collection: str, texts_: Sequence[StoredText]) -> None:
        """See `TextStore.put`."""
        if not texts_:
            return
        with self._database.writing() as connection:
            _count(connection, collection, texts.put(connection, collection, texts_))

    def delete(self, collection: str, doc_ids: Sequence[str]) -> int:
        """See `TextStore.delete`."""
        if not doc_ids:
            return 0
        with self._database.writing() as connection:
            n_deleted = texts.delete(connection, collection, doc_ids)
            if n_deleted:
                _count(connection, collection, -n_deleted)
            return n_deleted


def _find(connection: Connection, name: str) -> StoredCollection | None:
    found = collections.find(connection, name)
    if found is None and texts.has_any(connection, name):
        raise _lost(name)
    return found


def _count(connection: Connection, name: str, n_more: int) -> None:
    """Note that texts of a collection were written or removed."""
    found = collections.find(connection, name)
    if found is None:
        raise _lost(name)
    n_texts, version = found.n_texts + n_more, found.texts_version + 1
    collections.put(connection, replace(found, n_texts=n_texts, texts_version=version))


def _lost(name: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"there are texts of collection {name!r}, and its row cannot be found: keys are damaged; index its documents "
        f"into another collection, where no text is encoded again",
        collection=name,
    )
