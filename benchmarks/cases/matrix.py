"""All vectors at once, checksums verified, beside one file that holds nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cases.warm import filled
from benchmarks.competitors import EmbstoreInOrder, installed
from benchmarks.competitors.chroma_collection import ChromaCollection
from benchmarks.corpus import Documents, Vectors, make_documents
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn
from embstore import EmbeddingCache

LOAD, CHROMA = "np.load", "Chroma get, all"
SHAPES = ((100_000, 384), (30_000, 1536))
CHROMA_DOCUMENTS = 10_000


def run(settings: Settings, folder: Path) -> CaseResult:
    result = CaseResult("all vectors at once", "us a document")
    for n, dim in SHAPES:
        own = folder / f"{n}x{dim}"
        own.mkdir()
        _shape(result, settings, own, make_documents(settings.scaled(n), dim), n, dim)
    return result


def _shape(result: CaseResult, settings: Settings, folder: Path, documents: Documents, n: int, dim: int) -> None:
    group = f"{len(documents):,} x {dim}"
    filled(EmbstoreInOrder, folder, documents).close()
    np.save(folder / "matrix.npy", documents.vectors)
    with EmbeddingCache(folder / EmbstoreInOrder.__name__ / "embeddings.db") as cache:
        assert (_matrix(cache) == documents.vectors).all()
        turns = [
            Turn(OURS, len(documents), partial(_matrix, cache), group),
            Turn(LOAD, len(documents), partial(np.load, folder / "matrix.npy"), group),
        ]
        chroma = _chroma(result, settings, folder, documents) if (n, dim) == SHAPES[0] else None
        if chroma is not None:
            turns.append(Turn(CHROMA, len(chroma.documents), chroma.read_all, group, durable=chroma.durable))
        result.rows += in_turn(turns, settings.rounds)
        if chroma is not None:
            chroma.close()
    ours = result.find(OURS, group)
    result.ratio(f"matrix {n:,} x {dim} / np.load", ours, result.find(LOAD, group))
    result.ratio(f"Chroma get / matrix {n:,} x {dim}", result.find(CHROMA, group), ours)


def _matrix(cache: EmbeddingCache) -> Vectors:
    return cache.matrix("instant")[1]


def _chroma(result: CaseResult, settings: Settings, folder: Path, documents: Documents) -> ChromaCollection | None:
    """Fill a collection with fewer documents: of all it would take minutes, and a document costs the same."""
    present, notes = installed((ChromaCollection,))
    result.notes += notes
    if not present:
        return None
    (folder / "chroma").mkdir()
    chroma = ChromaCollection(folder / "chroma", documents.first(settings.scaled(CHROMA_DOCUMENTS)))
    chroma.open()
    chroma.fill()
    chroma.check(chroma.documents)
    return chroma
