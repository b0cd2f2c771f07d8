"""The way of documents into an index: compare, encode what needs a vector, write the differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any, Self

import numpy as np

from embstore.background import Background
from embstore.progress import progress_bar
from embstore.search.base import Document, IndexPlan, IndexReport, VectorIndex, VectorSource
from embstore.search.given import WINDOW, GivenDocuments, Window
from embstore.search.plan import Plan, PlanTotals, check_none_foreign, make_plan
from embstore.search.removal import Removal

_DOCUMENTS = ("added", "updated", "metadata_updated", "unchanged")  # of which the total is made
_SHOWN = ("encoded", "from_cache", "unchanged")  # beside the bar


def plan_documents(
    given: GivenDocuments, index: VectorIndex, source: VectorSource, removal: Removal | None
) -> IndexPlan:
    """Tell what `index_documents` would do with the same arguments; nothing is written and no model is called."""
    totals = PlanTotals(source)
    for n_unchanged, plan in _plans(totals.watched(given), index):
        totals.add(n_unchanged, plan)
    return totals.index_plan(n_to_remove=len(removal.find(given)) if removal else 0)


def index_documents(
    given: GivenDocuments,
    index: VectorIndex,
    source: VectorSource,
    removal: Removal | None,
    *,
    progress: bool | None,
) -> IndexReport:
    """Make an index hold documents as they are given.

    Parameters
    ----------
    given : GivenDocuments
    index : VectorIndex
    source : VectorSource
        Asked only for documents whose text the index does not hold.
    removal : Removal or None
        What to remove of the documents that are not given, once all that are given are written.
    progress : bool or None
        Whether to show a bar; None shows it on a terminal.

    Returns
    -------
    IndexReport

    Raises
    ------
    TooManyRemovalsError
        Nothing was written, or, for an iterator, nothing was removed.
    EmbstoreError
        Windows before the one that failed are written. A note on it, as on any other exception, says how many
        documents these are.
    """
    started = perf_counter()
    counts: Counter[str] = Counter()
    missing = None if removal is None or given.n_documents is None else removal.find_allowed(given)
    try:
        with (
            progress_bar(given.n_documents, "Indexing", progress, "doc") as bar,
            _Execution(index, source, counts, bar) as execution,
        ):
            for n_unchanged, plan in _plans(given, index):
                execution.note({"unchanged": n_unchanged})
                execution.carry_out(plan, at_once=given.n_documents is not None and given.n_documents <= WINDOW)
    except BaseException as error:
        error.add_note(
            f"{_n_documents(counts):,} documents were indexed before this; the same call again does the rest"
        )
        raise
    if removal is not None:
        counts["removed"] = index.delete(removal.find_allowed(given) if missing is None else missing)
    return _report(counts, started)


def reindex_document(document: Document, index: VectorIndex, source: VectorSource) -> IndexReport:
    """Encode a document anew, and only then put it in the place of the one under its id, if there is one."""
    started = perf_counter()
    held = index.stored([document.doc_id]).get(document.doc_id)
    if held is not None and held.content_hash is None:
        check_none_foreign([document.doc_id], index.name)
    vectors = source.fresh(document.doc_id, document.text)
    if held is not None:
        index.replace([document], vectors)
        return _report({"updated": 1, "encoded": 1}, started)
    index.add([document], vectors)
    return _report({"added": 1, "encoded": 1}, started)


def _plans(windows: Iterable[Window], index: VectorIndex) -> Iterator[tuple[int, Plan]]:
    """Decide what is to be done: the one place for what is planned and what is executed.

    A plan is put off until it fills a window, since a few documents cost the model and the index nearly as much as
    many. So the documents of three windows are in memory at most.

    Yields
    ------
    int
        How many documents of a window are as given.
    Plan
        What is to be done before the next window is read: nothing, or what was put off.
    """
    put_off = Plan()
    for window in windows:
        plan = make_plan(window.documents, index.stored([document.doc_id for document in window.documents]))
        check_none_foreign(plan.foreign, index.name)
        n_unchanged = len(window.documents) - len(plan) + window.n_repeated
        put_off += plan
        if len(put_off) < WINDOW:
            yield n_unchanged, Plan()
        else:
            yield n_unchanged, put_off
            put_off = Plan()
    yield 0, put_off


class _Execution:
    """The execution of plans: what one of them writes is written while the next is made and its texts are encoded.

    Parameters
    ----------
    counts : Counter
        Of what was done; added to when it is done.
    bar : tqdm
    """

    def __init__(self, index: VectorIndex, source: VectorSource, counts: Counter[str], bar: Any) -> None:
        self._index = index
        self._source = source
        self._counts = counts
        self._bar = bar
        self._writer = Background()
        self._written: list[Mapping[str, int]] = []  # and not counted yet

    def carry_out(self, plan: Plan, *, at_once: bool) -> None:
        """Encode what a plan needs, and write it in the background, or, where nothing is left to do meanwhile, now."""
        if not len(plan):
            return
        needed, n_encoded = plan.needed, 0
        vectors = np.empty((0, 0), dtype=np.float32)
        if needed:
            vectors, n_encoded = self._source.documents([doc.doc_id for doc in needed], [doc.text for doc in needed])

        def write() -> None:
            if needed:
                self._index.replace(plan.updated, vectors[: len(plan.updated)])
                self._index.add(plan.added, vectors[len(plan.updated) :])
            self._index.update_metadata(plan.metadata_patches)
            self._written.append(_counts(plan, n_encoded))

        self._finish()
        if at_once:
            write()
        else:
            self._writer.submit(write)

    def note(self, done: Mapping[str, int]) -> None:
        """Count what was done, and show it."""
        self._counts.update(done)
        self._bar.set_postfix({name: self._counts[name] for name in _SHOWN}, refresh=False)
        self._bar.update(_n_documents(done))

    def _finish(self) -> None:
        try:
            self._writer.wait()
        finally:
            while self._written:
                self.note(self._written.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._writer:
            self._finish()


def _counts(plan: Plan, n_encoded: int) -> Mapping[str, int]:
    return {
        "added": len(plan.added),
        "updated": len(plan.updated),
        "metadata_updated": len(plan.metadata_patches),
        "encoded": n_encoded,
        "from_cache": len({document.content_hash for document in plan.needed}) - n_encoded,
    }


def _n_documents(counts: Mapping[str, int]) -> int:
    return sum(counts.get(name, 0) for name in _DOCUMENTS)


def _report(counts: Mapping[str, int], started: float) -> IndexReport:
    documents = {name: counts.get(name, 0) for name in _DOCUMENTS}
    others = {name: counts.get(name, 0) for name in ("encoded", "from_cache", "removed")}
    return IndexReport(total=sum(documents.values()), **documents, **others, seconds=perf_counter() - started)
