"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

# A machine that is busy with other tests fails none of these.
settings.register_profile("embstore", deadline=None)
settings.load_profile("embstore")


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.db"


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def cache(cache_path: Path) -> Iterator[EmbeddingCache]:
    """A cache that must be sound when the test is over."""
    with EmbeddingCache(cache_path) as cache:
        yield cache
        assert cache.verify() == []
