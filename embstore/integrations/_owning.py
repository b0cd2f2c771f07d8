"""A cache that an adapter is given open, or opens itself and closes."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from embstore.cache import EmbeddingCache


class OwnsCache:
    """Closes its cache where it opened it itself."""

    _opened: EmbeddingCache | None

    def close(self) -> None:
        """Close the cache where it was given as a path."""
        if self._opened is not None:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def opened(cache: EmbeddingCache | str | Path) -> tuple[EmbeddingCache, EmbeddingCache | None]:
    """Give a cache, opened where it is a path; and again, where it is to be closed."""
    if isinstance(cache, EmbeddingCache):
        return cache, None
    cache = EmbeddingCache(cache)
    return cache, cache
