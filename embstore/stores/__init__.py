"""Where rows live: `open_store` gives the store that a path stands for."""

from __future__ import annotations

from pathlib import Path

from embstore.identity import Dtype, check_dtype
from embstore.stores.base import Store
from embstore.stores.sqlite import SQLiteStore


def open_store(
    path: str | Path, *, timeout_s: float = 30.0, allow_network_filesystem: bool = False, dtype: Dtype = "float32"
) -> Store:
    """Open the store at a path, created where there is none.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        `dtype` is not "float32" or "float16"; nothing was created.
    StoreError
        The file cannot be used; the subclass and the message say why.
    """
    dtype = check_dtype(dtype)
    return SQLiteStore(path, timeout_s=timeout_s, allow_network_filesystem=allow_network_filesystem, dtype=dtype)
