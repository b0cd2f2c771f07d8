"""The collections of texts on a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embstore.errors import DamagedStoreError
from embstore.identity import ModelIdentity
from embstore.stores.postgres import collections, text_rows
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.texts import StoredCollection, StoredText


class PostgresTexts:
    """A `TextStore` on a server; see `embstore.stores.texts.TextStore` for what each method does.

    Who writes texts of a collection has locked its row, so that they follow on each other.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def find_collection(self, name: str) -> StoredCollection | None:
        """See `TextStore.find_collection`.

        Raises
        ------
        DamagedStoreError
            Its row is not what was written, or there are texts of a collection that is not there.
        """
        return self._server.read(lambda connection: _find(connection, name))

    def list_collections(self) -> list[StoredCollection]:
        """See `TextStore.list_collections`.

        Raises
        ------
        DamagedStoreError
            The row of one is not what was written.
        """
        return self._server.read(collections.list_all)

    def ensure_collection(self, name: str, identity: ModelIdentity) -> StoredCollection:
        """See `TextStore.ensure_collection`: locks nothing where there is nothing to write.

        Raises
        ------
        InvalidInputError
            The name is longer than what a server can find again.
        """
        found = self.find_collection(name)
        if found is not None and (found.n_texts or found.identity == identity):
            return found
        return self._server.write(lambda connection: _ensure(connection, name, identity))

    def rename_model(self, old: str, new: str) -> None:
        """See `TextStore.rename_model`."""
        self._server.write(lambda connection: collections.rename_model(connection, old, new))

    def text_ids(self, collection: str) -> npt.NDArray[np.int64]:
        """See `TextStore.text_ids`.

        Raises
        ------
        DamagedStoreError
            There are fewer or more than were written.
        """

        def read(connection: Connection) -> tuple[npt.NDArray[np.int64], StoredCollection | None]:
            return text_rows.ids(connection, collection), _find(connection, collection)

        ids, found = self._server.read(read)
        n_written = 0 if found is None else found.n_texts
        if len(ids) != n_written:
            raise DamagedStoreError(
                f"of collection {collection!r} of {self._server.location!r} {n_written} texts were written, and "
                f"{len(ids)} are found: rows were changed; index its documents into another collection, where no text "
                f"is encoded again",
                path=self._server.location,
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
        found = self._server.read(lambda connection: text_rows.read(connection, collection, text_ids))
        damaged = [text_id for text_id, text in found.items() if text is None]
        if damaged:
            raise DamagedStoreError(
                f"the row text_id {damaged[0]} (and {len(damaged) - 1} more) of collection {collection!r} of "
                f"{self._server.location!r} is damaged; index its documents again, or see verify()",
                path=self._server.location,
                text_ids=damaged,
            )
        return {text_id: text for text_id, text in found.items() if text is not None}

    def find(self, collection: str, doc_ids: Sequence[str]) -> dict[str, StoredText | None]:
        """See `TextStore.find`."""
        return self._server.read(lambda connection: text_rows.find(connection, collection, doc_ids))

    def put(self, collection: str, texts: Sequence[StoredText]) -> None:
        """See `TextStore.put`.

        Raises
        ------
        InvalidInputError
            A text is longer than what is stored, or a doc_id than what a server can find again; nothing was written.
        """
        if not texts:
            return

        def put(connection: Connection) -> None:
            there = _locked(connection, collection)
            _count(connection, there, text_rows.put(connection, collection, texts))

        self._server.write(put)

    def delete(self, collection: str, doc_ids: Sequence[str]) -> int:
        """See `TextStore.delete`."""
        if not doc_ids:
            return 0

        def delete(connection: Connection) -> int:
            there = collections.lock(connection, collection)
            n_deleted = text_rows.delete(connection, collection, doc_ids)
            if n_deleted:
                if there is None:
                    raise _lost(collection)
                _count(connection, there, -n_deleted)
            return n_deleted

        return self._server.write(delete)


def _find(connection: Connection, name: str) -> StoredCollection | None:
    found = collections.find(connection, name)
    if found is None and text_rows.has_any(connection, name):
        raise _lost(name)
    return found


def _ensure(connection: Connection, name: str, identity: ModelIdentity) -> StoredCollection:
    """Give a collection that is stored now; it has this model, or texts."""
    if _find(connection, name) is None:
        collections.insert(connection, StoredCollection(name, identity))
    found = _locked(connection, name)
    if not found.n_texts and found.identity != identity:
        found = replace(found, identity=identity)
        collections.put(connection, found)
    return found


def _locked(connection: Connection, name: str) -> StoredCollection:
    found = collections.lock(connection, name)
    if found is None:
        raise _lost(name)
    return found


def _count(connection: Connection, there: StoredCollection, n_more: int) -> None:
    """Note that texts of a collection were written or removed."""
    changed = replace(there, n_texts=there.n_texts + n_more, texts_version=there.texts_version + 1)
    collections.put(connection, changed)


def _lost(name: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"there are texts of collection {name!r}, and its row cannot be found: it was removed; index its documents "
        f"into another collection, where no text is encoded again",
        collection=name,
    )
