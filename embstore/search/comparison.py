"""What can be wrong with the records of an index, judged by their values alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.formats import ABSOLUTE_ERROR, RELATIVE_ERROR, may_be_rounded
from embstore.identity import content_hash
from embstore.search.base import IndexRecord

_TOLERANCE = 1e-5  # between vectors of length 1; an index that measures by cosine rounds to 1e-7
_REPLACEMENT = "\ufffd"  # in the place of what an index cannot hold


@dataclass(frozen=True)
class ReconcileReport:
    """What `reconcile` found, by doc_id, and what it left.

    Attributes
    ----------
    n_records : int
        How many records the index holds.
    altered : list of str
        The text is not the one that the record's content hash is of. A text with U+FFFD, which stands for what an
        index cannot hold, is taken for the right one.
    wrong_vector : list of str
        The vector differs from the one that is stored for the content hash.
    unreachable : list of str
        A search for the record's own vector does not find it, Chroma failed, or its vector was lost and a repair has
        moved it out of the index.
    other_model : list of str
        The vector is of another model than the engine's: its dimension says so, or the collection, and then it is all.
    missing, outdated, other_metadata, extra : list of str
        Against the source that was given: not in the index, with another text, with other metadata; in the index only.
    foreign : list of str
        Records that another program wrote. They are neither judged nor changed; where the index is mended, they are
        kept with all that they hold, as far as their vectors can be read.
    not_cached : list of str
        The cache has no vector for the content hash. Nothing is wrong with the index, but it cannot be built anew
        without the model.
    needs_model : list of str
        Those of the documents above that only the model can set right: `index_documents` does.
    left : list of str
        All with whom something is still wrong. `foreign` and `not_cached` alone do not count.
    repaired : int
        How many were wrong and are not any more.
    """

    n_records: int
    altered: list[str]
    wrong_vector: list[str]
    unreachable: list[str]
    other_model: list[str]
    missing: list[str]
    outdated: list[str]
    other_metadata: list[str]
    extra: list[str]
    foreign: list[str]
    not_cached: list[str]
    needs_model: list[str]
    left: list[str]
    repaired: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return not self.left


KINDS = tuple(field.name for field in fields(ReconcileReport) if field.name not in ("n_records", "left", "repaired"))
NOT_WRONG = ("foreign", "not_cached", "needs_model")


def compare_records(
    records: Sequence[IndexRecord], found: npt.NDArray[np.bool_], vectors: Vectors, *, keeps_vectors: bool, cuts: bool
) -> list[tuple[str, str]]:
    """Compare records with what is stored for their content hashes.

    Parameters
    ----------
    records : sequence of n IndexRecord
    found : ndarray of shape (n,), bool
        For which of them a vector is stored.
    vectors : ndarray of shape (n, dim), float32
        Only the rows in `found` mean anything.
    keeps_vectors : bool
        Whether vectors are stored at all.
    cuts : bool
        Whether `vectors` were cut, and so scaled, after they were read: their values then do not tell whether they
        are of float16.

    Returns
    -------
    list of (str, str)
        What is wrong, as `ReconcileReport` calls it, and the doc_id.
    """
    faults = []
    for record, is_stored, vector in zip(records, found.tolist(), vectors, strict=True):
        if record.content_hash is None:
            faults.append(("foreign", record.doc_id))
            continue
        if is_altered(record):
            faults.append(("altered", record.doc_id))
        if not is_stored and keeps_vectors:
            faults.append(("not_cached", record.doc_id))
        if is_stored and record.vector is not None:
            if len(record.vector) != len(vector):
                faults.append(("other_model", record.doc_id))
            elif not same_direction(record.vector, vector, b_was_rounded=cuts or may_be_rounded(vector)):
                faults.append(("wrong_vector", record.doc_id))
    return faults


def is_altered(record: IndexRecord) -> bool:
    """Tell whether a record's text is another one than its content hash is of."""
    if record.document is None or _REPLACEMENT in record.document:
        return False
    return content_hash(record.document).hex() != record.content_hash


def same_direction(a: Vectors, b: Vectors, *, b_was_rounded: bool = False) -> bool:
    """Tell whether two vectors (dim,) are the same to an index that measures by cosine.

    Parameters
    ----------
    b_was_rounded : bool
        Whether b may be what a was, stored as float16 since: a record of an index may be of before the conversion. Each
        value may then have moved by what rounding does to it, and all of them with the length by as much again.
    """
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)  # the length of a float32 vector can be infinite
    length_a, length_b = np.linalg.norm(wide_a), np.linalg.norm(wide_b)
    if not length_a or not length_b:
        return bool(length_a == length_b)
    unit_a = wide_a / length_a
    differences = np.abs(unit_a - wide_b / length_b)
    if b_was_rounded:
        differences -= 2 * RELATIVE_ERROR * np.abs(unit_a) + ABSOLUTE_ERROR / length_b
        np.maximum(differences, 0, out=differences)
    return bool(np.linalg.norm(differences) <= _TOLERANCE)
