"""Removing from an index what a source no longer has: never more than is allowed, never what others wrote."""

from __future__ import annotations

import logging

from embstore.errors import TooManyRemovalsError
from embstore.search.base import VectorIndex, Where
from embstore.search.given import GivenDocuments

_logger = logging.getLogger("embstore.search")


class Removal:
    """What is to be removed at the end of a call.

    Parameters
    ----------
    index : VectorIndex
        As it is before the call writes to it.
    scope : dict or None
        A filter on metadata: only documents that it lets through may be removed.
    max_removed : float
        The largest share of the documents that the index holds, 0 to 1.

    Raises
    ------
    EmbstoreError
        The index cannot read the filter.
    """

    def __init__(self, index: VectorIndex, scope: Where | None, max_removed: float = 1.0) -> None:
        self._index = index
        self._scope = scope
        self._max_removed = max_removed
        self._n_held = index.count()
        next(iter(index.doc_ids(scope)), None)  # read now, for a filter that fails at the end of a long call is late

    def find(self, given: GivenDocuments) -> list[str]:
        """List the ids in scope that were not given so far; records of other programs are logged, and not listed."""
        missing: list[str] = []
        foreign: list[str] = []
        for page in self._index.doc_ids(self._scope):
            for doc_id, held in self._index.stored(given.lacking(page)).items():
                (missing if held.content_hash is not None else foreign).append(doc_id)
        if foreign:
            _logger.warning(
                "%d records that the source does not have stay, since another program wrote them (the first: %r)",
                len(foreign),
                foreign[0],
            )
        return missing

    def find_allowed(self, given: GivenDocuments) -> list[str]:
        """List what `find` does.

        Raises
        ------
        TooManyRemovalsError
            These are more than is allowed. A source without any document counts as one that removes everything.
        """
        missing = self.find(given)
        share = len(missing) / max(1, self._n_held) if given.n_ids else 1.0
        if not missing or share <= self._max_removed:
            return missing
        changed = "nothing was changed" if given.n_documents is not None else "what was indexed stays"
        raise TooManyRemovalsError(
            f"the source has {given.n_ids:,} documents, and {len(missing):,} of the {self._n_held:,} in the "
            f"collection would be removed, more than max_removed={self._max_removed} allows; {changed}, none was "
            f"removed. Is the source complete? Then pass max_removed=1.0",
            n_removed=len(missing),
            n_documents=self._n_held,
            max_removed=self._max_removed,
        )
