"""The engines that the commands work with."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from embstore import EmbeddingCache
from embstore.cli import library as lib
from embstore.identity import Dtype
from embstore.search.defaults import CACHE_NAME
from embstore.search.inputs import IndexKind

if TYPE_CHECKING:
    from embstore.search import CachedSemanticSearchEngine


def open_engine(
    library: Path,
    model: str,
    collection: str,
    kind: IndexKind | None = None,
    *,
    truncate_dim: int | None = None,
    cache: EmbeddingCache | None = None,
    dtype: Dtype = "float32",
) -> CachedSemanticSearchEngine:
    """Open a collection of a library, by default with the index that it has."""
    from embstore.search import CachedSemanticSearchEngine

    if not sys.stderr.isatty():  # the bar of loading weights would be shown in pipes and logs too
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    kind = kind or lib.index_of(library, collection)
    return CachedSemanticSearchEngine(
        model,
        path=library,
        collection_name=collection,
        index=kind,
        truncate_dim=truncate_dim,
        cache=cache,
        dtype=dtype,
    )


@contextmanager
def planning_engine(
    library: Path, model: str, collection: str, kind: IndexKind, *, truncate_dim: int | None = None
) -> Iterator[CachedSemanticSearchEngine]:
    """Open a library that nothing is written to: what it does not have is made in a temporary folder."""
    with temporary_folder() as folder:
        database = library if (library / CACHE_NAME).exists() else Path(folder)
        index = library if kind == "chroma" and lib.has_collection(library, collection) else Path(folder)
        with (
            EmbeddingCache(database / CACHE_NAME) as cache,
            open_engine(index, model, collection, kind, truncate_dim=truncate_dim, cache=cache) as engine,
        ):
            yield engine


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that is removed at the end of a block."""
    # A file that Windows still holds open is no reason to fail once all is done.
    return tempfile.TemporaryDirectory(prefix="embstore-", ignore_cleanup_errors=True)
