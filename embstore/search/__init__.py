"""Semantic search: documents in, the nearest of them out."""

from typing import TYPE_CHECKING

from embstore.lazy import loader

if TYPE_CHECKING:
    from embstore.search.base import IndexPlan, IndexReport, SearchHit
    from embstore.search.cached_engine import CachedSemanticSearchEngine
    from embstore.search.comparison import ReconcileReport
    from embstore.search.engine import SemanticSearchEngine

__all__ = [
    "CachedSemanticSearchEngine",
    "IndexPlan",
    "IndexReport",
    "ReconcileReport",
    "SearchHit",
    "SemanticSearchEngine",
]

_load = loader(
    __name__,
    {
        "embstore.search.base": ["IndexPlan", "IndexReport", "SearchHit"],
        "embstore.search.cached_engine": ["CachedSemanticSearchEngine"],
        "embstore.search.comparison": ["ReconcileReport"],
        "embstore.search.engine": ["SemanticSearchEngine"],
    },
)

if not TYPE_CHECKING:  # or a type checker believes that every name is here
    __getattr__ = _load
