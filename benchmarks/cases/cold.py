"""Nothing is stored: all documents are encoded by an encoder that takes no time, and stored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.bare import BareFill
from benchmarks.competitors import COMPETITORS, Competitor, EmbstoreCache, installed
from benchmarks.competitors.base import BATCH
from benchmarks.corpus import Documents, make_documents
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn
from embstore import EmbeddingCache
from embstore.filling import GROUP_ROWS

BARE = "bare executemany"
BARE_IN_GROUPS = f"{BARE}, {GROUP_ROWS:,} a transaction"  # as many as embstore stores together, of an instant encoder


def run(settings: Settings, folder: Path) -> CaseResult:
    documents = make_documents(settings.scaled(10_000))
    result = CaseResult(f"nothing stored, {len(documents):,} documents encoded in no time", "us a document")
    present, result.notes = installed(COMPETITORS)
    sizes: dict[str, float] = {}
    source = EmbstoreCache(folder, documents)
    source.open()
    source.fill()
    source.close()
    turns = [fresh(EmbstoreCache, folder, documents, sizes), bare(BARE, folder, documents, BATCH)]
    turns.append(bare(BARE_IN_GROUPS, folder, documents, min(GROUP_ROWS, len(documents))))
    turns += [fresh(kind, folder, documents, sizes) for kind in present]
    result.rows = in_turn(turns, settings.rounds)
    for row in result.rows:
        if row.name in sizes:
            row.facts["times_raw_bytes"] = sizes[row.name]
    ours = result.find(OURS)
    surviving = [row for row in result.rows if row.durable != "no" and row.name not in (OURS, BARE, BARE_IN_GROUPS)]
    result.ratio("cold / bare executemany", ours, result.find(BARE))
    result.ratio(f"cold / {BARE_IN_GROUPS}", ours, result.find(BARE_IN_GROUPS))
    result.ratio_to_fastest("cold / fastest competitor that survives kill -9", ours, surviving)
    return result


def fresh(kind: type[Competitor], folder: Path, documents: Documents, sizes: dict[str, float]) -> Turn:
    """Fill a new cache each time; the first time see that it gives back what was stored, and how large it is."""
    own = folder / kind.__name__
    cache = kind(own, kind.share(documents))

    def prepare() -> None:
        own.mkdir()
        cache.open()
        settle()

    def tidy() -> None:
        if kind.name not in sizes:
            cache.check(cache.documents)
        cache.close()
        sizes.setdefault(kind.name, size_of(own) / cache.documents.vectors.nbytes)
        shutil.rmtree(own)

    return Turn(kind.name, len(cache.documents), cache.fill, prepare=prepare, tidy=tidy, durable=kind.durable)


def bare(name: str, folder: Path, documents: Documents, batch_size: int) -> Turn:
    """Put the rows of the file in the folder into a new one."""
    rows = BareFill(folder / "embeddings.db", batch_size)
    file = folder / "bare.db"
    checked: list[bool] = []

    def prepare() -> None:
        rows.open(file)
        settle()

    def tidy() -> None:
        rows.close()
        if not checked:
            with EmbeddingCache(file) as cache:
                _, vectors = cache.matrix("instant", doc_ids=documents.ids)
                assert (vectors == documents.vectors).all()
            checked.append(True)
        file.unlink()

    return Turn(name, len(documents), rows.fill, prepare=prepare, tidy=tidy, durable="yes")


def settle() -> None:
    """Let what others wrote reach the disk before it is somebody's turn."""
    sync: Callable[[], None] | None = getattr(os, "sync", None)
    if sync is not None:
        sync()


def size_of(folder: Path) -> int:
    """Give the bytes that a folder takes; blocks where the system tells them, since files can have holes."""
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum(getattr(stat, "st_blocks", 0) * 512 or stat.st_size for stat in files)
