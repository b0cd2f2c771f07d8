"""Libraries whose vector index was damaged in the ways in which unclean ends damage it."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, SemanticSearchEngine
from embstore.errors import CollectionMismatchError, InvalidInputError, SearchIndexError
from embstore.search import probe, repair
from embstore.search.beside import DAMAGED, MARK_KEY, MENDING, REBUILDING, REBUILT, RESERVED_SUFFIXES
from embstore.search.collection import MODEL_NAME_KEY, SETTINGS_KEY, open_client
from embstore.search.note import HOLDER_NAME, read_note
from tests.damage import create_collection, lose, segments, tear, written_segment
from tests.fakes import CountingEncoder
from tests.scifact import LookUpEncoder, needs_scifact, text_of

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")
Collection = chromadb.Collection
COSINE: Any = {"hnsw": {"space": "cosine"}}

N = 200
IDS = [f"d{i}" for i in range(N)]
TEXTS = [f"text {i}" for i in range(N)]
METADATAS = [{"n": i, "tags": ["a", "b"]} for i in range(N)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of 200 documents that was closed."""
    library = tmp_path_factory.mktemp("sound") / "library"
    create_collection(library, "fake")
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        for start in range(0, N, 20):
            some = slice(start, start + 20)
            engine.index_documents(TEXTS[some], IDS[some], METADATAS[some])
    return library


@pytest.fixture
def library(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "library"))


@pytest.fixture
def unclean(library: Path) -> Path:
    """The same, as a process leaves it that was killed."""
    (library / HOLDER_NAME).write_text("{}")
    return library


@pytest.fixture
def opened() -> Iterator[Callable[..., CachedSemanticSearchEngine]]:
    """Open engines, and close them at the end."""
    engines = []

    def open_engine(library: Path, kind: Any = CachedSemanticSearchEngine) -> Any:
        engines.append(kind(CountingEncoder(), path=library))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def assert_sound(engine: SemanticSearchEngine, n: int = N) -> None:
    """Every document is there with all that belongs to it, and found by its own vector; the model was not called."""
    records = {record.doc_id: record for page in engine._index.records() for record in page}
    assert {doc_id: (record.document, record.metadata) for doc_id, record in records.items()} == {
        doc_id: (text, metadata) for doc_id, text, metadata in zip(IDS[:n], TEXTS[:n], METADATAS[:n], strict=True)
    }
    assert engine._index.not_found(list(records.values())) == []
    assert engine._index.unreachable() == []
    for doc_id, text in zip(IDS[:n], TEXTS[:n], strict=True):
        vector = records[doc_id].vector
        assert vector is not None
        assert vector == pytest.approx(CountingEncoder().vector(text), abs=1e-6)
    assert engine.index_documents(TEXTS[:n], IDS[:n], METADATAS[:n]).unchanged == n
    assert engine.model.calls == []
    assert not names(engine) & {"documents" + REBUILDING, "documents" + REBUILT, "documents" + DAMAGED}


def names(engine: Any) -> set[str]:
    return {collection.name for collection in engine._index._client.list_collections()}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "embstore.search"]


def rebuilt_after(n_lost: int) -> str:
    return (
        f"collection 'documents': searches did not find {n_lost} of 200 records; a new one took its place, with 200 "
        f"vectors from the cache and 0 of the old one"
    )


# --- what is noticed ------------------------------------------------------------------------


def test_a_sound_library_is_not_touched_after_an_unclean_end(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    collection_id = opened(unclean).collection.id
    engine = opened(unclean)
    assert engine.collection.id == collection_id
    assert_sound(engine)
    assert messages(caplog) == []


def test_a_library_that_was_closed_is_not_looked_at(
    library: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_looks = 0

    def look_at(*_: Any, **__: Any) -> None:
        nonlocal n_looks
        n_looks += 1

    monkeypatch.setattr(probe, "_look_at", look_at)
    assert_sound(opened(library))
    assert n_looks == 0


def test_the_note_goes_when_all_was_found_sound_or_mended(unclean: Path) -> None:
    lose(segments(unclean)[0], ["d3", "d7", "d9"])
    with CachedSemanticSearchEngine(CountingEncoder(), path=unclean):
        assert (unclean / HOLDER_NAME).exists()
    assert not (unclean / HOLDER_NAME).exists()


def test_a_damaged_collection_that_is_not_opened_is_mended_when_it_is(unclean: Path) -> None:
    tear(segments(unclean)[0] / "index_metadata.pickle")
    for _ in range(2):
        with SemanticSearchEngine(CountingEncoder(), path=unclean, collection_name="others"):
            pass
        assert (unclean / HOLDER_NAME).exists()
    with CachedSemanticSearchEngine(CountingEncoder(), path=unclean) as engine:
        assert_sound(engine)
    assert not (unclean / HOLDER_NAME).exists()


@pytest.mark.parametrize("content", [None, b"", b"no database" * 1000])
def test_a_library_whose_maker_was_killed_at_once(
    tmp_path: Path, opened: Callable[..., Any], content: bytes | None
) -> None:
    (tmp_path / HOLDER_NAME).write_text("{}")
    if content is not None:
        (tmp_path / "chroma.sqlite3").write_bytes(content)
    if content:
        with pytest.raises(SearchIndexError, match="could not open the library folder"):
            opened(tmp_path)
        return
    engine = opened(tmp_path)
    assert engine.index_documents(TEXTS, IDS).added == N
    engine.close()
    assert not (tmp_path / HOLDER_NAME).exists()


# --- a few lost records ---------------------------------------------------------------------


def test_a_few_lost_records_are_put_anew(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=unclean) as engine:
        collection_id = engine.collection.id
    (unclean / HOLDER_NAME).write_text("{}")
    lose(segments(unclean)[0], ["d3", "d77"])
    engine = opened(unclean)
    assert messages(caplog) == ["collection 'documents': searches did not find 2 of 200 records; they were put anew"]
    assert engine.collection.id == collection_id
    assert_sound(engine)


def test_lost_records_that_chroma_cannot_delete_are_in_the_collection_that_is_built_then(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its delete fails, and yet removes the texts. The files would tell, but nobody looks at them here."""
    monkeypatch.setattr(sys, "executable", "")
    lose(segments(unclean)[0], ["d3", "d77"], still_listed=True)
    engine = opened(unclean)
    assert messages(caplog) == [rebuilt_after(2)]
    assert_sound(engine)


def test_a_record_of_another_program_is_put_anew_as_it_was(unclean: Path, opened: Callable[..., Any]) -> None:
    vector = CountingEncoder().vector("foreign")
    with open_client(unclean) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.add(ids=[f"f{i}" for i in range(20)], embeddings=[vector] * 20, uris=["file:///f"] * 20)
        before = collection.get(ids=["f3"], include=["embeddings", "documents", "metadatas", "uris"])
    lose(segments(unclean)[0], [f"d{i}" for i in range(50)])
    engine = opened(unclean)
    after = engine.collection.get(ids=["f3"], include=["embeddings", "documents", "metadatas", "uris"])
    assert (after["embeddings"] == pytest.approx(before["embeddings"], abs=1e-6)) is True
    for result in (before, after):
        result["embeddings"] = None
    assert after == before
    assert engine.collection.count() == N + 20
    assert engine._index.unreachable() == []


# --- a new collection -----------------------------------------------------------------------


def test_many_lost_records_are_in_a_new_collection(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    lose(segments(unclean)[0], IDS[:50])
    engine = opened(unclean)
    assert messages(caplog) == [rebuilt_after(50)]
    assert_sound(engine)


@pytest.mark.parametrize("name", ["header.bin", "link_lists.bin"])
def test_a_torn_file_is_noticed_after_an_unclean_end(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Chroma says nothing of these, and ends with SIGSEGV or never comes back when it is next written to."""
    tear(segments(unclean)[0] / name)
    engine = opened(unclean)
    assert messages(caplog) == [
        f"collection 'documents': its vector index is damaged and was removed ({name} is cut off)",
        rebuilt_after(199),
    ]
    assert_sound(engine)


def test_a_vector_index_that_is_not_to_blame_is_put_back(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma fails with it and without it."""
    (segment,) = segments(unclean)
    before = {file.name: file.read_bytes() for file in segment.iterdir()}
    failed = probe.Look("documents", segment.name, probe.FAILED, "disk I/O error")
    with monkeypatch.context() as patched:
        patched.setattr(probe, "_look_at", lambda *_, **__: {"documents": failed})
        assert probe.set_aside_failed(unclean) == {"documents"}
    assert messages(caplog) == ["collection 'documents' cannot be read (disk I/O error)"]
    assert {file.name: file.read_bytes() for file in segment.iterdir()} == before
    assert segments(unclean) == [segment]
    assert_sound(opened(unclean))


def test_what_a_process_left_that_was_killed_while_it_set_an_index_aside_is_removed(
    unclean: Path, opened: Callable[..., Any]
) -> None:
    (segment,) = segments(unclean)
    tear(segment / "link_lists.bin")
    segment.rename(f"{segment}.embstore-aside")
    assert_sound(opened(unclean))
    assert not list(unclean.glob("*aside"))


def test_what_others_print_in_the_process_that_looks_does_no_harm(
    unclean: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("print('hello')\nprint('{}')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    lose(segments(unclean)[0], IDS[:50])
    assert_sound(opened(unclean))


@pytest.mark.parametrize("name", ["link_lists.bin", "index_metadata.pickle"])
def test_damage_that_the_first_call_tells_is_mended_after_a_clean_end_too(
    library: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    segment = segments(library)[0]
    tear(segment / "index_metadata.pickle") if name == "index_metadata.pickle" else (segment / name).unlink()
    assert_sound(opened(library))
    assert len(messages(caplog)) == 2


def test_a_mended_library_is_sound_when_it_is_opened_again(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    tear(segments(unclean)[0] / "index_metadata.pickle")
    with CachedSemanticSearchEngine(CountingEncoder(), path=unclean) as engine:
        assert_sound(engine)
    (unclean / HOLDER_NAME).write_text("{}")
    assert_sound(opened(unclean))
    assert len(messages(caplog)) == 2


def test_the_new_collection_has_the_settings_and_the_metadata_of_the_old_one(
    unclean: Path, opened: Callable[..., Any]
) -> None:
    with open_client(unclean) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.modify(metadata={**(collection.metadata or {}), "owner": "me"})
        before = client.get_collection("documents", embedding_function=None)
    lose(segments(unclean)[0], IDS[:50])
    after = opened(unclean).collection
    assert after.id != before.id
    assert (after.metadata, after.configuration_json) == (before.metadata, before.configuration_json)


def test_records_without_any_vector_are_kept_aside_and_can_be_indexed_again(
    unclean: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=unclean) as engine:
        engine.cache.invalidate(["d5", "d6"])
    (unclean / HOLDER_NAME).write_text("{}")
    tear(segments(unclean)[0] / "data_level0.bin")
    engine = opened(unclean)
    assert messages(caplog)[-1] == (
        "collection 'documents': 2 documents had no vector and are not in the new one; index them again. The old one, "
        "which cannot be searched, is kept as 'documents.damaged'"
    )
    assert engine.collection.count() == N - 2
    with_lost = engine._index._client.get_collection("documents" + DAMAGED, embedding_function=None)
    assert with_lost.get(ids=["d5"])["documents"] == ["text 5"]
    report = engine.index_documents(TEXTS, IDS, METADATAS)
    assert (report.added, report.encoded, report.unchanged) == (2, 2, N - 2)
    assert engine._index.unreachable() == []


def test_without_a_cache_the_vectors_that_can_be_read_are_used(unclean: Path, opened: Callable[..., Any]) -> None:
    lose(segments(unclean)[0], IDS[:50])
    engine = opened(unclean, SemanticSearchEngine)
    assert engine.collection.count() == N - 50
    assert engine._index.unreachable() == []
    assert engine.model.calls == []
    assert engine.index_documents(TEXTS, IDS, METADATAS).added == 50


def test_vectors_are_not_believed_where_chroma_failed(unclean: Path, opened: Callable[..., Any]) -> None:
    """Vectors of other records may have been written over them."""
    (unclean / HOLDER_NAME).write_text('{"failed": ["documents"]}')
    engine = opened(unclean, SemanticSearchEngine)
    assert engine.collection.count() == 1  # which is still in Chroma's log
    assert engine._index._client.get_collection("documents" + DAMAGED, embedding_function=None).count() == N


# --- other collections ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", RESERVED_SUFFIXES)
def test_a_collection_cannot_be_called_as_what_is_built_beside_one(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InvalidInputError, match="reserved"):
        SemanticSearchEngine(CountingEncoder(), path=tmp_path, collection_name="documents" + suffix)
    assert list(tmp_path.iterdir()) == []


def create_another(library: Path, name: str) -> None:
    """Create a collection that embstore may have made long ago, without a mark."""
    with open_client(library) as client:
        metadata = {MODEL_NAME_KEY: "fake", SETTINGS_KEY: "{}"}
        another = client.create_collection(name, embedding_function=None, metadata=metadata)
        another.add(ids=["x"], embeddings=[[1.0, 2.0]], documents=["another"])


@pytest.mark.parametrize("suffix", [REBUILT, REBUILDING, MENDING])
def test_a_collection_that_is_only_called_like_one_of_ours_is_left_alone(
    unclean: Path, opened: Callable[..., Any], suffix: str
) -> None:
    create_another(unclean, "documents" + suffix)
    engine = opened(unclean)
    assert engine.reconcile(TEXTS, IDS, METADATAS, repair=True).ok
    another = engine._index._client.get_collection("documents" + suffix, embedding_function=None)
    assert another.get()["documents"] == ["another"]
    engine._index._client.delete_collection(another.name)
    assert_sound(engine)


@pytest.mark.parametrize("suffix", [REBUILT, REBUILDING])
def test_a_collection_in_the_way_of_a_new_one_is_named(unclean: Path, opened: Callable[..., Any], suffix: str) -> None:
    create_another(unclean, "documents" + suffix)
    lose(written_segment(unclean), IDS[:50])
    with pytest.raises(SearchIndexError, match=f"the collection 'documents{suffix}' is in the way"):
        opened(unclean)
    with open_client(unclean) as client:
        assert client.get_collection("documents" + suffix, embedding_function=None).get()["documents"] == ["another"]
        client.delete_collection("documents" + suffix)
    assert_sound(opened(unclean))


def test_records_in_the_way_of_those_put_anew_are_named(unclean: Path, opened: Callable[..., Any]) -> None:
    create_another(unclean, "documents" + MENDING)
    lose(written_segment(unclean), ["d3", "d77"])
    with pytest.raises(SearchIndexError, match=r"the collection 'documents\.mending' is in the way"):
        opened(unclean)


def test_a_collection_that_is_refused_is_not_replaced_before_that(tmp_path: Path) -> None:
    with open_client(tmp_path) as client:
        for name, metadata in (("documents", None), ("documents" + REBUILT, {MARK_KEY: "documents", "n": 1})):
            it = client.create_collection(name, embedding_function=None, metadata=metadata, configuration=COSINE)
            it.add(ids=["x"], embeddings=[[1.0, 2.0]], documents=[name])
            if metadata is not None:
                it.modify(metadata={**metadata, MODEL_NAME_KEY: "fake", SETTINGS_KEY: "{}"})
    with pytest.raises(CollectionMismatchError, match="not made by embstore"):
        SemanticSearchEngine(CountingEncoder(), path=tmp_path)
    with open_client(tmp_path) as client:
        assert client.get_collection("documents", embedding_function=None).get()["documents"] == ["documents"]


def test_a_swap_of_the_longest_name_is_finished_and_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest stands for the name, which only the mark tells."""
    name = "n" * 512
    with CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path, collection_name=name) as engine:
        engine.index_documents(TEXTS, IDS, METADATAS)
        fail_once(monkeypatch)
        with pytest.raises(SearchIndexError):
            engine.search("q")
        monkeypatch.setattr(repair, "finish_swap", lambda *_: None)
        engine.reconcile(repair=True)
        monkeypatch.undo()
    looks = {look.name: replace(look, state=probe.LOSSY) for look in (probe._look_at(tmp_path) or {}).values()}
    with monkeypatch.context() as patched:
        patched.setattr(probe, "_look_at", lambda *_, **__: {n: look for n, look in looks.items() if n != name})
        assert probe.set_aside_failed(tmp_path) == {name}
    (tmp_path / HOLDER_NAME).write_text("{}")
    with CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path, collection_name=name) as engine:
        assert names(engine) == {name}
        assert MARK_KEY not in (engine.collection.metadata or {})
        assert_sound(engine)
    assert not (tmp_path / HOLDER_NAME).exists()


# --- what no index finds --------------------------------------------------------------------


@needs_scifact
def test_a_library_of_very_many_documents_with_one_text_is_opened_after_an_unclean_end(tmp_path: Path) -> None:
    """HNSW does not reach everything among them, and a new index is no better."""
    library, encoder = tmp_path / "library", LookUpEncoder(tmp_path / "encoded")
    create_collection(library, encoder.model_name, sync_threshold=1000)
    texts = [text_of(0, 0)] * 1000 + [text_of(i, 0) for i in range(1, 1000)]
    random.Random(1).shuffle(texts)
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(texts)
        there = found_at_once(engine)
        assert len(engine._index.unreachable()) <= len(texts) - len(there)
    for _ in range(2):
        (library / HOLDER_NAME).write_text("{}")
        with CachedSemanticSearchEngine(encoder, path=library) as engine:
            assert engine.collection.count() == len(texts)
            assert engine.reconcile(texts, repair=True).n_records == len(texts)
            assert names(engine) == {"documents"}
        assert not (library / HOLDER_NAME).exists()
    encoder.close()


def found_at_once(engine: Any) -> set[str]:
    n = engine.collection.count()
    results = engine.collection.query(query_embeddings=np.ones((1, 384), np.float32), n_results=n, include=[])
    return set(results["ids"][0])


def miss(monkeypatch: pytest.MonkeyPatch, old: int, new: int) -> None:
    """Let searches miss some records, in the collection that is there and in any new one."""

    def unreachable_ids(collection: Any) -> list[str]:
        return IDS[:new] if collection.name.endswith(REBUILDING) else IDS[:old]

    monkeypatch.setattr(repair, "unreachable_ids", unreachable_ids)


@pytest.mark.parametrize(("old", "new", "is_swapped"), [(50, 49, True), (50, 50, False), (50, 60, False)])
def test_the_index_that_finds_more_stays(
    unclean: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    old: int,
    new: int,
    is_swapped: bool,
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with open_client(unclean) as client:
        before = client.get_collection("documents", embedding_function=None).id
    with monkeypatch.context() as missing:
        miss(missing, old, new)
        engine = CachedSemanticSearchEngine(CountingEncoder(), path=unclean)
    with engine:
        assert (engine.collection.id != before) == is_swapped
        assert messages(caplog)[-1] == (
            f"collection 'documents': searches do not find {new} records of the new one either"
            if is_swapped
            else f"collection 'documents': searches did not find 50 of 200 records; a new one misses {new}, so the old "
            f"one stays"
        )
        assert_sound(engine)


def test_where_chroma_failed_a_new_index_takes_its_place_though_it_finds_not_all(
    library: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = opened(library)
    before = engine.collection.id
    fail_once(monkeypatch)
    with pytest.raises(SearchIndexError):
        engine.search("q")
    with monkeypatch.context() as missing:
        miss(missing, 0, 3)
        engine.reconcile(repair=True)
    assert engine.collection.id != before
    assert messages(caplog)[-1] == "collection 'documents': searches do not find 3 records of the new one either"
    engine.model.calls.clear()
    assert_sound(engine)


# --- failures of a session ------------------------------------------------------------------


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Chroma fail in the next call of `query`."""

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise chromadb.errors.InternalError("Failed to apply logs to the hnsw segment writer")

    monkeypatch.setattr(Collection, "query", fail)


def test_a_collection_in_which_chroma_failed_is_built_anew_when_it_is_opened_again(
    library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        before = engine.collection.id
        fail_once(monkeypatch)
        with pytest.raises(SearchIndexError, match=r"open the engine anew by path=, or reconcile\(repair=True\)"):
            engine.search("q")
        assert read_note(library)["failed"] == ["documents"]
        assert len(engine.search("q")) == 10
    assert read_note(library)["failed"] == ["documents"]
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        assert engine.collection.id != before
        assert_sound(engine)
    assert not (library / HOLDER_NAME).exists()
    assert "its vector index is damaged and was removed" in messages(caplog)[0]


def test_reconcile_builds_it_anew_in_the_same_session(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        before = engine.collection.id
        fail_once(monkeypatch)
        with pytest.raises(SearchIndexError):
            engine.search("q")
        assert engine.reconcile(repair=True).ok
        assert engine.collection.id != before
        engine.model.calls.clear()
        assert_sound(engine)
    assert not (library / HOLDER_NAME).exists()


def test_a_collection_of_the_longest_name_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "n" * 512
    with CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path, collection_name=name) as engine:
        engine.index_documents(TEXTS, IDS, METADATAS)
        before = engine.collection.id
        fail_once(monkeypatch)
        with pytest.raises(SearchIndexError):
            engine.search("q")
        assert engine.reconcile(repair=True).ok
        assert engine.collection.id != before
        assert names(engine) == {name}


def test_collections_that_are_kept_aside_do_not_keep_a_library_unclean(unclean: Path) -> None:
    for kept in (["documents.damaged"], ["documents.2.damaged", "documents.damaged"]):
        (unclean / HOLDER_NAME).write_text('{"failed": ["documents"]}')
        with SemanticSearchEngine(CountingEncoder(), path=unclean) as engine:
            assert sorted(names(engine) - {"documents"}) == kept
            engine.index_documents(TEXTS, IDS)
        assert not (unclean / HOLDER_NAME).exists()


def test_damage_that_is_met_beside_another_engine_is_told_and_mended_when_that_is_closed(library: Path) -> None:
    tear(segments(library)[0] / "index_metadata.pickle")
    in_use = pytest.raises(SearchIndexError, match="in use by other engines of this process; close them")
    with SemanticSearchEngine(CountingEncoder(), path=library, collection_name="others"), in_use:
        CachedSemanticSearchEngine(CountingEncoder(), path=library)
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        assert_sound(engine)


def test_a_process_that_cannot_be_started_leaves_the_check_to_this_one(
    unclean: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(segments(unclean)[0], IDS[:50])
    monkeypatch.setattr(sys, "executable", "")
    assert_sound(opened(unclean))


# --- crashes while it is mended -------------------------------------------------------------


class CrashError(BaseException):
    """Nothing of embstore's catches it, as nothing is caught in a process that ends."""


def crash_before_write(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th call that writes to Chroma be the last thing that is begun."""
    from chromadb.api.rust import RustBindingsAPI

    writes = iter(range(n))

    def crashing(write: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            if next(writes, None) is None:
                raise CrashError
            return write(*args, **kwargs)

        return called

    for name in ("create_collection", "delete_collection", "_add", "_delete", "_modify"):
        monkeypatch.setattr(RustBindingsAPI, name, crashing(getattr(RustBindingsAPI, name)))


@pytest.mark.parametrize("n_without_vector", [0, 10])
def test_a_crash_at_any_step_loses_nothing(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_without_vector: int
) -> None:
    monkeypatch.setattr(sys, "executable", "")  # it is this process that crashes; another would only take its time
    n_crashes = 0
    while True:
        library = Path(shutil.copytree(sound, tmp_path / f"{n_crashes}"))
        lose(segments(library)[0], IDS[:50])
        (library / HOLDER_NAME).write_text("{}")
        with EmbeddingCache(library / "embeddings.db") as cache:
            cache.invalidate(IDS[:n_without_vector])
        with monkeypatch.context() as crashing:
            crash_before_write(n_crashes, crashing)
            try:
                CachedSemanticSearchEngine(CountingEncoder(), path=library).close()
                break
            except CrashError:
                n_crashes += 1
        with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
            if n_without_vector:
                aside = engine._index._client.get_collection("documents" + DAMAGED, embedding_function=None)
                assert set(IDS[:n_without_vector]) <= set(aside.get()["ids"])
                assert engine.index_documents(TEXTS, IDS, METADATAS).added == n_without_vector
                engine.model.calls.clear()
                engine._index._client.delete_collection(aside.name)
            assert_sound(engine)
    # Create, add, rename; delete the records and the collection or rename that; rename.
    assert n_crashes == (5 if n_without_vector else 6)


@pytest.mark.parametrize("kind", [CachedSemanticSearchEngine, SemanticSearchEngine])
def test_a_crash_while_records_are_put_anew_loses_nothing(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Neither their texts and metadata nor what another program wrote; also where there is no cache."""
    lost = ["d3", "d77", "foreign"]
    monkeypatch.setattr(sys, "executable", "")
    n_crashes = 0
    while True:
        library = Path(shutil.copytree(sound, tmp_path / f"{n_crashes}"))
        with open_client(library) as client:
            add_foreign(client)
            before = whole(client)
        (library / HOLDER_NAME).write_text("{}")
        with monkeypatch.context() as crashing:
            states = iter([lost])
            crashing.setattr(repair, "unreachable_ids", lambda _, states=states: next(states, []))
            crashing.setattr(repair, "_FEW_SHARE", 1)
            crash_before_write(n_crashes, crashing)
            try:
                kind(CountingEncoder(), path=library).close()
                break
            except CrashError:
                n_crashes += 1
        (library / HOLDER_NAME).unlink()  # a library that is not looked at is made whole too
        with kind(CountingEncoder(), path=library) as engine:
            assert names(engine) == {"documents"}
            assert whole(engine._index._client) == before
            assert engine.reconcile(TEXTS, IDS, METADATAS).ok
            assert engine.model.calls == []
    # Create, add; delete, add; delete the records and the collection.
    assert n_crashes == 6


def add_foreign(client: Any) -> None:
    vector = CountingEncoder().vector("foreign")
    client.get_collection("documents", embedding_function=None).add(
        ids=["foreign"], embeddings=[vector], documents=["theirs"], uris=["file:///f"]
    )


def whole(client: Any) -> dict[str, Any]:
    """All that Chroma tells of the records, but for their vectors."""
    got = client.get_collection("documents", embedding_function=None).get(include=["documents", "metadatas", "uris"])
    columns = zip(got["documents"], got["metadatas"], got["uris"], strict=True)
    return dict(zip(got["ids"], columns, strict=True))


def test_a_crash_while_reconcile_puts_records_anew_loses_nothing(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_crashes = 0
    while True:
        library = Path(shutil.copytree(sound, tmp_path / f"{n_crashes}"))
        with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
            engine.collection.update(ids=["d3", "d4"], embeddings=[CountingEncoder().vector("wrong")] * 2)
            before = whole(engine._index._client)
            with monkeypatch.context() as crashing:
                crash_before_write(n_crashes, crashing)
                try:
                    assert engine.reconcile(repair=True).wrong_vector == ["d3", "d4"]
                    break
                except CrashError:
                    n_crashes += 1
            assert engine.reconcile(repair=True).ok
            assert whole(engine._index._client) == before
            assert_sound(engine)
    assert n_crashes == 6


def test_an_interrupted_repair_leaves_nothing_that_could_come_back(
    library: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(library)
    engine.collection.update(ids=["d3"], embeddings=[CountingEncoder().vector("wrong")])
    delete = Collection.delete

    def interrupted(self: Any, **arguments: Any) -> None:
        monkeypatch.undo()
        delete(self, **arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "delete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.reconcile(repair=True)
    assert names(engine) == {"documents"}
    assert_sound(engine)


def set_aside(library: Path, doc_ids: list[str], **metadata: str) -> None:
    """Leave a library as a process does that was killed after it had deleted what it puts anew."""
    with open_client(library) as client:
        collection = client.get_collection("documents", embedding_function=None)
        records: Any = collection.get(ids=doc_ids, include=["embeddings", "documents", "metadatas"])
        identity = {key: collection.metadata[key] for key in (MODEL_NAME_KEY, SETTINGS_KEY)}
        aside = client.create_collection(
            "documents" + MENDING, embedding_function=None, metadata={**identity, MARK_KEY: "documents", **metadata}
        )
        columns = {column: records[column] for column in ("ids", "embeddings", "documents", "metadatas")}
        aside.add(**columns)
        collection.delete(ids=doc_ids)


def test_records_that_are_set_aside_are_in_a_collection_that_is_built_anew(
    library: Path, opened: Callable[..., Any]
) -> None:
    set_aside(library, ["d3", "d4"])
    (library / HOLDER_NAME).write_text('{"failed": ["documents"]}')
    assert_sound(opened(library))


def test_records_of_a_collection_that_was_made_again_are_not_mixed_into_it(
    library: Path, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    set_aside(library, ["d3", "d4"], **{MODEL_NAME_KEY: "other"})
    engine = opened(library)
    assert engine.collection.count() == N - 2
    engine.reconcile(repair=True)
    kept = engine._index._client.get_collection("documents" + DAMAGED, embedding_function=None)
    assert (engine.collection.count(), sorted(kept.get()["ids"])) == (N - 2, ["d3", "d4"])
    assert "2 documents were lost while they were put anew, 'd3' among them" in messages(caplog)[-1]
    assert engine.index_documents(TEXTS, IDS, METADATAS).added == 2


CRASH = """
import os, sys
from pathlib import Path
import pytest
from embstore import CachedSemanticSearchEngine
from tests import test_repair
from tests.fakes import CountingEncoder

class Exit(BaseException):
    def __init__(self):
        os._exit(9)

test_repair.CrashError = Exit
test_repair.crash_before_write(int(sys.argv[2]), pytest.MonkeyPatch())
CachedSemanticSearchEngine(CountingEncoder(), path=Path(sys.argv[1])).close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_writes", range(7))
def test_a_process_that_ends_at_any_step_loses_nothing(unclean: Path, n_writes: int) -> None:
    tear(segments(unclean)[0] / "data_level0.bin")
    ended = subprocess.run([sys.executable, "-c", CRASH, str(unclean), str(n_writes)], timeout=60, check=False)
    assert ended.returncode == (9 if n_writes < 6 else 0)
    with CachedSemanticSearchEngine(CountingEncoder(), path=unclean) as engine:
        assert_sound(engine)
    assert not (unclean / HOLDER_NAME).exists()
