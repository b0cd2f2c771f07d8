"""The contents of a server as another store takes them: read in pages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from embstore.checksums import content_sums
from embstore.errors import DamagedStoreError
from embstore.stores.base import StoredModel
from embstore.stores.bulk import Listing, content_sums_of_listing, rows_missing
from embstore.stores.contents import ContentPage
from embstore.stores.postgres import models, vectors
from embstore.stores.postgres.arrays import Int8Array
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import given

IDS_AT_ONCE = 10_000  # as Python's integers, which take four times the memory

IDS = """
SELECT vector_id
FROM vectors
WHERE model_id = %s
"""

# Without the model: as long as the server has no statistics, it would read all that the model has for each page.
STILL_THERE = """
SELECT vector_id
FROM vectors
WHERE vector_id = ANY(%b)
ORDER BY vector_id
"""

# A document whose vector is no vector of its model, which only damage makes.
LOST = """
SELECT documents.doc_id
FROM documents
LEFT JOIN vectors ON vectors.model_id = documents.model_id AND vectors.vector_id = documents.vector_id
WHERE documents.model_id = %s AND vectors.vector_id IS NULL
LIMIT 1
"""

OF_VECTORS = """
SELECT collection, doc_id, vector_id, checksum
FROM documents
WHERE model_id = %s AND vector_id = ANY(%b)
ORDER BY vector_id, collection, doc_id
"""


class PostgresContents:
    """The part of a `Store` on a server that gives contents; see `embstore.stores.contents.ContentStore`."""

    _server: Server

    def contents(self, model: StoredModel, *, batch_rows: int) -> Iterator[ContentPage]:
        """See `ContentStore.contents`.

        Raises
        ------
        DamagedStoreError
            A row is not what was written; the message names it.
        """

        def ids(connection: Connection) -> npt.NDArray[np.int64]:
            if connection.execute(LOST, (model.model_id,)).fetchall():
                raise rows_missing("rows whose vectors are not there")
            return vector_ids(connection, model.model_id)

        every = self._server.read(ids)
        for start in range(0, len(every), batch_rows):
            page = every[start : start + batch_rows]
            yield self._server.read(partial(_page, model=model, page=page))


def vector_ids(connection: Connection, model_id: int) -> npt.NDArray[np.int64]:
    """List the vectors of a model, ascending: (n,)."""
    pages = [np.empty(0, dtype=np.int64)]
    with connection.cursor("embstore_ids", binary=True) as cursor:
        cursor.execute(IDS, (model_id,))
        while rows := cursor.fetchmany(IDS_AT_ONCE):
            pages.append(np.array(rows, dtype=np.int64).reshape(-1))
    return np.sort(np.concatenate(pages))


def _page(connection: Connection, model: StoredModel, page: npt.NDArray[np.int64]) -> ContentPage:
    """Read the vectors of ascending vector_ids, and the documents that point at them; without those removed since."""
    model = models.as_now(connection, model)
    page = np.array(
        [row[0] for row in connection.execute(STILL_THERE, (Int8Array(page),), binary=True)],
        dtype=np.int64,
    )
    rows = vectors.read(connection, model, page)
    sound = rows.sound(model.model_id, rows.content_hashes)
    if not sound.all():
        raise _damaged(f"the vector of vector_id {page[np.argmin(sound)]}", model)
    found = connection.execute(OF_VECTORS, (model.model_id, Int8Array(page)), binary=True).fetchall()
    listing = Listing.of([(given(name), given(doc_id), *numbers) for name, doc_id, *numbers in found])
    row_of = np.searchsorted(page, listing.vector_ids)
    fits = content_sums(rows.content_hashes)[row_of] == content_sums_of_listing(model, listing)
    if not fits.all():
        raise _damaged(f"the row of doc_id {listing.doc_ids[int(np.argmin(fits))]!r:.80}", model)
    return ContentPage(
        [row.tobytes() for row in rows.content_hashes],
        rows.vectors,
        rows.standalone == 1,
        list(zip(listing.collections, listing.doc_ids, row_of.tolist(), strict=True)),
    )


def _damaged(what: str, model: StoredModel) -> DamagedStoreError:
    return DamagedStoreError(
        f"{what} of model {str(model.identity)!r} is damaged; get_many with its text mends it, verify() lists all"
    )
