"""Shorter vectors without the model: the leading values of those that are stored, scaled to length 1.

What models are trained for with Matryoshka representations (Kusupati et al., "Matryoshka Representation Learning",
2022); vectors of other models can be cut too, and lose more by it.
"""

from __future__ import annotations

import numpy as np

from embstore.codec import VECTOR_DTYPE, Vectors

_ROWS_AT_ONCE = 512  # are float64 at a time


def truncated(vectors: Vectors, dim: int) -> Vectors:
    """Cut vectors to their leading values, and scale each to length 1.

    What comes out of a row depends on that row alone, to the bit.

    Parameters
    ----------
    vectors : ndarray of shape (n, full_dim), float32
        Finite, and of any length. Only the leading values are read.
    dim : int
        1 to full_dim. Rows are scaled where it is full_dim too.

    Returns
    -------
    ndarray of shape (n, dim), float32
        A new C-contiguous array. A row whose leading values are all zero has no direction and stays zero.
    """
    shorter = np.empty((len(vectors), dim), dtype=VECTOR_DTYPE)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        # The squares of the largest and of the smallest float32 are no float32 any more.
        rows = np.array(vectors[start : start + _ROWS_AT_ONCE, :dim], dtype=np.float64, order="C")
        lengths = np.sqrt(np.sum(rows * rows, axis=1, keepdims=True))
        lengths[lengths == 0] = 1
        shorter[start : start + len(rows)] = rows / lengths
    return shorter
