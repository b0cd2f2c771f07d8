"""Where rows live: `open_store` gives the store that a path stands for."""

from __future__ import annotations

from pathlib import Path

from embstore.stores.base import Store
from embstore.stores.sqlite import SQLiteStore


def open_store(path: str | Path, *, timeout_s: float = 30.0, allow_network_filesystem: bool = False) -> Store:
    """Open the store at a path, created where there is none.

    Raises
    ------
    StoreError
        The file cannot be used; the subclass and the message say why.
    """
    return SQLiteStore(path, timeout_s=timeout_s, allow_network_filesystem=allow_network_filesystem)
