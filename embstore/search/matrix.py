"""The vectors of a collection in memory, and the exact answer to what is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.search.base import Metadata
from embstore.search.exact_records import read_metadata
from embstore.search.filters import Predicate

Rows = npt.NDArray[np.intp]

_SPARE = 8  # a matrix that grows has room for 1/8 more, so that it is seldom copied
_ROUNDING = 2.0**-24  # of a float32, relative
_DECIMALS = 14  # of a score
_ROWS_AT_ONCE = 512  # as float64, these stay in the processor's cache


@dataclass(frozen=True)
class DocumentMatrix:
    """Documents and their vectors, row i for the i-th document.

    Attributes
    ----------
    text_ids : ndarray of shape (n,), int64
        Ascending.
    doc_ids : list of n str
    metadata_texts : list of n str
        As JSON, which is not read before a filter asks for it.
    room : ndarray of shape (n or more, dim), float32
        The vectors, and below them rows for those of later documents.
    """

    text_ids: npt.NDArray[np.int64]
    doc_ids: list[str]
    metadata_texts: list[str]
    room: Vectors

    @classmethod
    def of(
        cls, text_ids: npt.NDArray[np.int64], doc_ids: list[str], metadata_texts: list[str], vectors: Vectors
    ) -> DocumentMatrix:
        """Take vectors of any length, and scale them in place."""
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            rows = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
            vectors[start : start + len(rows)] = rows / _lengths(rows)[:, np.newaxis]
        return cls(text_ids, doc_ids, metadata_texts, vectors)

    @classmethod
    def empty(cls) -> DocumentMatrix:
        """Give one without documents."""
        return cls(np.empty(0, dtype=np.int64), [], [], np.empty((0, 0), dtype=np.float32))

    @property
    def dim(self) -> int:
        """Values of a vector; 0 where there is none."""
        return int(self.room.shape[1])

    @property
    def vectors(self) -> Vectors:
        """The vectors, (n, dim), of length 1; zeros stay zeros, as far from everything as what is orthogonal."""
        return self.room[: len(self.doc_ids)]

    def keep(self, text_ids: npt.NDArray[np.int64]) -> DocumentMatrix:
        """Give the documents that are among ascending text_ids."""
        kept = np.isin(self.text_ids, text_ids, assume_unique=True)
        return self if kept.all() else self._take(np.flatnonzero(kept))

    def append(self, later: DocumentMatrix) -> DocumentMatrix:
        """Give these documents and others; to be called once. Vectors of another length take the place of these.

        Below these, whose text_ids are mostly lower, the others are written into the same room: this matrix stays what
        it is, as the rows that are written are not among its own.
        """
        if not later.doc_ids:
            return self
        if not self.doc_ids or self.dim != later.dim:
            return later
        n_before, n = len(self.doc_ids), len(self.doc_ids) + len(later.doc_ids)
        room = self.room
        if n > len(room):
            room = np.empty((n + n // _SPARE, self.dim), dtype=np.float32)
            room[:n_before] = self.vectors
        room[n_before:n] = later.vectors
        text_ids = np.concatenate([self.text_ids, later.text_ids])
        joined = DocumentMatrix(
            text_ids, self.doc_ids + later.doc_ids, self.metadata_texts + later.metadata_texts, room
        )
        return joined if self.text_ids[-1] < later.text_ids[0] else joined._take(np.argsort(text_ids))

    def _take(self, rows: Rows) -> DocumentMatrix:
        """Copy some rows, in this order."""
        doc_ids = [self.doc_ids[row] for row in rows.tolist()]
        metadata_texts = [self.metadata_texts[row] for row in rows.tolist()]
        return DocumentMatrix(self.text_ids[rows], doc_ids, metadata_texts, self.vectors[rows])

    @cached_property
    def metadatas(self) -> list[Metadata]:
        """The metadata of each document."""
        return list(map(read_metadata, self.doc_ids, self.metadata_texts))

    def nearest(self, vector: Vectors, n_results: int, lets_through: Predicate | None) -> list[tuple[int, float]]:
        """Find the rows nearest to a query among those that a filter lets through.

        BLAS finds the rows that may be among the nearest, whatever the order in which it adds up. Their scores are
        then computed in float64, each in the same way, so that the same vectors have the same score and every
        machine gives the same answer; what is equally near comes in the order of its doc_id.

        Parameters
        ----------
        vector : ndarray of shape (dim,), float32
        n_results : int
            At most.
        lets_through : callable, optional

        Returns
        -------
        list of (row, score)
            Nearest first; the score is the cosine similarity.
        """
        rows = self._rows(lets_through)
        n_results = min(n_results, len(rows))
        if not n_results:
            return []
        query = vector.astype(np.float64)
        query /= np.linalg.norm(query) or 1
        if n_results < len(rows):
            rows = self._candidates(rows, query, n_results)
        scores = self._scores(rows, query)
        order = sorted(range(len(rows)), key=lambda i: (-scores[i], self.doc_ids[rows[i]]))
        return [(int(rows[i]), float(scores[i])) for i in order[:n_results]]

    def _rows(self, lets_through: Predicate | None) -> Rows:
        if lets_through is None:
            return np.arange(len(self.doc_ids))
        return np.flatnonzero(np.fromiter(map(lets_through, self.metadatas), dtype=np.bool_, count=len(self.doc_ids)))

    def _candidates(self, rows: Rows, query: npt.NDArray[np.float64], n_results: int) -> Rows:
        """Give all rows whose score, with what float32 may have rounded off, can be among the highest."""
        scores = (self.vectors @ query.astype(np.float32))[rows]
        lowest = np.partition(scores, len(scores) - n_results)[len(scores) - n_results]
        # A sum of dim products of unit vectors is off by dim roundings at most (Higham, "Accuracy and Stability of
        # Numerical Algorithms", 3.1), and so is the one that it is compared with.
        candidates: Rows = rows[scores >= lowest - 2 * (self.dim + 1) * _ROUNDING]
        return candidates

    def _scores(self, rows: Rows, query: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        scores = np.empty(len(rows))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = self.vectors[rows[start : start + _ROWS_AT_ONCE]].astype(np.float64)
            scores[start : start + len(some)] = np.sum(some * query, axis=1) / _lengths(some)
        # Rows were scaled to float32, so that the same direction comes out some 1e-15 below 1.
        rounded: npt.NDArray[np.float64] = np.clip(np.round(scores, _DECIMALS), -1, 1)
        return rounded


def _lengths(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give the length of each row, and 1 for one of zeros."""
    lengths: npt.NDArray[np.float64] = np.sqrt(np.sum(rows * rows, axis=1))
    lengths[lengths == 0] = 1
    return lengths
