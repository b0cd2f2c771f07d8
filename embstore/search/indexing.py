"""The way of documents into an index: compare, encode what needs a vector, write the differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter

from embstore.progress import progress_bar
from embstore.search.base import Document, IndexReport, VectorIndex, VectorSource
from embstore.search.plan import make_plan

_WINDOW = 1024  # documents that are compared, encoded and written before the next ones


def index_documents(
    documents: Sequence[Document], index: VectorIndex, source: VectorSource, *, n_repeated: int, progress: bool | None
) -> IndexReport:
    """Make an index hold documents of distinct ids as they are given.

    Parameters
    ----------
    documents : sequence of Document
    index : VectorIndex
    source : VectorSource
        Asked only for documents whose text the index does not hold.
    n_repeated : int
        Documents that were given more than once, and are counted as unchanged.
    progress : bool or None
        Whether to show bars; None shows them on a terminal.

    Returns
    -------
    IndexReport

    Raises
    ------
    EmbstoreError
        Windows before the one that failed are written.
    """
    started = perf_counter()
    counts = Counter(unchanged=n_repeated)
    with progress_bar(len(documents), "Indexing", progress, "doc") as bar:
        for start in range(0, len(documents), _WINDOW):
            window = documents[start : start + _WINDOW]
            counts.update(_index_window(window, index, source, progress))
            bar.update(len(window))
    return _report(counts, started)


def reindex_document(document: Document, index: VectorIndex, source: VectorSource) -> IndexReport:
    """Encode a document anew, and only then put it in the place of the one under its id, if there is one."""
    started = perf_counter()
    vectors = source.fresh(document.doc_id, document.text)
    if index.stored([document.doc_id]):
        index.replace([document], vectors)
        return _report({"updated": 1, "encoded": 1}, started)
    index.add([document], vectors)
    return _report({"added": 1, "encoded": 1}, started)


def _index_window(
    window: Sequence[Document], index: VectorIndex, source: VectorSource, progress: bool | None
) -> dict[str, int]:
    plan = make_plan(window, index.stored([document.doc_id for document in window]))
    needed = plan.updated + plan.added
    n_texts, n_encoded = len({document.content_hash for document in needed}), 0
    if needed:
        doc_ids, texts = [document.doc_id for document in needed], [document.text for document in needed]
        vectors, n_encoded = source.documents(doc_ids, texts, progress)
        index.replace(plan.updated, vectors[: len(plan.updated)])
        index.add(plan.added, vectors[len(plan.updated) :])
    index.update_metadata(plan.metadata_patches)
    return {
        "added": len(plan.added),
        "updated": len(plan.updated),
        "metadata_updated": len(plan.metadata_patches),
        "unchanged": len(plan.unchanged),
        "encoded": n_encoded,
        "from_cache": n_texts - n_encoded,
    }


def _report(counts: Mapping[str, int], started: float) -> IndexReport:
    documents = {name: counts.get(name, 0) for name in ("added", "updated", "metadata_updated", "unchanged")}
    return IndexReport(
        total=sum(documents.values()),
        **documents,
        encoded=counts.get("encoded", 0),
        from_cache=counts.get("from_cache", 0),
        seconds=perf_counter() - started,
    )
