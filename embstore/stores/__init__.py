"""Where rows live: `open_store` gives the store that a path or a URL stands for."""

from __future__ import annotations

from pathlib import Path

from embstore.identity import Dtype, check_dtype
from embstore.stores.base import Store
from embstore.stores.locations import is_url
from embstore.stores.sqlite import SQLiteStore


def open_store(
    path: str | Path, *, timeout_s: float = 30.0, allow_network_filesystem: bool = False, dtype: Dtype = "float32"
) -> Store:
    """Open the store in a file, created where there is none, or on a server, which makes its tables there.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        `dtype` is not "float32" or "float16"; nothing was created.
    StoreError
        The file or the server cannot be used; the subclass and the message say why.
    MissingExtraError
        A server is asked for, and psycopg is not installed.
    """
    dtype = check_dtype(dtype)
    if is_url(path):
        from embstore.stores.postgres.store import PostgresStore

        return PostgresStore(str(path), timeout_s=timeout_s, dtype=dtype)
    return SQLiteStore(path, timeout_s=timeout_s, allow_network_filesystem=allow_network_filesystem, dtype=dtype)
