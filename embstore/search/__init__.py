"""Semantic search: documents in, the nearest of them out."""

from embstore.search.base import IndexReport, SearchHit
from embstore.search.engine import CachedSemanticSearchEngine, SemanticSearchEngine

__all__ = ["CachedSemanticSearchEngine", "IndexReport", "SearchHit", "SemanticSearchEngine"]
