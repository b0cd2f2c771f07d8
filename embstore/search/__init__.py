"""Semantic search: documents in, the nearest of them out."""

from embstore.search.base import IndexReport, SearchHit
from embstore.search.cached_engine import CachedSemanticSearchEngine
from embstore.search.engine import SemanticSearchEngine

__all__ = ["CachedSemanticSearchEngine", "IndexReport", "SearchHit", "SemanticSearchEngine"]
