"""Which stores the workers of a cluster can share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from embstore.errors import UnsafeStoreError
from embstore.stores.locations import absolute, is_url


class Unshown:
    """The URL of a store, or its path, which can hold a password: Ray may log and export what a job is given.

    Parameters
    ----------
    location : str
    """

    def __init__(self, location: str) -> None:
        self.location = location

    def __repr__(self) -> str:
        return "<a store>"


def for_workers(store: str | Path) -> str:
    """Give a store as workers are to be told it: a path whole, since they stand in other folders.

    Raises
    ------
    UnsafeStoreError
        It is a file, and the cluster has several nodes, each with disks of its own.
    """
    nodes: list[dict[str, Any]] = ray.nodes() if ray.is_initialized() else []  # type: ignore[no-untyped-call]
    n_nodes = sum(node["Alive"] for node in nodes)
    if n_nodes > 1 and not is_url(store):
        raise UnsafeStoreError(
            f"{str(store)!r} is a file, and this cluster has {n_nodes} nodes; give the URL of a PostgreSQL server, "
            f"postgresql://..., which all of them reach",
            path=str(store),
        )
    return absolute(store)
