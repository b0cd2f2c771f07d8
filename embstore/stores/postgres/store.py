"""The store on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embstore.checksums import is_sound
from embstore.codec import Vectors, are_finite
from embstore.errors import UnconfirmedWriteError, UnknownModelError
from embstore.formats import STORED_DTYPES
from embstore.identity import Dtype, ModelIdentity
from embstore.stores.base import StoredModel, VectorLookup
from embstore.stores.opening import checked_timeout
from embstore.stores.postgres import collections, documents, migrating, models, usage, vectors
from embstore.stores.postgres.bulk import PostgresBulk
from embstore.stores.postgres.byte_values import PostgresByteValues
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.leases import PostgresLeases
from embstore.stores.postgres.pool import Connection
from embstore.stores.postgres.strings import stored
from embstore.stores.postgres.texts import PostgresTexts
from embstore.stores.postgres.upkeep import PostgresUpkeep
from embstore.stores.postgres.url import read_url
from embstore.stores.postgres.usage import PostgresUsage

T = TypeVar("T")

LONGEST_S = 1e6  # the milliseconds of a timeout are a C int


class PostgresStore(PostgresUpkeep, PostgresBulk):
    """A `Store` on a server; see `embstore.stores.base.Store` for what each method does.

    Parameters
    ----------
    url : str
        As libpq takes it, with "prepare_threshold" and "pool_size" among its options; see `ServerUrl`.
    timeout_s : float
        How long to wait for a connection, and for what others have locked.
    dtype : "float32" or "float16"
        The format of models that are new.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        The URL, or the time, cannot be used.
    ServerUnreachableError, TooManyConnectionsError, StorePathError
        There is no such server or database, or it lets nobody in.
    NotAStoreError, NewerStoreError, UnsafeStoreError, ReadOnlyError
        What is there cannot be used, and was not changed.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, dtype: Dtype = "float32") -> None:
        super().__init__(Server(read_url(url), min(checked_timeout(timeout_s), LONGEST_S)), dtype)
        self.location = self._server.location
        self.read_only = self._server.read_only = migrating.prepare(self._server)
        self.leases = PostgresLeases(self._server)
        self.texts = PostgresTexts(self._server)
        self.byte_values = PostgresByteValues(self._server)
        self._usage = PostgresUsage()
        self._server.go_along(self._usage)

    def reading(self) -> AbstractContextManager[Any]:
        """See `Store.reading`."""
        return self._server.reading()

    def read(self, work: Callable[[], T]) -> T:
        """See `Store.read`."""
        return self._server.read(lambda _: work())

    def write(self, work: Callable[[], T], *, again: bool = False) -> T:
        """See `Store.write`."""
        try:
            return self._server.write(lambda _: work())
        except UnconfirmedWriteError:
            if not again:
                raise
            return self._server.write(lambda _: work())

    # --- vectors and documents --------------------------------------------------------------

    def group_rows(self) -> int:
        """See `Store.group_rows`: a server writes the pages of an index together, whatever transactions change them."""
        return 0

    def look_up(self, model: StoredModel, content_hashes: Sequence[bytes]) -> VectorLookup:
        """See `Store.look_up`."""

        def look_up(connection: Connection) -> VectorLookup:
            found = vectors.look_up(connection, model, content_hashes)
            if found.damaged.any():  # or the model was converted: its rows have another length
                now = models.as_now(connection, model)
                return found if now.dtype == model.dtype else vectors.look_up(connection, now, content_hashes)
            return found

        return self._server.read(look_up)

    def recorded(
        self,
        model: StoredModel,
        collection: str,
        doc_ids: Sequence[str],
        content_hashes: Sequence[bytes],
        vector_ids: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """See `Store.recorded`."""
        return self._server.read(
            lambda connection: np.equal(
                documents.pointers(connection, model, collection, doc_ids, content_hashes), vector_ids
            )
        )

    def read_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> Vectors | None:
        """See `Store.read_documents`."""

        def read(connection: Connection) -> Vectors | None:
            found = documents.read_sound(connection, model, collection, doc_ids, content_hashes)
            if found is None:
                now = models.as_now(connection, model)
                if now.dtype != model.dtype:
                    return documents.read_sound(connection, now, collection, doc_ids, content_hashes)
            return found

        return self._server.read(read)

    def read_document(
        self, identity: ModelIdentity, collection: str, doc_id: str, content_hash: bytes
    ) -> tuple[StoredModel, Vectors] | None:
        """See `Store.read_document`: of a model that was found before and is as it was then."""
        model, model_checksum = self._found.get(identity, (None, 0))
        if model is None:
            return None
        rows = self._server.fetch_at_once(documents.FIND_ONE, (model.model_id, stored(collection), stored(doc_id)))
        if len(rows) != 1:
            return None
        checksum_now, doc_checksum, checksum, blob = rows[0]
        dtype = STORED_DTYPES[model.dtype]
        if checksum_now != model_checksum or len(blob) != model.dim * dtype.itemsize:
            return None
        place = (collection, doc_id, doc_checksum)
        values = np.frombuffer(blob, dtype=dtype)
        if is_sound(model.model_id, model.dim, blob, checksum, *place, content_hash) and are_finite(values):
            return model, values.astype(np.float32)
        return None

    def insert_vectors(
        self, model: StoredModel, content_hashes: Sequence[bytes], vectors_: Vectors, *, standalone: bool
    ) -> int:
        """See `Store.insert_vectors`."""

        def insert(connection: Connection) -> int:
            now = models.locked(connection, model)
            n_new = vectors.insert(connection, now, content_hashes, vectors_, standalone=standalone)
            self._usage.stored(now.model_id, n_new)
            return n_new

        return self._server.write(insert)

    def replace_vectors(
        self, model: StoredModel, content_hashes: Sequence[bytes], vectors_: Vectors, *, standalone: bool
    ) -> int:
        """See `Store.replace_vectors`."""

        def replace(connection: Connection) -> int:
            now = models.locked(connection, model)
            n_new, n_changed = vectors.replace(connection, now, content_hashes, vectors_, standalone=standalone)
            if n_changed:
                collections.vectors_changed(connection, models.identities(connection, [now.model_id]))
            self._usage.stored(now.model_id, n_new)
            return n_new

        return self._server.write(replace)

    def mark_standalone(self, model: StoredModel, content_hashes: Sequence[bytes]) -> None:
        """See `Store.mark_standalone`."""

        def mark(connection: Connection) -> None:
            with suppress(UnknownModelError):  # gone, with its vectors
                vectors.mark_standalone(connection, models.locked(connection, model), content_hashes)

        self._server.write(mark)

    def note_encoding(self, model: StoredModel, *, n_texts: int, n_chars: int, seconds: float) -> None:
        """See `Store.note_encoding`."""
        self._server.write(lambda _: self._usage.encoded(model.model_id, n_texts, n_chars, seconds))

    def note_hits(self, model: StoredModel, *, n_texts: int, n_chars: int) -> None:
        """See `Store.note_hits`."""
        if not self.read_only:
            self._usage.hit(model.model_id, n_texts, n_chars)

    def seconds_per_char(self, model: StoredModel) -> float | None:
        """See `Store.seconds_per_char`."""
        return self._server.read(lambda connection: usage.seconds_per_char(connection, model.model_id))

    def put_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> None:
        """See `Store.put_documents`."""

        def put(connection: Connection) -> None:
            documents.put(connection, models.locked(connection, model), collection, doc_ids, content_hashes)

        self._server.write(put)

    def insert_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> int:
        """See `ContentStore.insert_documents`."""

        def insert(connection: Connection) -> int:
            now = models.locked(connection, model)
            return documents.insert(connection, now, collection, doc_ids, content_hashes)

        return self._server.write(insert)

    # --- looking after it -------------------------------------------------------------------

    def close(self) -> None:
        """See `Store.close`."""
        self._server.close()
