"""Semantic search: documents in, the nearest of them out."""

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
