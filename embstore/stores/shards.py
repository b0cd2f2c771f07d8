"""Shares of a store that several readers read together: blocks of neighbouring vectors, dealt out in turn.

Which share a vector is in follows from its vector_id alone, so that readers that begin at different moments, while
others write, agree. Neighbours stay together, as they are stored together: a reader of one share of n reads about a
n-th of the pages of a file, where every n-th vector would be in each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Shard = tuple[int, int]
"""(i, n): the i-th of n shares, from 0."""

BLOCK_ROWS = 1024


def pages(vector_ids: npt.NDArray[np.int64], batch_rows: int, shard: Shard | None) -> Iterator[slice]:
    """Cut ascending vector_ids into pages; those of a shard reach over nothing that is another's."""
    if shard is None:
        for start in range(0, len(vector_ids), batch_rows):
            yield slice(start, start + batch_rows)
        return
    i, n = shard
    blocks, starts = np.unique(vector_ids // BLOCK_ROWS, return_index=True)
    stops = pairwise([*starts.tolist(), len(vector_ids)])
    for block, (start, stop) in zip(blocks.tolist(), stops, strict=True):
        if block % n == i:
            for cut in range(start, stop, batch_rows):
                yield slice(cut, min(cut + batch_rows, stop))
