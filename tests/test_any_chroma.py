"""The engine on clients that its user gives to it: a server's, one in memory, one on a folder."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from embstore import CachedSemanticSearchEngine, SemanticSearchEngine
from embstore.errors import CollectionMismatchError, SearchIndexError
from embstore.search.base import HASH_KEY
from embstore.search.beside import MARK_KEY, REBUILT
from tests.damage import create_collection, lose, written_segment
from tests.fakes import CountingEncoder

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")

SERVER = "import sys; from chromadb.cli.cli import app; sys.argv[0] = 'chroma'; sys.exit(app())"
N = 300
IDS = [f"d{i}" for i in range(N)]
TEXTS = [f"text {i}" for i in range(N)]
METADATAS: list[dict[str, Any] | None] = [{"n": i, "tags": ["a", "b"]} for i in range(N)]

OpenEngine = Callable[..., SemanticSearchEngine]


def settings() -> Any:
    return chromadb.config.Settings(anonymized_telemetry=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real server, which is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, "run", "--path", str(tmp_path_factory.mktemp("served"))]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(port, process)
            yield port
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + 60
    while True:
        try:
            chromadb.HttpClient("127.0.0.1", port, settings=settings()).heartbeat()
            return
        except ValueError:  # not yet
            assert process.poll() is None, "the server ended"
            assert monotonic() < deadline, "the server does not answer"
            sleep(0.05)


@pytest.fixture(params=["http", "ephemeral", "persistent"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "http":
        yield chromadb.HttpClient("127.0.0.1", request.getfixturevalue("server"), settings=settings())
    elif request.param == "ephemeral":
        yield chromadb.EphemeralClient()  # all of a process must have the same settings
    else:
        with chromadb.PersistentClient(tmp_path / "chroma", settings=settings()) as client:
            yield client


@pytest.fixture
def name() -> str:
    """A collection that only this test has: clients in memory share theirs."""
    return f"documents-{uuid.uuid4().hex}"


@pytest.fixture
def open_engine(client: Any, name: str, tmp_path: Path) -> Iterator[OpenEngine]:
    engines = []

    def open_engine(encoder: CountingEncoder | None = None, kind: Any = CachedSemanticSearchEngine) -> Any:
        engine = kind(encoder or CountingEncoder(), path=tmp_path / "library", client=client, collection_name=name)
        engines.append(engine)
        return engine

    yield open_engine
    for engine in engines:
        engine.close()


@pytest.fixture
def indexed(open_engine: OpenEngine) -> Any:
    """An engine with 300 documents."""
    engine = open_engine()
    engine.index_documents(TEXTS, IDS, METADATAS)
    engine.model.calls.clear()
    return engine


def assert_as_indexed(engine: SemanticSearchEngine) -> None:
    report = engine.reconcile(TEXTS, IDS, METADATAS)
    assert (report.ok, report.n_records, report.foreign, report.not_cached) == (True, N, [], [])
    assert engine.index_documents(TEXTS, IDS, METADATAS).unchanged == N


def test_documents_are_indexed_searched_changed_and_removed(indexed: Any) -> None:
    assert indexed.index_documents(TEXTS, IDS, METADATAS).unchanged == N
    hits = indexed.search("text 7", n_results=2, where={"n": {"$lt": 100}})
    assert (hits[0].doc_id, hits[0].document, hits[0].metadata) == ("d7", "text 7", METADATAS[7])
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    changed = indexed.index_documents(
        ["new", *TEXTS[1:200]], IDS[:200], [None, {"n": -1}, *METADATAS[2:200]], remove_missing=True
    )
    assert (changed.updated, changed.metadata_updated, changed.unchanged, changed.removed) == (1, 1, 198, 100)
    assert [hit.doc_id for hit in indexed.search("new", n_results=1)] == ["d0"]
    assert indexed.delete_documents(["d0", "d250"]) == 1
    assert indexed.collection.count() == 199


def test_an_engine_that_is_opened_again_encodes_nothing(indexed: Any, open_engine: OpenEngine) -> None:
    encoder = CountingEncoder()
    again = open_engine(encoder)
    assert again.index_documents(TEXTS, IDS, METADATAS).unchanged == N
    assert encoder.calls == []
    with pytest.raises(CollectionMismatchError):
        open_engine(CountingEncoder(model_name="other"))


def test_the_folder_of_the_cache_is_not_locked(indexed: Any, tmp_path: Path) -> None:
    assert [path.name for path in (tmp_path / "library").iterdir()] == ["embeddings.db"]


def test_a_wrong_record_is_repaired(indexed: Any) -> None:
    record = indexed.collection.get(ids=["d3"], include=["metadatas"])["metadatas"][0]
    indexed.collection.delete(ids=["d3"])
    wrong = CountingEncoder().vector("text 4")
    indexed.collection.add(ids=["d3"], embeddings=[wrong], documents=["text 3"], metadatas=[record])
    indexed.collection.add(ids=["f"], embeddings=[wrong], documents=["foreign"])
    report = indexed.reconcile(repair=True)
    assert (report.wrong_vector, report.foreign, report.repaired, report.left) == (["d3"], ["f"], 1, [])
    indexed.collection.delete(ids=["f"])
    assert_as_indexed(indexed)
    assert indexed.model.calls == []


def test_a_collection_in_which_chroma_failed_is_built_anew_where_that_is_asked_for(
    indexed: Any, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = indexed.collection.id

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise chromadb.errors.InternalError("Failed to apply logs to the hnsw segment writer")

    monkeypatch.setattr(chromadb.Collection, "query", fail)
    with pytest.raises(SearchIndexError, match=r"to have the index mended, reconcile\(repair=True\)$"):
        indexed.search("text 1")
    report = indexed.reconcile(TEXTS, IDS, METADATAS, repair=True)
    assert (report.ok, sorted(report.unreachable), report.repaired) == (True, sorted(IDS), N)
    assert indexed.collection.id != before
    indexed.model.calls.clear()
    assert_as_indexed(indexed)
    assert [collection.name for collection in client.list_collections() if name in collection.name] == [name]
    assert indexed.model.calls == []


def test_a_collection_that_is_gone_is_told_with_the_cure(indexed: Any, client: Any, name: str) -> None:
    client.delete_collection(name)
    with pytest.raises(SearchIndexError, match=r"deleted or built anew meanwhile; open the engine anew$"):
        indexed._index.count()


def test_whoever_opens_the_collection_finishes_a_swap(
    indexed: Any, open_engine: OpenEngine, client: Any, name: str
) -> None:
    metadata = {key: value for key, value in indexed.collection.metadata.items() if key != "hnsw:space"}
    marked = {**metadata, MARK_KEY: name}
    indexed.collection.modify(name=name + REBUILT, metadata=marked)
    assert_as_indexed(open_engine())
    client.get_collection(name, embedding_function=None).modify(name=name + REBUILT, metadata=marked)
    client.create_collection(name, embedding_function=None, metadata=metadata)
    again = open_engine()
    assert_as_indexed(again)
    assert MARK_KEY not in (again.collection.metadata or {})
    assert [collection.name for collection in client.list_collections() if name in collection.name] == [name]


@pytest.mark.parametrize("client", ["http"], indirect=True)
def test_many_texts_and_long_ones_fit_into_the_requests(open_engine: OpenEngine) -> None:
    """A server takes 40 MiB at most."""
    engine = open_engine()
    texts = [f"{i} " + "x" * 50_000 for i in range(1100)]
    assert engine.index_documents(texts).added == 1100
    assert engine.reconcile(texts).ok


def test_lost_records_are_mended_on_a_client_of_the_users_own(tmp_path: Path) -> None:
    folder = tmp_path / "chroma"
    create_collection(folder, "fake")
    for damage in (None, IDS[:2], IDS[100:150]):
        if damage:
            lose(written_segment(folder), damage)
        client = chromadb.PersistentClient(folder, settings=settings())
        engine = CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path / "library", client=client)
        with client, engine:
            if damage:
                assert sorted(engine.reconcile().unreachable) == sorted(damage)
                assert engine.reconcile(repair=True).repaired == len(damage)
                assert_as_indexed(engine)
                assert engine.model.calls == []
            else:
                engine.index_documents(TEXTS, IDS, METADATAS)
                assert all(HASH_KEY in record for record in engine.collection.get()["metadatas"] or ())
