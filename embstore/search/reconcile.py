"""Comparing an index with the cache and with a source, and setting right what does not need the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.errors import SearchIndexError
from embstore.identity import content_hash
from embstore.progress import progress_bar
from embstore.search.base import Document, IndexRecord, VectorIndex, VectorSource, hash_bytes
from embstore.search.comparison import KINDS, NOT_WRONG, ReconcileReport, compare_records
from embstore.search.given import WINDOW, GivenDocuments
from embstore.search.plan import make_plan

_NO_HASH = bytes(32)
_OF_RECORDS = ("altered", "wrong_vector", "unreachable")  # what a record put anew is rid of


def reconcile(
    index: VectorIndex,
    source: VectorSource,
    given: GivenDocuments | None,
    *,
    repair: bool,
    progress: bool | None,
) -> ReconcileReport:
    """Compare all records of an index, and set them right where asked to. The model is not called.

    Parameters
    ----------
    index : VectorIndex
    source : VectorSource
        Whose stored vectors are the right ones.
    given : GivenDocuments or None
        What the index should hold; None compares it with the stored vectors only.
    repair : bool
    progress : bool or None
        Whether to show a bar; None shows it on a terminal.

    Raises
    ------
    SearchIndexError
        The index cannot be read, or not be mended.
    """
    work = Reconciliation(index, source, repair=repair)
    if index.identity != source.encoder.identity("document"):
        for doc_ids in index.doc_ids():
            work.note(("other_model", doc_id) for doc_id in doc_ids)
        return work.report()
    work.check_reach()
    with progress_bar(index.count(), "Comparing", progress, "doc") as bar:
        for page in index.records():
            work.note(work.judge(page))
            bar.update(len(page))
    if given is not None:
        work.compare_source(given)
    work.repair_records()
    return work.report()


class Reconciliation:
    """One call: what was found so far, and what of it is still so.

    Parameters
    ----------
    index, source, repair
        As of `reconcile`.
    """

    def __init__(self, index: VectorIndex, source: VectorSource, *, repair: bool) -> None:
        self._index = index
        self._source = source
        self._repair = repair
        self._found: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}  # ordered sets
        self._open: set[tuple[str, str]] = set()
        self._given: set[str] = set()  # documents whose right text the source says

    def note(self, faults: Iterable[tuple[str, str]]) -> None:
        """Note what is wrong, and with which doc_id."""
        for kind, doc_id in faults:
            self._found[kind][doc_id] = None
            self._open.add((kind, doc_id))

    def settle(self, kinds: Iterable[str], doc_ids: Iterable[str]) -> None:
        """Note what is not wrong any more."""
        self._open.difference_update((kind, doc_id) for doc_id in doc_ids for kind in kinds)

    def check_reach(self) -> None:
        """Find what no search gives, and have the index mend that; where it has failed, that is all it holds.

        What it cannot mend is still noted after that, and so is what it had to move aside for want of a vector.
        """
        if not self._repair:
            self.note(("unreachable", doc_id) for doc_id in self._index.unreachable())
            return
        lost: list[str] = []
        with suppress(SearchIndexError):
            lost = self._index.unreachable()
        self.note(("unreachable", doc_id) for doc_id in lost)
        before = self._doc_ids()
        try:
            n_mended = self._index.mend(self._source)
        except SearchIndexError:
            if not lost:
                raise
            return  # only the model can: they stay in the report
        if n_mended > len(lost):
            lost = list(before)
        self.note(("unreachable", doc_id) for doc_id in lost)
        self.settle(["unreachable"], lost)
        if n_mended:
            after = self._doc_ids()
            gone = [doc_id for doc_id in before if doc_id not in after]
            self.note(("unreachable", doc_id) for doc_id in [*self._index.unreachable(), *gone])
            self.note(("needs_model", doc_id) for doc_id in gone)

    def judge(self, records: Sequence[IndexRecord]) -> list[tuple[str, str]]:
        """Compare records with the stored vectors, and search for each."""
        found, vectors = self._stored([hash_bytes(record.content_hash) for record in records])
        faults = compare_records(
            records, found, vectors, keeps_vectors=self._source.keeps_vectors, cuts=self._source.cuts
        )
        return faults + [("unreachable", doc_id) for doc_id in self._index.not_found(records)]

    def compare_source(self, given: GivenDocuments) -> None:
        """Compare the index with what it should hold, and set right what differs."""
        foreign, altered = self._found["foreign"], self._found["altered"]
        for window in given:
            documents = {document.doc_id: document for document in window.documents}
            plan = make_plan(window.documents, self._index.stored(list(documents)))
            self.note(("missing", document.doc_id) for document in plan.added)
            self.note(("outdated", document.doc_id) for document in plan.updated)
            self.note(("outdated", doc_id) for doc_id in plan.foreign)
            self.note(("other_metadata", doc_id) for doc_id in plan.metadata_patches)
            changed = {document.doc_id: document for document in plan.updated}
            changed |= {doc_id: document for doc_id, document in documents.items() if doc_id in altered}
            self._write(plan.added, self._index.add)
            self._write(list(changed.values()), self._index.replace)
            if self._repair and plan.metadata_patches:
                self._index.update_metadata(plan.metadata_patches)
                self.settle(["other_metadata"], plan.metadata_patches)
        for page in self._index.doc_ids():
            self.note(("extra", doc_id) for doc_id in given.lacking(page) if doc_id not in foreign)

    def repair_records(self) -> None:
        """Put records anew with the vectors that are stored for their texts; what another program wrote is not ours."""
        wrong = [doc_id for kind in _OF_RECORDS for doc_id in self._found[kind] if (kind, doc_id) in self._open]
        left_alone = self._given | self._found["foreign"].keys()
        doc_ids = [doc_id for doc_id in dict.fromkeys(wrong) if doc_id not in left_alone]
        for start in range(0, len(doc_ids), WINDOW):
            some = doc_ids[start : start + WINDOW]
            records = [record for page in self._index.records(some) for record in page]
            right = list(self._righted(records))
            lacking = set(some) - {record.doc_id for record in right}
            self.note(("needs_model", doc_id) for doc_id in some if doc_id in lacking)
            if self._repair and right:
                self._index.put(right)
                self._verify([record.doc_id for record in right], _OF_RECORDS)

    def report(self) -> ReconcileReport:
        """Give what was found, and what is left."""
        wrong = [kind for kind in KINDS if kind not in NOT_WRONG]
        doc_ids = dict.fromkeys(doc_id for kind in wrong for doc_id in self._found[kind])
        left = [doc_id for doc_id in doc_ids if any((kind, doc_id) in self._open for kind in wrong)]
        return ReconcileReport(
            n_records=self._index.count(),
            left=left,
            repaired=len(doc_ids) - len(left),
            **{kind: list(found) for kind, found in self._found.items()},
        )

    def _doc_ids(self) -> dict[str, None]:
        return dict.fromkeys(doc_id for page in self._index.doc_ids() for doc_id in page)

    def _righted(self, records: Sequence[IndexRecord]) -> Iterator[IndexRecord]:
        """Give records as they should be, as far as their vectors are known; what an altered text says is believed."""
        keys = [
            content_hash(record.document)
            if record.document is not None and ("altered", record.doc_id) in self._open
            else hash_bytes(record.content_hash)
            for record in records
        ]
        found, vectors = self._stored(keys)
        for record, key, is_stored, vector in zip(records, keys, found.tolist(), vectors, strict=True):
            if is_stored and key is not None:
                yield replace(record, content_hash=key.hex(), vector=vector)
            elif record.vector is not None and ("altered", record.doc_id) not in self._open:
                yield record

    def _write(self, documents: Sequence[Document], write: Callable[[Sequence[Document], Vectors], None]) -> None:
        """Write those documents of the source whose vectors are stored."""
        if not documents:
            return
        self._given.update(document.doc_id for document in documents)
        found, vectors = self._stored([hash_bytes(document.content_hash) for document in documents])
        known = [document for document, is_stored in zip(documents, found.tolist(), strict=True) if is_stored]
        doc_ids = {document.doc_id for document in known}
        self.note(("needs_model", document.doc_id) for document in documents if document.doc_id not in doc_ids)
        if self._repair and known:
            write(known, vectors[found])
            self._verify([document.doc_id for document in known], (*_OF_RECORDS, "missing", "outdated"))

    def _verify(self, doc_ids: Sequence[str], kinds: Sequence[str]) -> None:
        """Read records that were written, and settle what is not wrong with them any more."""
        self.settle(kinds, doc_ids)
        for page in self._index.records(doc_ids):
            self.note(self.judge(page))

    def _stored(self, keys: Sequence[bytes | None]) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Read the vectors of contents; None stands for one that cannot be stored."""
        found, vectors = self._source.stored([key or _NO_HASH for key in keys])
        return found & np.array([key is not None for key in keys], dtype=np.bool_), vectors
