"""The way of a batch: hash, look up, encode what is missing, store it in groups, give back in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embstore import claims
from embstore.background import Background
from embstore.canary import ModelGuard
from embstore.codec import Vectors
from embstore.contents import Contents, FillReport, Found
from embstore.encoders import NamedEncoder
from embstore.errors import ReadOnlyError
from embstore.grouping import Group, GroupStore
from embstore.identity import ModelIdentity, Role
from embstore.inputs import HashedTexts, content_of_each
from embstore.leasing import AllRows, LeasedRows, Leases
from embstore.progress import progress_bar
from embstore.stores.base import Store, StoredModel, VectorLookup

# What waits to be stored together: about this much of the model's work, or this many rows, and more where the store
# holds many. While one group is being stored the next is encoded, so that a crash can cost two. A transaction takes as
# long as several hundred of its rows.
GROUP_S = 1.0
GROUP_ROWS = 5000

# A call of the encoder grows until it takes about this long, so that its overhead does not count.
CALL_S = 0.5
CALL_ROWS = 1000


class Filling:
    """One call: texts in, their vectors out, whatever was missing encoded and stored.

    Parameters
    ----------
    store : Store
    guard : ModelGuard
    encoder : NamedEncoder
    role : "document" or "query"
    collection : str
        Where the documents are recorded.
    doc_ids : sequence of str, or None
        The documents to record, one a text; None: texts without an id.
    lease_s : float or None
        For how long to keep other processes from encoding what is encoded here; None: it is encoded by each.
    """

    def __init__(
        self,
        store: Store,
        guard: ModelGuard,
        encoder: NamedEncoder,
        *,
        role: Role,
        collection: str = "",
        doc_ids: Sequence[str] | None = None,
        lease_s: float | None = None,
    ) -> None:
        self.store = store
        self.guard = guard
        self.encoder = encoder
        self.role = role
        self.collection = collection
        self.doc_ids = doc_ids
        self.content_of: Mapping[str, bytes] | None = None
        self.identity: ModelIdentity = encoder.identity(role)
        self.groups = GroupStore(store, guard, encoder, role, self.identity, collection, has_ids=doc_ids is not None)
        if lease_s is not None:
            self.groups.leases = Leases(store, self.identity, lease_s)

    def fill(self, hashed: HashedTexts, *, batch_size: int, progress: bool | None) -> FillReport:
        """Give the vectors of texts.

        Parameters
        ----------
        hashed : HashedTexts
            n of them.
        batch_size : int
            The most texts that the model is given at once.
        progress : bool or None
            Show a bar of the texts to encode; None: where a person looks at a terminal.

        Raises
        ------
        InvalidInputError
            A doc_id stands with two texts.
        ModelChangedError, EncoderError, DimensionError, ReadOnlyError, StoreError
            Batches before the one that failed are stored, nothing of that one is.
        """
        report = self._as_recorded(hashed)
        if report is not None:
            return report
        if self.doc_ids is not None:
            self.content_of = content_of_each(self.doc_ids, hashed.content_hashes)
        contents = Contents(hashed.texts, hashed.content_hashes)
        encoded, counted = np.zeros((2, len(contents.keys)), dtype=np.bool_)
        encode_s = 0.0
        while True:
            n_released = claims.n_released()
            found = self._look_up(contents)
            missing = np.flatnonzero(~found.lookup.found)
            with claims.claim(self.store.location, self.identity, [contents.keys[row] for row in missing]) as claimed:
                mine = missing[claimed.mine]
                if len(mine) and claims.n_released() != n_released:  # another thread has stored something since
                    found = self._look_up(contents)
                    mine = mine[~found.lookup.found[mine]]
                hits = found.lookup.found & ~encoded & ~counted
                group = self._finish(contents, found, mine, hits, batch_size, progress)
            counted |= hits
            encoded[group.encoded] = True
            encode_s += group.encode_s
            given = found.lookup.found.copy()
            given[group.encoded] = True
            if given.all():
                n_encoded = int(encoded.sum())
                vectors = contents.in_callers_order(group.vectors)
                return FillReport(vectors, n_encoded, len(contents.keys) - n_encoded, encode_s)
            # The rest is claimed by other threads, was stored by other processes, or was forgotten between the two
            # look-ups (tests/test_connection.py::
            # test_a_text_that_is_forgotten_between_two_look_ups_is_encoded_anew).
            claimed.wait_for_others()

    def _as_recorded(self, hashed: HashedTexts) -> FillReport | None:
        """Give the vectors of documents that are all recorded as they are now; None where one is not, or has no id.

        One look at the documents finds them: most calls are for what is there already.
        """
        if not self.doc_ids:
            return None
        recorded = self.store.read(lambda: self._recorded(hashed.content_hashes))
        if recorded is None:
            return None
        model, vectors = recorded
        self.guard.check(self.encoder, self.role, self.identity, model, None)
        n_hits, n_chars = len(set(hashed.content_hashes)), hashed.n_chars
        if n_hits < len(hashed.texts):  # some are the same
            n_chars = sum(map(len, dict(zip(hashed.content_hashes, hashed.texts, strict=True)).values()))
        self.store.note_hits(model, n_texts=n_hits, n_chars=n_chars)
        return FillReport(vectors, 0, n_hits, 0.0)

    def _recorded(self, content_hashes: Sequence[bytes]) -> tuple[StoredModel, Vectors] | None:
        model = self.store.find_variant(self.identity)
        if model is None or (model.canary is None and self.guard.enabled):
            return None
        vectors = self.store.read_documents(model, self.collection, self.doc_ids or (), content_hashes)
        return None if vectors is None else (model, vectors)

    def _finish(
        self,
        contents: Contents,
        found: Found,
        to_encode: npt.NDArray[np.intp],
        hits: npt.NDArray[np.bool_],
        batch_size: int,
        progress: bool | None,
    ) -> Group:
        """Check the model, record what is stored, encode and store some of what is not."""
        if not found.lookup.found.all() and self.store.read_only:
            missing = np.flatnonzero(~found.lookup.found)
            raise ReadOnlyError(
                f"{self.store.location!r} can only be read, and {len(missing)} of {len(contents.keys)} texts are not "
                f"in it (the first: {contents.texts[missing[0]]!r:.60}); fill it where it can be written",
                path=self.store.location,
            )
        self._check_model(contents, found)
        if found.model is not None and hits.any():
            n_chars = sum(len(contents.texts[row]) for row in np.flatnonzero(hits).tolist())
            self.store.note_hits(found.model, n_texts=int(hits.sum()), n_chars=n_chars)
        if found.model is not None and not self.store.read_only:
            self._record_hits(found.model, contents, found)
        group = Group(self.groups, contents, found, self.content_of or {})
        if len(to_encode):
            self._encode(group, to_encode, batch_size, progress)
        return group

    def _look_up(self, contents: Contents) -> Found:
        """Read what is stored, in one state of the store."""
        return self.store.read(lambda: self._found(contents))

    def _found(self, contents: Contents) -> Found:
        model = self.store.find_variant(self.identity)
        if model is None:
            return Found(None, VectorLookup.empty(len(contents.keys), 0), [])
        lookup = self.store.look_up(model, contents.keys)
        return Found(model, lookup, self._unrecorded(model, contents, lookup))

    def _unrecorded(self, model: StoredModel, contents: Contents, lookup: VectorLookup) -> list[tuple[str, int]]:
        """List what is new about texts whose vectors are stored: (doc_id, row), or ("", row) for a text without id."""
        if self.content_of is None:
            return [("", row) for row in np.flatnonzero(lookup.found & ~lookup.standalone).tolist()]
        row_of = {contents.keys[row]: row for row in np.flatnonzero(lookup.found).tolist()}
        hits = [(doc_id, row_of[key]) for doc_id, key in self.content_of.items() if key in row_of]
        if not hits:
            return []
        doc_ids = [doc_id for doc_id, _ in hits]
        rows = [row for _, row in hits]
        keys = [contents.keys[row] for row in rows]
        recorded = self.store.recorded(model, self.collection, doc_ids, keys, lookup.vector_ids[rows])
        return [hits[i] for i in np.flatnonzero(~recorded).tolist()]

    def _check_model(self, contents: Contents, found: Found) -> None:
        """Compare the encoder with what is stored; the canary of a new model waits for its first group."""
        if not contents.keys:
            return
        hits = np.flatnonzero(found.lookup.found)
        hit = None
        if len(hits):  # the oldest: of a model without a canary, one that this encoder did not store itself
            oldest = hits[np.argmin(found.lookup.vector_ids[hits])]
            hit = (contents.texts[oldest], found.lookup.vectors[oldest])
        canary = self.groups.canary = self.guard.check(self.encoder, self.role, self.identity, found.model, hit)
        if found.model is None or found.model.canary is not None or canary is None or self.store.read_only:
            return
        self.guard.confirm(self.encoder, self.store.set_canary(found.model, canary), canary)

    def _record_hits(self, model: StoredModel, contents: Contents, found: Found) -> None:
        """Store what is new about texts whose vectors are stored; where nothing is, take no write lock."""
        for start in range(0, len(found.unrecorded), GROUP_ROWS):
            some = found.unrecorded[start : start + GROUP_ROWS]
            rows = list(dict.fromkeys(row for _, row in some))
            keys = [contents.keys[row] for row in rows]
            if self.content_of is None:
                self.store.mark_standalone(model, keys)
            else:  # with the vectors: another process may have forgotten them since they were read
                documents = {doc_id: contents.keys[row] for doc_id, row in some}
                self.groups.store(keys, found.lookup.vectors[rows], documents)

    def _encode(self, group: Group, missing: npt.NDArray[np.intp], batch_size: int, progress: bool | None) -> None:
        """Encode the missing texts, longest first, so that a batch pads little, and store them in groups.

        A group is stored while the model works on the next; the last one, or the only one, without another thread.
        """
        rows = self._handed_out(
            group, sorted(missing.tolist(), key=group.lengths.__getitem__, reverse=True), batch_size
        )
        group_rows = max(GROUP_ROWS, self.store.group_rows())
        call_rows = batch_size
        with progress_bar(rows.n_left, "Encoding", progress, unit="text") as bar, Background() as writer, rows:
            try:
                while n_left := rows.n_left:
                    call = rows.take(call_rows)
                    is_full = len(group.rows) + len(call) > group_rows or group.seconds >= GROUP_S
                    if group.rows and (is_full or not call):
                        writer.wait()  # where this raises, the group is still whole, and is stored below
                        writer.submit(group.take())
                    if call:
                        seconds = group.encode(call, batch_size)
                        rows.took(len(call), seconds)
                        if self.encoder.batches_itself and seconds < CALL_S / 2 and 2 * call_rows <= CALL_ROWS:
                            call_rows *= 2
                    else:
                        writer.wait()  # nobody waits for others who has something that they wait for
                        rows.wait()
                    bar.update(n_left - rows.n_left)
            finally:
                store_rest = group.take()  # what was encoded is paid for, also where the next batch fails
                try:
                    writer.wait()
                finally:
                    store_rest()

    def _handed_out(self, group: Group, rows: list[int], batch_size: int) -> AllRows | LeasedRows:
        """Give what tells which of some rows are encoded here."""
        leases = self.groups.leases
        if leases is None:
            return AllRows(rows)
        return LeasedRows(leases, self.store, self.identity, group.contents.keys, rows, batch_size)
