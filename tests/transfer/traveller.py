"""What a process does that is killed at any moment: it takes a source in, or exports a cache over and over."""

from __future__ import annotations

from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from embstore import EmbeddingCache, transfer
from embstore.transfer import exporting, importing

ROWS = 50


def import_batches(acknowledge: Connection, kind: str, target: Path, arguments: tuple[Any, ...]) -> None:
    """Take a source in, and tell of each batch that is stored."""
    importing.ROWS_AT_ONCE = ROWS
    take = importing.Incoming.take

    def taking(self: importing.Incoming, *given: Any) -> None:
        take(self, *given)
        acknowledge.send("batch")

    importing.Incoming.take = taking  # type: ignore[method-assign]
    with EmbeddingCache(target) as cache:
        acknowledge.send("opened")
        getattr(transfer, kind)(cache, *arguments, model_name="m", progress=False)


def export_again_and_again(acknowledge: Connection, kind: str, source: Path, target: Path) -> None:
    """Export a cache to one place until this process is killed."""
    exporting.ROWS_AT_ONCE = ROWS
    with EmbeddingCache(source) as cache:
        acknowledge.send("opened")
        for n in count():
            getattr(transfer, kind)(cache, target, "m", overwrite=True, progress=False)
            acknowledge.send(n)
