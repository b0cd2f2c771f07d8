"""embstore: an embedding cache in one SQLite file, and a semantic search engine that reads from it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from embstore.cache import EmbeddingCache
from embstore.contents import FillReport
from embstore.encoders import Encoder
from embstore.errors import (
    AmbiguousModelError,
    CollectionMismatchError,
    DamagedStoreError,
    DimensionError,
    EmbstoreError,
    EncoderError,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    LibraryLockedError,
    MissingExtraError,
    ModelChangedError,
    ModelExistsError,
    ModelLoadError,
    ModelNameError,
    NewerStoreError,
    NotAStoreError,
    OutOfRangeError,
    PrecisionError,
    ReadOnlyError,
    SearchIndexError,
    StoreBusyError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StorePathError,
    TooManyRemovalsError,
    UnknownDocumentError,
    UnknownModelError,
    UnsafeStoreError,
)
from embstore.identity import ModelIdentity, content_hash
from embstore.stored import StoredEmbeddings, cache_stats
from embstore.stores.base import DocumentInfo, ModelInfo, Problem, PruneReport, Stats

if TYPE_CHECKING:
    from embstore.search import (
        CachedSemanticSearchEngine,
        IndexPlan,
        IndexReport,
        ReconcileReport,
        SearchHit,
        SemanticSearchEngine,
    )

__version__ = "0.1.0"

__all__ = [
    "AmbiguousModelError",
    "CachedSemanticSearchEngine",
    "CollectionMismatchError",
    "DamagedStoreError",
    "DimensionError",
    "DocumentInfo",
    "EmbeddingCache",
    "EmbstoreError",
    "Encoder",
    "EncoderError",
    "EncoderOutputError",
    "FillReport",
    "IndexPlan",
    "IndexReport",
    "InvalidInputError",
    "InvalidTypeError",
    "LibraryLockedError",
    "MissingExtraError",
    "ModelChangedError",
    "ModelExistsError",
    "ModelIdentity",
    "ModelInfo",
    "ModelLoadError",
    "ModelNameError",
    "NewerStoreError",
    "NotAStoreError",
    "OutOfRangeError",
    "PrecisionError",
    "Problem",
    "PruneReport",
    "ReadOnlyError",
    "ReconcileReport",
    "SearchHit",
    "SearchIndexError",
    "SemanticSearchEngine",
    "Stats",
    "StoreBusyError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StorePathError",
    "StoredEmbeddings",
    "TooManyRemovalsError",
    "UnknownDocumentError",
    "UnknownModelError",
    "UnsafeStoreError",
    "cache_stats",
    "content_hash",
]

_SEARCH = {
    "CachedSemanticSearchEngine",
    "IndexPlan",
    "IndexReport",
    "ReconcileReport",
    "SearchHit",
    "SemanticSearchEngine",
}


def __getattr__(name: str) -> Any:
    """Load the search engine when it is first asked for."""
    if name in _SEARCH:
        return getattr(import_module("embstore.search"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
