"""The store in one SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.identity import Dtype, ModelIdentity
from embstore.stores import bulk, copying, forgetting, opening, shards, summary, verify
from embstore.stores.base import DocumentInfo, Problem, PruneReport, Stats, StoredModel, T, VectorLookup
from embstore.stores.connection import Database
from embstore.stores.copying import OnProgress
from embstore.stores.shards import Shard
from embstore.stores.sqlite_byte_values import SQLiteByteValues
from embstore.stores.sqlite_contents import SQLiteContents
from embstore.stores.sqlite_documents import SQLiteDocuments
from embstore.stores.sqlite_leases import SQLiteLeases
from embstore.stores.sqlite_texts import SQLiteTexts
from embstore.stores.sqlite_usage import SQLiteUsage
from embstore.stores.tables import (
    collections,
    document_rows,
    documents,
    encodings,
    models,
    vector_writes,
    vectors,
)

LISTED_AT_ONCE = 1000

# A hundredth of the rows that there are, and no more than this many, are worth a transaction.
GROUPS = 100
MOST_GROUP_ROWS = 10_000


class SQLiteStore(SQLiteContents):
    """A `Store` in one SQLite file; see `embstore.stores.base.Store` for what each method does.

    Parameters
    ----------
    path : str or Path
    timeout_s : float
        How long to wait for another process's lock.
    allow_network_filesystem : bool
        Use a file whose file system cannot be trusted with locks.
    dtype : "float32" or "float16"
        The format of models that are new.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        timeout_s: float = 30.0,
        allow_network_filesystem: bool = False,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__(Database(path, timeout_s=timeout_s, allow_network_filesystem=allow_network_filesystem), dtype)
        self.location, self.read_only = self._database.path, self._database.read_only
        self.texts = SQLiteTexts(self._database)
        self.byte_values = SQLiteByteValues(self._database)
        self.leases = SQLiteLeases(self._database)
        self._documents = SQLiteDocuments(self._database)
        self._usage = SQLiteUsage(self._database)
        self._database.go_along(self._usage)

    def reading(self) -> AbstractContextManager[Connection]:
        """See `Store.reading`."""
        return self._database.reading()

    def read(self, work: Callable[[], T]) -> T:
        """See `Store.read`."""
        with self._database.reading():
            return work()

    def write(self, work: Callable[[], T], *, again: bool = False) -> T:
        """See `Store.write`: the work is called once, as nobody else writes meanwhile."""
        with self.writing():
            return work()

    def writing(self) -> AbstractContextManager[Connection]:
        """Make the writes of a block one transaction."""
        self._usage.look()
        return self._database.writing()

    # --- vectors and documents --------------------------------------------------------------

    def group_rows(self) -> int:
        """See `Store.group_rows`: a group rewrites most of the index on hashes, which grows with the rows there are."""
        with self._database.reading() as connection:
            return min(vector_writes.last_id(connection) // GROUPS, MOST_GROUP_ROWS)

    def look_up(self, model: StoredModel, content_hashes: Sequence[bytes]) -> VectorLookup:
        """See `Store.look_up`."""
        with self._database.reading() as connection:
            return vectors.look_up(connection, self._as_now(connection, model), content_hashes)

    def recorded(
        self,
        model: StoredModel,
        collection: str,
        doc_ids: Sequence[str],
        content_hashes: Sequence[bytes],
        vector_ids: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """See `Store.recorded`."""
        with self._database.reading() as connection:
            return np.equal(documents.pointers(connection, model, collection, doc_ids, content_hashes), vector_ids)

    def read_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> Vectors | None:
        """See `Store.read_documents`."""
        with self._database.reading() as connection:
            vector_ids = documents.pointers(connection, model, collection, doc_ids, content_hashes)
            if not vector_ids.all():
                return None
            return vectors.read_sound(connection, self._as_now(connection, model), vector_ids, content_hashes)

    def read_document(
        self, identity: ModelIdentity, collection: str, doc_id: str, content_hash: bytes
    ) -> tuple[StoredModel, Vectors] | None:
        """See `Store.read_document`: of a model that was found before and is as it was then."""
        model, model_checksum = self._found.get(identity, (None, 0))
        if model is None:
            return None
        vector = self._documents.read(model, model_checksum, collection, doc_id, content_hash)
        return None if vector is None else (model, vector)

    def insert_vectors(
        self, model: StoredModel, content_hashes: Sequence[bytes], vectors_: Vectors, *, standalone: bool
    ) -> int:
        """See `Store.insert_vectors`."""
        with self.writing() as connection:
            now = self._as_now(connection, model)
            n_new = vector_writes.insert(connection, now, content_hashes, vectors_, standalone=standalone)
            self._usage.stored(connection, model.model_id, n_new)
            return n_new

    def replace_vectors(
        self, model: StoredModel, content_hashes: Sequence[bytes], vectors_: Vectors, *, standalone: bool
    ) -> int:
        """See `Store.replace_vectors`."""
        with self.writing() as connection:
            now = self._as_now(connection, model)
            n_new, n_changed = vectors.replace(connection, now, content_hashes, vectors_, standalone=standalone)
            if n_changed:
                collections.vectors_changed(connection, models.identities(connection, [model.model_id]))
            self._usage.stored(connection, model.model_id, n_new)
            return n_new

    def mark_standalone(self, model: StoredModel, content_hashes: Sequence[bytes]) -> None:
        """See `Store.mark_standalone`."""
        with self._database.writing() as connection:
            vectors.mark_standalone(connection, self._as_now(connection, model), content_hashes)

    def note_encoding(self, model: StoredModel, *, n_texts: int, n_chars: int, seconds: float) -> None:
        """See `Store.note_encoding`; damage to its tables prevents nothing that is written with it."""
        with self.writing() as connection:
            self._usage.encoded(connection, model.model_id, n_texts, n_chars, seconds)

    def note_hits(self, model: StoredModel, *, n_texts: int, n_chars: int) -> None:
        """See `Store.note_hits`."""
        self._usage.hit(model.model_id, n_texts, n_chars)

    def seconds_per_char(self, model: StoredModel) -> float | None:
        """See `Store.seconds_per_char`."""
        with self._database.reading() as connection:
            totals = encodings.find(connection, model.model_id)
        return totals[2] / totals[1] if totals and totals[1] else None

    def put_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> None:
        """See `Store.put_documents`."""
        with self._database.writing() as connection:
            documents.put(connection, model, collection, doc_ids, content_hashes)

    # --- reading in bulk --------------------------------------------------------------------

    def matrix(
        self, model: StoredModel, *, collection: str | None, doc_ids: Sequence[str] | None, dim: int | None = None
    ) -> tuple[list[str], Vectors]:
        """See `Store.matrix`."""
        with self._database.reading() as connection:
            model = self._as_now(connection, model)
            if doc_ids is None:
                listing = bulk.list_all(connection, model, collection)
            else:
                listing = bulk.list_some(connection, model, collection, doc_ids)
            if dim is not None:
                return listing.doc_ids, bulk.read_truncated(connection, model, listing, dim)
            return listing.doc_ids, bulk.gather(*bulk.read_distinct(connection, model, listing))

    def pages(
        self, model: StoredModel, *, collection: str | None, batch_rows: int, shard: Shard | None = None
    ) -> Iterator[tuple[list[str], Vectors]]:
        """See `Store.pages`."""
        with self._database.reading() as connection:
            vector_ids, n_documents = bulk.list_vector_ids(connection, model, collection)
        # A transaction a page, none while the caller works: a reader that stays holds up every writer.
        for page in shards.pages(vector_ids, batch_rows, shard):
            n_expected = int(n_documents[page].sum())
            with self._database.reading() as connection:
                listing = bulk.list_range(connection, model, collection, vector_ids[page], n_expected)
                distinct, row_of = bulk.read_distinct(connection, self._as_now(connection, model), listing)
            # Several documents a vector can make a page longer than was asked for.
            for cut in range(0, len(row_of), batch_rows):
                stop = cut + batch_rows
                yield listing.doc_ids[cut:stop], bulk.gather(distinct, row_of[cut:stop])

    def list_documents(self, model_name: str | None, collection: str | None) -> Iterator[DocumentInfo]:
        """See `Store.list_documents`."""
        with self._database.reading() as connection:
            model_of = {model.model_id: model for model in models.find_by_name(connection, model_name)}
            scopes = documents.scopes(connection, list(model_of), collection)
        for model_id, name in scopes:
            last = ""  # comes before every doc_id, as none is empty
            while True:
                with self._database.reading() as connection:
                    page = summary.list_documents(connection, model_of[model_id], name, last, LISTED_AT_ONCE)
                yield from page
                if len(page) < LISTED_AT_ONCE or page[-1].doc_id <= last:  # the latter: damaged keys
                    break
                last = page[-1].doc_id

    def find_documents(self, doc_id: str, model_name: str | None, collection: str | None) -> list[DocumentInfo]:
        """See `Store.find_documents`."""
        with self._database.reading() as connection:
            model_of = {model.model_id: model for model in models.find_by_name(connection, model_name)}
            scopes = documents.scopes(connection, list(model_of), collection)
            found = [summary.find_document(connection, model_of[each], name, doc_id) for each, name in scopes]
        return [document for rows in found for document in rows]

    # --- forgetting -------------------------------------------------------------------------

    def forget_documents(self, doc_ids: Sequence[str] | None, *, model_name: str | None, collection: str | None) -> int:
        """See `Store.forget_documents`."""
        with self._database.writing() as connection:
            return forgetting.forget_documents(connection, doc_ids, model_name, collection)

    def forget_models(self, model_name: str | None) -> int:
        """See `Store.forget_models`."""
        with self._database.writing() as connection:
            return forgetting.forget_models(connection, model_name)

    def prune(self, *, standalone: bool, dry_run: bool) -> PruneReport:
        """See `Store.prune`."""
        with self._database.reading() if dry_run else self._database.writing() as connection:
            return forgetting.prune(connection, standalone=standalone, dry_run=dry_run)

    # --- looking after the file -------------------------------------------------------------

    def count_documents(self) -> int:
        """See `Store.count_documents`."""
        with self._database.reading() as connection:
            return documents.count(connection)

    def has_document(self, doc_id: str) -> bool:
        """See `Store.has_document`."""
        with self._database.reading() as connection:
            scopes = documents.scopes(connection)
            return any(document_rows.find(connection, model_id, name, [doc_id]).doc_ids for model_id, name in scopes)

    def stats(self) -> Stats:
        """See `Store.stats`."""
        with self._database.reading() as connection:
            return summary.stats(connection, self.location, self._usage.waiting)

    def verify(self) -> list[Problem]:
        """See `Store.verify`."""
        with self._database.reading() as connection:
            return verify.problems(connection)

    def compact(self) -> int:
        """See `Store.compact`: rewrites the file, which needs as much free space again and no other user."""
        file = Path(self.location)
        with opening.reachable(file):
            before = file.stat().st_size
            self._database.vacuum(opening.PAGE_SIZE)
            return before - file.stat().st_size

    def backup(self, path: str | Path, *, allow_network_filesystem: bool, on_progress: OnProgress) -> list[Problem]:
        """See `Store.backup`."""
        allowed = allow_network_filesystem
        return copying.backup(self._database, path, allow_network_filesystem=allowed, on_progress=on_progress)

    def close(self) -> None:
        """See `Store.close`."""
        self._database.close()
