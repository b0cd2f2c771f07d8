"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from embstore import CachedSemanticSearchEngine, EmbeddingCache, SemanticSearchEngine
from tests.fakes import CountingEncoder
from tests.faults.tally import TALLY, Reporter, Tally
from tests.postgres import NoServerError, Schemas, Server, SharedServer, new_schema, own_server, programs

# A machine that is busy with other tests fails none of these.
settings.register_profile("embstore", deadline=None)
settings.load_profile("embstore")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-faults", action="store_true", help="the fault suite as a whole: it takes an hour")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()
    config.pluginmanager.register(Reporter(), "faults")
    config.pluginmanager.register(SharedServer(config), "postgres")


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


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """The URL of the server that the run shares."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    server = request.config.pluginmanager.get_plugin("postgres")
    assert isinstance(server, SharedServer)
    try:
        return server.url()
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """The URL of an empty schema of the test's own on that server."""
    with new_schema(postgres_server_url) as url:
        yield url


@pytest.fixture(scope="session")
def schemas(postgres_server_url: str) -> Iterator[Schemas]:
    """Schemas of that server for many tests, whose tables stay and lose their rows in between."""
    with contextlib.closing(Schemas(postgres_server_url)) as schemas:
        yield schemas


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """A server of the test's own, to stop and to start."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    try:
        programs()
    except NoServerError as error:
        pytest.skip(str(error))
    with own_server() as server:
        yield server


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture(params=["direct", "cached", "exact", "server"])
def engine(request: pytest.FixtureRequest, library: Path, encoder: CountingEncoder) -> Iterator[SemanticSearchEngine]:
    """Engines with and without a cache, on Chroma and on the exact index, for what they have in common."""
    if request.param == "server":
        with (
            request.getfixturevalue("schemas").one() as url,
            EmbeddingCache(url) as cache,
            CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=cache) as engine,
        ):
            yield engine
            assert cache.verify() == []
        return
    if request.param != "exact":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    kind = SemanticSearchEngine if request.param == "direct" else CachedSemanticSearchEngine
    with kind(encoder, path=library, index="exact" if request.param == "exact" else "chroma") as engine:
        yield engine


@pytest.fixture
def cached(library: Path, encoder: CountingEncoder) -> Iterator[CachedSemanticSearchEngine]:
    """A cached engine on Chroma whose cache must be sound when the test is over."""
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        yield engine
        assert engine.cache.verify() == []
