"""The formats in which the vectors of a model are stored: float32 as they are, and float16 rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from embstore.codec import HALF_DTYPE, VECTOR_DTYPE, StoredValues, Vectors, as_vectors
from embstore.errors import OutOfRangeError
from embstore.identity import Dtype

STORED_DTYPES: dict[Dtype, np.dtype[Any]] = {"float32": VECTOR_DTYPE, "float16": HALF_DTYPE}
LARGEST_FLOAT16 = 65504.0

# How far a value moves that is rounded to float16, at most: relative, and absolute below SMALLEST_NORMAL (IEEE 754,
# binary16: 11 significant bits, and steps of 2**-24 below).
RELATIVE_ERROR = 2.0**-11
ABSOLUTE_ERROR = 2.0**-25
SMALLEST_NORMAL = 2.0**-14


def _row_name(row: int) -> str:
    return f"row {row} of the vectors"


def as_stored(vectors: Vectors, dtype: Dtype, name_of: Callable[[int], str] = _row_name) -> StoredValues:
    """Give vectors (n, dim) in the format that they are stored in: as float16, the nearest that there is.

    Raises
    ------
    OutOfRangeError
        As of `check_range`.
    """
    if dtype == "float32":
        return as_vectors(vectors)
    check_range(vectors, dtype, name_of)
    with np.errstate(under="ignore"):
        return np.ascontiguousarray(vectors, dtype=STORED_DTYPES[dtype])


def rounded(vectors: Vectors, dtype: Dtype, name_of: Callable[[int], str] = _row_name) -> Vectors:
    """Give vectors (n, dim) as they come back once they were stored in a format; these themselves for float32.

    Raises
    ------
    OutOfRangeError
        As of `check_range`.
    """
    return vectors if dtype == "float32" else as_vectors(as_stored(vectors, dtype, name_of))


def check_range(vectors: Vectors, dtype: Dtype, name_of: Callable[[int], str]) -> None:
    """Refuse vectors (n, dim) that a format cannot hold.

    Parameters
    ----------
    name_of : callable
        What to call the i-th of them in the message.

    Raises
    ------
    OutOfRangeError
        A value is over 65504, and float16 was asked for.
    """
    if dtype == "float32":
        return
    magnitudes = np.abs(vectors)
    too_large = (magnitudes > LARGEST_FLOAT16).any(axis=1)
    if too_large.any():
        row = int(np.argmax(too_large))
        raise OutOfRangeError(
            f"{name_of(row)}: a value of magnitude {magnitudes[row].max():.6g} is over {LARGEST_FLOAT16:.0f}, the "
            f"largest that float16 holds; store the model as dtype='float32', to which convert() brings one that is "
            f"stored already",
            row=row,
        )


def may_be_rounded(vector: Vectors) -> bool:
    """Tell whether every value of a vector (dim,) is one of float16's, as it is once it was stored so."""
    with np.errstate(over="ignore", under="ignore"):
        return bool((vector.astype(HALF_DTYPE) == vector).all())
