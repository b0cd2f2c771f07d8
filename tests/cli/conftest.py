"""Commands run in this process, in an empty folder, with a model that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from embstore import EmbeddingCache, encoders
from embstore.cli import main
from tests.fakes import CountingEncoder

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, encoder: CountingEncoder) -> CountingEncoder:
    """What `--model fake` loads."""
    monkeypatch.setitem(encoders._loaded, "fake", encoder)
    return encoder


@pytest.fixture
def run(fake: CountingEncoder) -> Run:
    """Run a command in this process."""

    def run(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result

    return run


@pytest.fixture(params=["exact", "chroma"])
def indexed(request: pytest.FixtureRequest, run: Run, here: Path) -> Iterator[str]:
    """A library with two files indexed, with either index; it must be sound when the test is over."""
    if request.param == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    (here / "cat.txt").write_text("A cat sleeps.\nIt purrs.", encoding="utf-8")
    (here / "dog.txt").write_text("A dog barks.", encoding="utf-8")
    run("index", "library", "cat.txt", "dog.txt", "--model", "fake", "--index", request.param)
    yield "library"
    with EmbeddingCache(Path("library", "embeddings.db")) as cache:
        assert cache.verify() == []


@pytest.fixture
def database(encoder: CountingEncoder) -> str:
    """A database file with three documents and nothing beside it."""
    with EmbeddingCache("cache.db") as cache:
        cache.get_many(["a", "b", "c"], ["one", "two", "three"], encoder)
    return "cache.db"
