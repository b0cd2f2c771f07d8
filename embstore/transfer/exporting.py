"""What all exports have in common: which documents, in pages, every row checked as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embstore.codec import Vectors
from embstore.identity import Role, Setting, content_hash
from embstore.inputs import check_scope
from embstore.progress import progress_bar
from embstore.stored import StoredEmbeddings
from embstore.stores.base import StoredModel
from embstore.transfer.report import ExportReport

ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class OutgoingPage:
    """Some documents of a model: parallel columns, row i of the vectors that of the i-th.

    Attributes
    ----------
    collections, doc_ids : list of n str
    content_hashes : list of n bytes
    texts : list of n str or None
        None where the cache does not know it: only exact indexes keep texts.
    vectors : ndarray of shape (n, dim), float32
    """

    collections: list[str]
    doc_ids: list[str]
    content_hashes: list[bytes]
    texts: list[str | None]
    vectors: Vectors


class Outgoing:
    """The documents of one model of a cache, to be written somewhere.

    Parameters
    ----------
    cache : StoredEmbeddings
    model_name, role, settings, collection
        As of `StoredEmbeddings.matrix`.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Attributes
    ----------
    n_rows : int
        How many were read so far.
    """

    def __init__(
        self,
        cache: StoredEmbeddings,
        model_name: str,
        *,
        role: Role,
        settings: Mapping[str, Setting] | None,
        collection: str | None,
        progress: bool | None,
    ) -> None:
        check_scope(model_name, collection)
        self.model: StoredModel = cache.stored_model(model_name, role=role, settings=settings)
        self.n_rows = 0
        self._store = cache.store
        self._collection = collection
        self._progress = progress

    @property
    def dim(self) -> int:
        """How many values a vector has."""
        return self.model.dim

    def pages(self) -> Iterator[OutgoingPage]:
        """Read the documents in the order in which their vectors are stored.

        Each page is one state of the file, as of `iter_matrix`.

        Raises
        ------
        DamagedStoreError
            A row is not what was written.
        """
        with_texts = {collection.name for collection in self._store.texts.list_collections()}
        with progress_bar(None, "exporting", self._progress, unit="row") as bar:
            for page in self._store.contents(self.model, batch_rows=ROWS_AT_ONCE):
                wanted = [row for row in page.documents if self._collection in (None, row[0])]
                if wanted:
                    collections, doc_ids, rows = (list(column) for column in zip(*wanted, strict=True))
                    content_hashes = [page.content_hashes[row] for row in rows]
                    texts = self._texts(with_texts, collections, doc_ids, content_hashes)
                    at = np.array(rows, dtype=np.intp)
                    yield OutgoingPage(collections, doc_ids, content_hashes, texts, page.vectors[at])
                    self.n_rows += len(wanted)
                    bar.update(len(wanted))

    def _texts(
        self, with_texts: set[str], collections: list[str], doc_ids: list[str], content_hashes: list[bytes]
    ) -> list[str | None]:
        texts: list[str | None] = [None] * len(doc_ids)
        for name in with_texts.intersection(collections):
            at = [i for i, collection in enumerate(collections) if collection == name]
            found = self._store.texts.find(name, list(dict.fromkeys(doc_ids[i] for i in at)))
            for i in at:
                stored = found.get(doc_ids[i])
                # Not what is stored in the place of a text that no database can hold: that has another hash.
                if stored is not None and content_hash(stored.text) == content_hashes[i]:
                    texts[i] = stored.text
        return texts

    def report(self, path: Path) -> ExportReport:
        """Tell what was written at a path."""
        files = list(path.iterdir()) if path.is_dir() else [path]
        return ExportReport(str(path), self.n_rows, self.dim, sum(file.stat().st_size for file in files))
