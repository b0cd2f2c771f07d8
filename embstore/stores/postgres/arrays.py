"""Arrays as parameters, in the binary form that a server takes.

A header and, of each element, its length and its bytes (array_send of PostgreSQL); where all elements have one length,
numpy lays them out at once, which takes a tenth of what an element by itself does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Dumper
from psycopg.pq import Format

BYTEA, INT8, TEXT, BOOL = 17, 20, 25, 16
BYTEA_ARRAY, INT8_ARRAY, TEXT_ARRAY, BOOL_ARRAY = 1001, 1016, 1009, 1000


class Array:
    """The bytes of an array."""

    __slots__ = ("data",)

    def __init__(self, n: int, element: int, elements: bytes) -> None:
        header = struct.pack(">iii", 1 if n else 0, 0, element)
        self.data = header + (struct.pack(">ii", n, 1) if n else b"") + elements


class ByteaArray(Array):
    """bytea[] of n bytes objects, or of the rows of a matrix of bytes."""

    def __init__(self, rows: Sequence[bytes] | npt.NDArray[Any]) -> None:
        super().__init__(len(rows), BYTEA, _of_matrix(rows) if isinstance(rows, np.ndarray) else _of_bytes(rows))


class TextArray(Array):
    """text[] of n texts, given as their UTF-8 bytes."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        super().__init__(len(texts), TEXT, _of_bytes(texts))


class Int8Array(Array):
    """int8[] of n integers."""

    def __init__(self, values: npt.ArrayLike) -> None:
        numbers = np.ascontiguousarray(values, dtype=">i8").reshape(-1, 1)
        super().__init__(len(numbers), INT8, _of_matrix(numbers))


class BoolArray(Array):
    """bool[] of n flags."""

    def __init__(self, values: npt.ArrayLike) -> None:
        flags = np.ascontiguousarray(values, dtype=np.bool_).reshape(-1, 1)
        super().__init__(len(flags), BOOL, _of_matrix(flags))


def _of_matrix(rows: npt.NDArray[Any]) -> bytes:
    n, n_bytes = len(rows), rows.shape[1] * rows.itemsize
    elements = np.empty(n, dtype=[("length", ">i4"), ("value", np.uint8, (n_bytes,))])
    elements["length"] = n_bytes
    elements["value"] = np.ascontiguousarray(rows).view(np.uint8).reshape(n, n_bytes)
    return elements.tobytes()


def _of_bytes(rows: Sequence[bytes]) -> bytes:
    lengths = {*map(len, rows)}
    if len(lengths) == 1:
        (n_bytes,) = lengths
        return _of_matrix(np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), n_bytes))
    pack = struct.Struct(">i").pack
    return b"".join(part for row in rows for part in (pack(len(row)), row))


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> Buffer:
        return obj.data


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    for kind, oid in (
        (ByteaArray, BYTEA_ARRAY),
        (TextArray, TEXT_ARRAY),
        (Int8Array, INT8_ARRAY),
        (BoolArray, BOOL_ARRAY),
    ):
        adapters.register_dumper(kind, type(f"{kind.__name__}Dumper", (_Dumper,), {"oid": oid}))
    return adapters


ADAPTERS = _adapters()
