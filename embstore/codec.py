"""Vectors to bytes and back: the only room that knows '<f4' and '<f2'."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
StoredValues = npt.NDArray[np.float32] | npt.NDArray[np.float16]  # vectors in the format of the file

VECTOR_DTYPE = np.dtype("<f4")
HALF_DTYPE = np.dtype("<f2")
_HALF_EXPONENT = 0x7C00  # all ones: NaN or infinite (IEEE 754)
_FEW = 4096  # values: one vector
HASH_BYTES = 32
MAX_DIM = 2**20  # more values than any model gives: 4 MB a vector


def as_vectors(values: npt.ArrayLike) -> Vectors:
    """Give values as a C-contiguous float32 array in the byte order of the file."""
    return np.ascontiguousarray(values, dtype=VECTOR_DTYPE)


class QuantisedError(ValueError):
    """Integers were given for vectors."""


def finite_vectors(values: Any, n: int) -> Vectors:
    """Give whatever holds n vectors as float32 of shape (n, dim).

    Parameters
    ----------
    values : array-like, tensor, or list of tensors
        float16, bfloat16, float32 or float64.
    n : int

    Raises
    ------
    QuantisedError
        Integers.
    ValueError
        Anything else that is not n finite float vectors of one length; the message says what it is.
    """
    try:
        matrix = np.asarray(off_device(values))
    except Exception as error:  # ragged lists, other libraries' objects
        raise ValueError(f"something that is no matrix ({error})") from error
    if matrix.dtype.kind in "iub" and matrix.ndim == 2:
        raise QuantisedError(matrix.dtype.name)
    if matrix.dtype.kind != "f":
        raise ValueError(f"{type(values).__name__} of dtype {matrix.dtype.name}")
    if matrix.ndim != 2 or len(matrix) != n or not matrix.shape[1]:
        raise ValueError(f"an array of shape {matrix.shape}")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, which is refused below
        vectors = as_vectors(matrix)
    finite = np.isfinite(vectors)
    if not finite.all():
        raise ValueError(f"NaN or infinite values in row {int(np.argmin(finite.all(axis=1)))}")
    return vectors


def off_device(values: Any) -> Any:
    """Bring a tensor, or a list of them, to the CPU as float32; leave anything else as it is."""
    if isinstance(values, (list, tuple)) and values and hasattr(values[0], "detach"):
        return np.stack([np.asarray(off_device(row)) for row in values])
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return values


def are_finite(values: StoredValues) -> bool:
    """Tell whether no value is NaN or infinite; 0.05 us a row of 384, and no warning."""
    if values.size <= _FEW:  # looking for a byte takes a third of what `all` does
        return b"\0" not in np.isfinite(values).tobytes()
    if values.dtype != VECTOR_DTYPE:
        bits = values.view(np.uint16)
        return not bool(((bits & _HALF_EXPONENT) == _HALF_EXPONENT).any())
    flat = values.reshape(-1)
    # The places of the extremes, a third of the time that isfinite() takes: of NaNs, the first is either.
    return not flat.size or (math.isfinite(flat[flat.argmax()]) and math.isfinite(flat[flat.argmin()]))


def vectors_to_blobs(values: StoredValues) -> list[bytes]:
    """Cut a matrix (n, dim) into the bytes of its rows: little-endian, no header."""
    stride = values.shape[1] * values.itemsize
    data = little_endian(values).tobytes()
    return [data[i : i + stride] for i in range(0, len(data), stride)]


def blob_to_vector(blob: bytes) -> Vectors:
    """Read the bytes of one vector back: a new writable array (dim,).

    Raises
    ------
    ValueError
        The length is no multiple of four.
    """
    return np.frombuffer(blob, dtype=VECTOR_DTYPE).copy()


def little_endian(values: StoredValues) -> npt.NDArray[Any]:
    """Give stored values as a C-contiguous array in the byte order of the file."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
