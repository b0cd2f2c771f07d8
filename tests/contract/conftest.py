"""A store of each kind, for what they have in common."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from embstore import EmbeddingCache
from embstore.identity import Dtype
from tests.postgres import Schemas

NewLocation = Callable[[], AbstractContextManager[str]]
NewCache = Callable[..., AbstractContextManager[EmbeddingCache]]


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def store_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def new_location(store_kind: str, request: pytest.FixtureRequest) -> Iterator[NewLocation]:
    """Where a store is to be that is gone after a block: a file, or an empty schema of a server."""
    if store_kind == "sqlite":
        yield _new_file
        return
    url: str = request.getfixturevalue("postgres_server_url")
    with pytest.MonkeyPatch.context() as patch:
        # What opens a store again goes by its location, which does not tell the password.
        patch.setenv("PGPASSWORD", urlsplit(url).password or "")
        schemas: Schemas = request.getfixturevalue("schemas")
        yield schemas.one


@pytest.fixture(scope="module")
def new_cache(new_location: NewLocation) -> NewCache:
    """A cache in a place of its own for a block, at the end of which it must be sound."""

    @contextlib.contextmanager
    def make(dtype: Dtype = "float32") -> Iterator[EmbeddingCache]:
        with new_location() as location, EmbeddingCache(location, dtype=dtype) as cache:
            yield cache
            assert cache.verify() == []

    return make


@pytest.fixture
def location(new_location: NewLocation) -> Iterator[str]:
    """Where a store is to be: a file that is not there yet, or an empty schema of a server."""
    with new_location() as location:
        yield location


@pytest.fixture
def cache(location: str) -> Iterator[EmbeddingCache]:
    """A cache that must be sound when the test is over."""
    with EmbeddingCache(location) as cache:
        yield cache
        assert cache.verify() == []


@contextlib.contextmanager
def _new_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder) / "embeddings.db")
