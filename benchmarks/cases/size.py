"""How large the file is beside the vectors in it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.competitors import EmbstoreCache
from benchmarks.corpus import make_documents
from benchmarks.results import OURS, CaseResult, Row
from benchmarks.settings import Settings

RAW_BYTES = 80_000_000  # about as many at each dim: what a file takes when empty is then the same share
DIMS = (384, 768, 1024, 1536, 3072)


def run(settings: Settings, folder: Path) -> CaseResult:
    result = CaseResult("size of the file", "times the raw vectors")
    for dim in DIMS:
        documents = make_documents(settings.scaled(RAW_BYTES // (4 * dim)), dim)
        own = folder / str(dim)
        own.mkdir()
        cache = EmbstoreCache(own, documents)
        cache.open()
        cache.fill()
        cache.close()
        times = (own / "embeddings.db").stat().st_size / documents.vectors.nbytes
        result.rows.append(Row(OURS, len(documents), [times], group=f"dim {dim}"))
        result.figures[f"file size, dim {dim}"] = times
    return result
