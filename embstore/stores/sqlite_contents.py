"""The contents of an SQLite file as another store takes them: read in pages, and added to what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.checksums import content_sums
from embstore.errors import DamagedStoreError
from embstore.stores import bulk
from embstore.stores.base import StoredModel
from embstore.stores.contents import ContentPage
from embstore.stores.sqlite_models import SQLiteModels
from embstore.stores.tables import documents, vector_rows, vectors


class SQLiteContents(SQLiteModels):
    """The part of an SQLite `Store` that gives and takes contents; see `embstore.stores.contents.ContentStore`."""

    def contents(self, model: StoredModel, *, batch_rows: int) -> Iterator[ContentPage]:
        """See `ContentStore.contents`.

        Raises
        ------
        DamagedStoreError
            A row is not what was written; the message names it.
        """
        with self._database.reading() as connection:
            vector_ids = vectors.ids(connection, model.model_id)
            pointers = np.sort(documents.vector_ids(connection, model.model_id, None))
            if len(pointers) != documents.count_of_model(connection, model.model_id, None):
                raise bulk.rows_missing("damaged keys")
        if not np.isin(pointers, vector_ids).all():
            raise bulk.rows_missing("rows whose vectors are not there")
        for start in range(0, len(vector_ids), batch_rows):
            page = vector_ids[start : start + batch_rows]
            first, last = np.searchsorted(pointers, (page[0], page[-1] + 1)).tolist()
            with self._database.reading() as connection:
                read = _read_page(connection, self._as_now(connection, model), page, last - first)
            yield read

    def insert_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> int:
        """See `ContentStore.insert_documents`."""
        with self._database.writing() as connection:
            return documents.insert(connection, model, collection, doc_ids, content_hashes)


def _read_page(
    connection: Connection, model: StoredModel, vector_ids: npt.NDArray[np.int64], n_documents: int
) -> ContentPage:
    """Read the vectors of ascending vector_ids, and the documents that point at them; without those removed since."""
    rows = vector_rows.read(connection, vector_ids, model)
    sound = rows.sound(model.model_id, rows.content_hashes)
    if not sound.all():
        still_there = np.isin(vector_ids, vectors.ids(connection, model.model_id))
        if not still_there.all():
            return _read_page(connection, model, vector_ids[still_there], n_documents)
        damaged = int(np.argmin(sound))
        raise _damaged(f"the vector of vector_id {vector_ids[damaged]}", model)
    if not len(vector_ids):
        return ContentPage([], rows.vectors, sound, [])
    listing = bulk.list_range(connection, model, None, vector_ids, n_documents)
    row_of = np.searchsorted(vector_ids, listing.vector_ids)  # all are in the range
    is_listed = vector_ids[row_of] == listing.vector_ids
    fits = content_sums(rows.content_hashes)[row_of] == bulk.content_sums_of_listing(model, listing)
    if not fits[is_listed].all():
        damaged = int(np.argmin(fits | ~is_listed))
        raise _damaged(f"the row of doc_id {listing.doc_ids[damaged]!r:.80}", model)
    listed = zip(listing.collections, listing.doc_ids, row_of.tolist(), is_listed.tolist(), strict=True)
    return ContentPage(
        [row.tobytes() for row in rows.content_hashes],
        rows.vectors,
        rows.standalone == 1,
        [(collection, doc_id, row) for collection, doc_id, row, is_there in listed if is_there],
    )


def _damaged(what: str, model: StoredModel) -> DamagedStoreError:
    return DamagedStoreError(
        f"{what} of model {str(model.identity)!r} is damaged; verify() lists all, and `embstore repair` saves the rest "
        f"in a new file"
    )
