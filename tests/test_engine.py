"""The engines, on real Chroma folders and real cache files."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, SemanticSearchEngine, content_hash
from embstore.errors import (
    CollectionMismatchError,
    EmbstoreError,
    EncoderError,
    InvalidInputError,
    InvalidTypeError,
    LibraryLockedError,
    ModelChangedError,
    ModelExistsError,
    ModelNameError,
    SearchIndexError,
    StoreClosedError,
    StorePathError,
    UnknownModelError,
)
from embstore.search import IndexReport
from embstore.search.base import HASH_KEY
from tests.fakes import CountingEncoder

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")

Engine = SemanticSearchEngine
CHROMA = Path(sys.executable).with_name("chroma")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture(params=[SemanticSearchEngine, CachedSemanticSearchEngine], ids=["direct", "cached"])
def engine(request: pytest.FixtureRequest, library: Path, encoder: CountingEncoder) -> Iterator[Engine]:
    """Both engines, for what they have in common."""
    with request.param(encoder, path=library) as engine:
        yield engine


@pytest.fixture
def cached(library: Path, encoder: CountingEncoder) -> Iterator[CachedSemanticSearchEngine]:
    """A cached engine whose cache must be sound when the test is over."""
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        yield engine
        assert engine.cache.verify() == []


class FailingEncoder(CountingEncoder):
    """Fails on texts that hold "bad"."""

    def encode(self, texts: list[str]) -> np.ndarray:
        if any("bad" in text for text in texts):
            raise RuntimeError("out of memory")
        return super().encode(texts)


class Watched:
    """A collection that notes which of its methods are called."""

    def __init__(self, engine: Engine) -> None:
        self.calls: list[str] = []
        self._collection = engine.collection
        engine._index._get = lambda: self  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._collection, name)
        if callable(value):
            self.calls.append(name)
        return value


def counts(report: IndexReport) -> dict[str, int]:
    """The counts of a report that are not zero."""
    names = ("total", "added", "updated", "metadata_updated", "unchanged", "encoded", "from_cache")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def records(engine: Engine) -> dict[str, tuple[str, dict[str, Any], list[float]]]:
    """Every record of the engine's collection, whole."""
    got: Any = engine.collection.get(include=["documents", "metadatas", "embeddings"])
    columns = (got["documents"], got["metadatas"], got["embeddings"].tolist())
    return dict(zip(got["ids"], zip(*columns, strict=True), strict=True))


def record(encoder: CountingEncoder, text: str, **metadata: Any) -> Any:
    """The record that a document is to have."""
    return (
        text,
        {**metadata, HASH_KEY: content_hash(text).hex()},
        pytest.approx(encoder.vector(text).tolist(), abs=1e-6),
    )


# --- indexing -------------------------------------------------------------------------------


def test_documents_are_indexed_with_their_ids_metadata_and_vectors(engine: Engine, encoder: CountingEncoder) -> None:
    report = engine.index_documents(["A", "B"], ids=["a", "b"], metadatas=[{"year": 2026}, None])
    assert records(engine) == {"a": record(encoder, "A", year=2026), "b": record(encoder, "B")}
    assert counts(report) == {"total": 2, "added": 2, "encoded": 2}
    assert report.seconds > 0
    assert report.documents_per_s == pytest.approx(2 / report.seconds)


def test_ids_count_up_where_none_are_given(engine: Engine) -> None:
    engine.index_documents(f"text {i}" for i in range(3))
    assert set(records(engine)) == {"doc_0", "doc_1", "doc_2"}


def test_an_unchanged_document_costs_no_model_call_and_no_chroma_write(
    engine: Engine, encoder: CountingEncoder
) -> None:
    engine.index_documents(["A", "B"], metadatas=[{"k": [1.5, 2.0]}, {}])
    before, n_calls, watched = records(engine), len(encoder.calls), Watched(engine)
    report = engine.index_documents(["A", "B"], metadatas=[{"k": [1.5, 2.0]}, None])
    assert counts(report) == {"total": 2, "unchanged": 2}
    assert (watched.calls, len(encoder.calls)) == (["get"], n_calls)
    assert records(engine) == before


def test_an_unchanged_document_is_unchanged_in_the_next_process(library: Path, encoder: CountingEncoder) -> None:
    script = """
import sys
from embstore import SemanticSearchEngine
from tests.fakes import CountingEncoder
with SemanticSearchEngine(CountingEncoder(), path=sys.argv[1]) as engine:
    engine.index_documents(["A", "B"], metadatas=[{"k": 1}, {"k": 1.0}])
"""
    subprocess.run([sys.executable, "-c", script, str(library)], check=True, timeout=60)
    with SemanticSearchEngine(encoder, path=library) as engine:
        report = engine.index_documents(["A", "B"], metadatas=[{"k": 1}, {"k": 1.0}])
    assert counts(report) == {"total": 2, "unchanged": 2}
    assert encoder.calls == []


def test_other_metadata_cost_no_model_call_and_leave_the_vector(engine: Engine, encoder: CountingEncoder) -> None:
    engine.index_documents(["A", "B"], metadatas=[{"year": 1, "gone": "x"}, {"year": 1}])
    n_calls, watched = len(encoder.calls), Watched(engine)
    report = engine.index_documents(["A", "B"], metadatas=[{"year": 1.0}, {"year": 1}])
    assert counts(report) == {"total": 2, "metadata_updated": 1, "unchanged": 1}
    assert (watched.calls, len(encoder.calls)) == (["get", "update"], n_calls)
    assert repr(records(engine)["doc_0"][1]["year"]) == "1.0"
    assert records(engine) == {"doc_0": record(encoder, "A", year=1.0), "doc_1": record(encoder, "B", year=1)}


def test_a_changed_text_replaces_the_record_and_leaves_the_others(engine: Engine, encoder: CountingEncoder) -> None:
    engine.index_documents(["A", "B"], metadatas=[{"old": 1}, None])
    watched = Watched(engine)
    report = engine.index_documents(["new", "B", "C"], metadatas=[{"year": 2}, None, None])
    assert counts(report) == {"total": 3, "updated": 1, "unchanged": 1, "added": 1, "encoded": 2}
    assert watched.calls == ["get", "delete", "add", "add"]
    assert records(engine) == {
        "doc_0": record(encoder, "new", year=2),
        "doc_1": record(encoder, "B"),
        "doc_2": record(encoder, "C"),
    }


def test_a_text_that_two_documents_share_is_encoded_once(engine: Engine, encoder: CountingEncoder) -> None:
    report = engine.index_documents(["same", "other", "same"])
    assert counts(report) == {"total": 3, "added": 3, "encoded": 2}
    assert sorted(encoder.texts) == ["other", "same"]
    assert records(engine)["doc_0"] == records(engine)["doc_2"] == record(encoder, "same")


def test_a_document_given_twice_alike_counts_as_unchanged_the_second_time(engine: Engine) -> None:
    report = engine.index_documents(["A", "A", "B"], ids=["a", "a", "b"], metadatas=[{"k": 1}, {"k": 1}, None])
    assert counts(report) == {"total": 3, "added": 2, "unchanged": 1, "encoded": 2}


def test_no_documents_are_a_report_of_nothing(engine: Engine) -> None:
    report = engine.index_documents([])
    assert counts(report) == {}
    assert report.documents_per_s == 0.0


def test_a_record_deleted_behind_the_engines_back_is_added_again(engine: Engine, encoder: CountingEncoder) -> None:
    engine.index_documents(["A", "B"])
    engine.collection.delete(ids=["doc_0"])
    assert counts(engine.index_documents(["A", "B"])).items() >= {"added": 1, "unchanged": 1}.items()
    assert records(engine) == {"doc_0": record(encoder, "A"), "doc_1": record(encoder, "B")}


def test_a_model_that_fails_in_a_later_window_keeps_what_was_written(library: Path) -> None:
    texts = [f"text {i}" for i in range(1500)] + ["bad"]
    with CachedSemanticSearchEngine(FailingEncoder(), path=library) as engine:
        with pytest.raises(EncoderError, match="out of memory"):
            engine.index_documents(texts)
        kept = engine.collection.count()
        assert 1000 <= kept < 1500
        report = engine.index_documents([*texts[:-1], "good"])
        assert (report.unchanged, report.added) == (kept, 1501 - kept)


def test_a_crash_between_delete_and_add_is_mended_by_the_next_call(
    cached: CachedSemanticSearchEngine, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.index_documents(["A", "B"])
    with monkeypatch.context() as patch:
        patch.setattr(type(cached.collection), "add", lambda *_, **__: 1 / 0)
        with pytest.raises(SearchIndexError, match="could not replace documents"):
            cached.index_documents(["new", "B"])
    assert list(records(cached)) == ["doc_1"]
    assert counts(cached.index_documents(["new", "B"])) == {"total": 2, "added": 1, "unchanged": 1, "from_cache": 1}
    assert records(cached) == {"doc_0": record(encoder, "new"), "doc_1": record(encoder, "B")}


def test_lists_that_a_deleted_collection_left_behind_are_removed_by_the_next_call(
    library: Path, encoder: CountingEncoder
) -> None:
    """chroma-core/chroma#7594 gives them to records that come later, in any collection."""
    with SemanticSearchEngine(encoder, path=library, collection_name="first") as engine:
        engine.index_documents(["A"], metadatas=[{"tags": ["x"]}])
        engine._library.client.delete_collection("first")  # type: ignore[union-attr]
    with SemanticSearchEngine(encoder, path=library, collection_name="second") as engine:
        engine.index_documents(["B"])
        engine.index_documents(["B"])
        assert records(engine) == {"doc_0": record(encoder, "B")}


def test_any_text_can_be_a_document(engine: Engine) -> None:
    texts = ["", " ", "a\0b", "\ud800", "\udfff", "e\u0301", "é", "😀" * 10_000]
    engine.index_documents(texts)
    assert engine.index_documents(texts).unchanged == len(texts)
    assert [records(engine)[f"doc_{i}"][0] for i in (2, 3, 5)] == ["a\0b", "\ufffd", "e\u0301"]


# --- the cache ------------------------------------------------------------------------------


def test_a_text_that_was_encoded_before_comes_from_the_cache(
    cached: CachedSemanticSearchEngine, encoder: CountingEncoder
) -> None:
    cached.index_documents(["A", "B"])
    cached.delete_documents(["doc_0", "doc_1"])
    report = cached.index_documents(["B", "A", "C"], ids=["x", "y", "z"])
    assert counts(report) == {"total": 3, "added": 3, "encoded": 1, "from_cache": 2}
    assert sorted(encoder.texts) == ["A", "B", "C"]
    assert records(cached) == {text: record(encoder, t) for text, t in (("x", "B"), ("y", "A"), ("z", "C"))}


def test_an_index_that_was_lost_is_rebuilt_without_the_model(library: Path, encoder: CountingEncoder) -> None:
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(["A", "B"])
        before = records(engine)
    for path in library.iterdir():
        if path.name != "embeddings.db":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = CountingEncoder()
    with CachedSemanticSearchEngine(again, path=library) as engine:
        assert counts(engine.index_documents(["A", "B"])) == {"total": 2, "added": 2, "from_cache": 2}
        assert records(engine) == before
    assert again.calls == []


def test_a_query_is_encoded_once(cached: CachedSemanticSearchEngine, encoder: CountingEncoder) -> None:
    cached.index_documents(["A"])
    assert cached.search("question") == cached.search("question")
    assert encoder.texts == ["A", "question"]


def test_deleting_documents_leaves_their_vectors_in_the_cache(cached: CachedSemanticSearchEngine) -> None:
    cached.index_documents(["A", "B"])
    before = cached.cache.stats().n_documents
    assert cached.delete_documents(["doc_0", "missing", "doc_0"]) == 1
    assert list(records(cached)) == ["doc_1"]
    assert cached.cache.stats().n_documents == before


@pytest.mark.parametrize("kind", ["exact", "chroma"])
def test_the_ids_of_documents_are_listed_and_filtered(library: Path, encoder: CountingEncoder, kind: Any) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index=kind) as engine:
        assert list(engine.doc_ids()) == []
        engine.index_documents(["A", "B", "C"], ["a", "b", "c"], [{"year": 1}, {"year": 2}, None])
        if kind == "chroma":
            engine.collection.add(ids=["other"], documents=["theirs"], embeddings=[[1.0] * 8])  # type: ignore[arg-type]
        assert sorted(engine.doc_ids()) == ["a", "b", "c"]
        assert list(engine.doc_ids({"year": {"$gte": 2}})) == ["b"]
        with pytest.raises(InvalidInputError, match=r"\$near"):
            next(engine.doc_ids({"year": {"$near": 2}}))
    with pytest.raises(StoreClosedError):
        next(engine.doc_ids())


def test_collections_that_share_a_cache_keep_their_ids_apart(
    library: Path, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    texts = {"first": "A", "second": "B"}
    for name, text in texts.items():
        with CachedSemanticSearchEngine(encoder, path=library, collection_name=name, cache=cache) as engine:
            engine.index_documents([text])
    rows = {(info.collection, info.doc_id, info.content_hash) for info in cache.documents()}
    assert rows == {(name, "doc_0", content_hash(text).hex()) for name, text in texts.items()}
    assert not (library / "embeddings.db").exists()


def test_a_cache_that_was_given_stays_open_and_one_of_its_own_is_closed(
    library: Path, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, cache=cache) as engine:
        assert engine.cache is cache
    assert cache.stats().n_documents == 0
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        own = engine.cache
        assert own.path == (library / "embeddings.db").resolve()
    with pytest.raises(StoreClosedError):
        own.stats()


# --- one document ---------------------------------------------------------------------------


def test_reindexing_encodes_always_and_replaces(engine: Engine, encoder: CountingEncoder) -> None:
    engine.index_documents(["A", "B"], metadatas=[{"old": 1}, None])
    report = engine.reindex_document("doc_0", "A", {"year": 2})
    assert counts(report) == {"total": 1, "updated": 1, "encoded": 1}
    assert encoder.texts.count("A") == 2
    assert records(engine) == {"doc_0": record(encoder, "A", year=2), "doc_1": record(encoder, "B")}


def test_reindexing_a_new_id_adds_it(engine: Engine, encoder: CountingEncoder) -> None:
    assert counts(engine.reindex_document("new", "text")) == {"total": 1, "added": 1, "encoded": 1}
    assert records(engine) == {"new": record(encoder, "text")}


def test_reindexing_stores_the_new_vector_in_the_cache(
    cached: CachedSemanticSearchEngine, encoder: CountingEncoder
) -> None:
    cached.reindex_document("a", "text")
    assert counts(cached.index_documents(["text"])) == {"total": 1, "added": 1, "from_cache": 1}
    assert encoder.texts == ["text"]


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine])
def test_a_model_that_fails_while_reindexing_loses_nothing(library: Path, kind: type[Engine]) -> None:
    with kind(FailingEncoder(), path=library) as engine:
        engine.index_documents(["A"], metadatas=[{"k": 1}])
        before = records(engine)
        with pytest.raises(EncoderError, match="out of memory"):
            engine.reindex_document("doc_0", "bad")
        with pytest.raises(EncoderError, match="out of memory"):
            engine.index_documents(["bad", "B"])
        assert records(engine) == before


# --- searching ------------------------------------------------------------------------------


def test_the_nearest_documents_are_found_with_text_metadata_and_cosine(
    engine: Engine, encoder: CountingEncoder
) -> None:
    texts = [f"text {i}" for i in range(20)]
    engine.index_documents(texts, metadatas=[{"i": i} for i in range(20)])
    hits = engine.search("text 7", n_results=3)
    scores = encoder.vectors(texts) @ encoder.vector("text 7")
    best = np.argsort(-scores)[:3].tolist()
    assert [(hit.doc_id, hit.document, hit.metadata) for hit in hits] == [
        (f"doc_{i}", f"text {i}", {"i": i}) for i in best
    ]
    assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-5)


def test_a_filter_lets_through_what_it_says(engine: Engine) -> None:
    engine.index_documents(["A", "B", "C"], metadatas=[{"year": 1, "kind": "x"}, {"year": 2, "kind": "x"}, None])
    assert [hit.doc_id for hit in engine.search("A", where={"year": {"$gte": 2}})] == ["doc_1"]
    both = {"$and": [{"year": 1}, {"kind": {"$in": ["x", "y"]}}]}
    assert [hit.doc_id for hit in engine.search("A", where=both)] == ["doc_0"]


def test_a_search_that_makes_no_sense_is_refused_before_the_model_is_called(
    engine: Engine, encoder: CountingEncoder
) -> None:
    for where in ({}, {"$and": [{"a": 1}, {HASH_KEY: "x"}]}):
        with pytest.raises(InvalidInputError, match="where"):
            engine.search("q", where=where)
    with pytest.raises(InvalidInputError, match="n_results is 0"):
        engine.search("q", n_results=0)
    assert encoder.calls == []


# --- arguments ------------------------------------------------------------------------------


def test_one_bad_argument_among_many_leaves_nothing_written(engine: Engine, encoder: CountingEncoder) -> None:
    texts = [f"text {i}" for i in range(2000)]
    with pytest.raises(InvalidInputError, match="'doc_1999'"):
        engine.index_documents(texts, metadatas=[*[{"fine": 1}] * 1999, {"k": None}])
    with pytest.raises(InvalidInputError, match="'twice'"):
        engine.index_documents(texts, ids=["twice", *texts[2:], "twice"])
    with pytest.raises(InvalidTypeError):
        engine.index_documents("text")
    with pytest.raises(InvalidInputError, match="'a'"):
        engine.reindex_document("a", "A", {"k": []})
    assert (records(engine), encoder.calls) == ({}, [])


def test_ids_that_cannot_be_delete_nothing(engine: Engine) -> None:
    engine.index_documents(["A"])
    bad: list[Any] = ["doc_0", ["doc_0", 1], ["doc_0", ""], None]
    for ids in bad:
        with pytest.raises((InvalidInputError, InvalidTypeError)):
            engine.delete_documents(ids)
    assert list(records(engine)) == ["doc_0"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": 7}, InvalidTypeError),
        ({"model": CountingEncoder(model_name=None)}, ModelNameError),
        ({"model_name": ""}, InvalidInputError),
        ({"model_name": 7}, InvalidTypeError),
        ({"collection_name": "a b"}, InvalidInputError),
        ({"path": 7}, InvalidTypeError),
        ({"path": ""}, InvalidInputError),
    ],
    ids=["model", "no name", "empty name", "name", "collection", "path", "empty path"],
)
def test_an_engine_that_cannot_be_made_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], error: type[EmbstoreError]
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in (SemanticSearchEngine, CachedSemanticSearchEngine):
        with pytest.raises(error):
            kind(**{"model": CountingEncoder(), "path": "library", **arguments})
    assert list(tmp_path.iterdir()) == []


# --- models ---------------------------------------------------------------------------------


def test_the_model_is_the_object_that_was_given(engine: Engine, encoder: CountingEncoder) -> None:
    assert engine.model is encoder


def test_a_model_name_goes_with_a_model(library: Path) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(model_name=None), model_name="mine", path=library) as engine:
        engine.index_documents(["A"])
        assert [info.model_name for info in engine.cache.models()] == ["mine"]
        assert engine.collection.metadata["embstore:model_name"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "loaded"), [({}, "all-MiniLM-L6-v2"), ({"model": "x"}, "x"), ({"model_name": "x"}, "x")]
)
def test_a_name_without_a_model_is_that_of_the_model_to_load(
    library: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], loaded: str
) -> None:
    from embstore import encoders
    from embstore.encoders import sentence_transformer

    monkeypatch.setattr(encoders, "_loaded", {})
    monkeypatch.setattr(sentence_transformer, "load", lambda name: CountingEncoder(model_name=f"loaded {name}"))
    with SemanticSearchEngine(**arguments, path=library) as engine:
        assert engine.model.model_name == f"loaded {loaded}"


@pytest.mark.parametrize("kind", [SemanticSearchEngine, CachedSemanticSearchEngine])
def test_a_collection_of_another_model_is_refused_and_the_folder_released(library: Path, kind: type[Engine]) -> None:
    with kind(CountingEncoder(model_name="one"), path=library) as engine:
        engine.index_documents(["A"])
        before = records(engine)
    with pytest.raises(CollectionMismatchError, match="'one', not of 'two'"):
        kind(CountingEncoder(model_name="two"), path=library)
    with kind(CountingEncoder(model_name="two"), path=library, collection_name="other") as engine:
        engine.index_documents(["A"])
    with kind(CountingEncoder(model_name="one"), path=library) as engine:
        assert records(engine) == before


def test_a_model_whose_settings_change_while_the_engine_is_open_is_refused(engine: Engine) -> None:
    engine.index_documents(["A"])
    before = records(engine)
    engine.model.model_settings = {"max_seq_length": 8}
    for refused in (
        lambda: engine.index_documents(["B"]),
        lambda: engine.reindex_document("doc_0", "B"),
        lambda: engine.search("q"),
    ):
        with pytest.raises(CollectionMismatchError, match="max_seq_length"):
            refused()
    assert records(engine) == before


def test_queries_are_encoded_as_queries(library: Path) -> None:
    class TwoSided(CountingEncoder):
        def encode_query(self, texts: list[str]) -> np.ndarray:
            return self.vectors([f"query: {text}" for text in texts])

    for kind in (SemanticSearchEngine, CachedSemanticSearchEngine):
        with kind(TwoSided(), path=library) as engine:
            engine.index_documents(["A", "query: A"])
            (hit,) = engine.search("A", n_results=1)
            assert hit.document == "query: A"
            assert hit.score == pytest.approx(1.0, abs=1e-6)


# --- renaming -------------------------------------------------------------------------------


def test_a_renamed_model_keeps_every_vector(cached: CachedSemanticSearchEngine, encoder: CountingEncoder) -> None:
    cached.index_documents(["A", "B"])
    before = records(cached)
    cached.rename_model("fake", "new")
    report = cached.index_documents(["A", "B", "C"])
    assert counts(report) == {"total": 3, "unchanged": 2, "added": 1, "encoded": 1}
    assert records(cached).items() >= before.items()
    assert {info.model_name for info in cached.cache.models()} == {"new"}
    with pytest.raises(UnknownModelError, match="no model 'fake'"):
        cached.rename_model("fake", "new")
    cached.delete_documents(["doc_0"])
    assert counts(cached.index_documents(["A"])) == {"total": 1, "added": 1, "from_cache": 1}


def test_a_renamed_model_is_opened_by_its_new_name(library: Path) -> None:
    with SemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(["A"])
        engine.rename_model("fake", "new")
        assert engine.index_documents(["A"]).unchanged == 1
    with pytest.raises(CollectionMismatchError):
        SemanticSearchEngine(CountingEncoder(), path=library)
    with SemanticSearchEngine(CountingEncoder(), model_name="new", path=library) as engine:
        assert engine.index_documents(["A"]).unchanged == 1


def test_a_rename_that_crashed_halfway_is_finished_by_repeating_it(library: Path) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(["A"])
        engine._index.rename_model("new")  # the first of the two steps
    again = CountingEncoder()
    with CachedSemanticSearchEngine(again, model_name="new", path=library) as engine:
        engine.rename_model("fake", "new")
        engine.delete_documents(["doc_0"])
        assert counts(engine.index_documents(["A"])) == {"total": 1, "added": 1, "from_cache": 1}
    assert again.calls == []


def test_a_rename_that_the_cache_refuses_changes_nothing(cached: CachedSemanticSearchEngine) -> None:
    cached.index_documents(["A"])
    cached.cache.get("x", "text", CountingEncoder(), model_name="taken")
    with pytest.raises(ModelExistsError):
        cached.rename_model("fake", "taken")
    assert cached.collection.metadata["embstore:model_name"] == "fake"
    assert cached.index_documents(["A"]).unchanged == 1


@pytest.mark.parametrize(
    ("old", "new", "error"), [("other", "new", UnknownModelError), ("fake", "", InvalidInputError)]
)
def test_a_rename_that_makes_no_sense_is_refused(
    engine: Engine, old: str, new: str, error: type[EmbstoreError]
) -> None:
    with pytest.raises(error):
        engine.rename_model(old, new)
    assert engine.collection.metadata["embstore:model_name"] == "fake"


def test_a_model_is_not_renamed_twice(cached: CachedSemanticSearchEngine) -> None:
    cached.index_documents(["A"])
    cached.cache.get("x", "text", CountingEncoder(), model_name="another")
    cached.rename_model("fake", "new")
    with pytest.raises(UnknownModelError, match="'never heard'"):
        cached.rename_model("never heard", "new")
    with pytest.raises(UnknownModelError, match="is 'new', not 'another'"):
        cached.rename_model("another", "third")
    assert {info.model_name for info in cached.cache.models()} == {"new", "another"}


def test_a_second_engine_notices_that_the_model_was_renamed(library: Path) -> None:
    with (
        CachedSemanticSearchEngine(CountingEncoder(), path=library) as first,
        CachedSemanticSearchEngine(CountingEncoder(), path=library) as second,
    ):
        first.index_documents(["A"])
        first.rename_model("fake", "new")
        with pytest.raises(CollectionMismatchError, match="'new', not of 'fake'"):
            second.index_documents(["A"])
        assert {info.model_name for info in first.cache.models()} == {"new"}


# --- opening and closing --------------------------------------------------------------------


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    engine.close()
    uses: list[Callable[[], object]] = [
        lambda: engine.index_documents(["A"]),
        lambda: engine.reindex_document("a", "A"),
        lambda: engine.delete_documents(["a"]),
        lambda: engine.search("q"),
        lambda: engine.rename_model("fake", "new"),
        lambda: engine.collection,
    ]
    for use in uses:
        with pytest.raises(StoreClosedError, match="the engine was closed"):
            use()


def test_engines_of_one_process_share_a_folder(library: Path, encoder: CountingEncoder) -> None:
    with (
        CachedSemanticSearchEngine(encoder, path=library) as cached,
        SemanticSearchEngine(encoder, path=f"{library}/") as direct,
    ):
        cached.index_documents(["A"])
        assert direct.index_documents(["A"]).unchanged == 1
        cached.close()
        assert [hit.document for hit in direct.search("A")] == ["A"]


def test_a_second_process_is_refused_while_an_engine_is_open_that_only_searches(library: Path) -> None:
    script = """
import sys
from embstore import SemanticSearchEngine
from tests.fakes import CountingEncoder
SemanticSearchEngine(CountingEncoder(), path=sys.argv[1])
"""
    with SemanticSearchEngine(CountingEncoder(), path=library) as engine:
        assert engine.search("q") == []
        second = subprocess.run([sys.executable, "-c", script, str(library)], capture_output=True, text=True)
    assert LibraryLockedError.__name__ in second.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_cannot_use_the_engine_and_may_open_its_own(library: Path, tmp_path: Path) -> None:
    script = """
import os, sys
from embstore import CachedSemanticSearchEngine, errors
from tests.fakes import CountingEncoder
engine = CachedSemanticSearchEngine(CountingEncoder(), path=sys.argv[1])
engine.index_documents(["A"])
child = os.fork()
if child == 0:
    try:
        engine.search("A")
    except errors.LibraryLockedError as error:
        print(error)
    engine.close()
    with CachedSemanticSearchEngine(CountingEncoder(), path=sys.argv[2]) as own:
        print(own.index_documents(["B"]).added, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(engine.search("A")[0].document)
"""
    command = [sys.executable, "-c", script, str(library), str(tmp_path / "own")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    refused, *rest = run.stdout.splitlines()
    assert "from which this one was forked" in refused
    assert rest == ["1", "A"], run.stderr


def test_a_clients_owner_keeps_it_and_only_the_cache_is_on_the_path(library: Path, encoder: CountingEncoder) -> None:
    client: Any = chromadb.EphemeralClient()
    name = f"documents-{uuid.uuid4()}"
    with SemanticSearchEngine(encoder, path=library, client=client, collection_name=name) as engine:
        engine.index_documents(["A"])
    assert not library.exists()
    with CachedSemanticSearchEngine(encoder, path=library, client=client, collection_name=name) as engine:
        assert counts(engine.index_documents(["A", "B"])) == {"total": 2, "unchanged": 1, "added": 1, "encoded": 1}
        assert [hit.document for hit in engine.search("A", n_results=1)] == ["A"]
    assert [path.name for path in library.iterdir()] == ["embeddings.db"]
    assert client.get_collection(name, embedding_function=None).count() == 2
    client.delete_collection(name)


@pytest.mark.skipif(not CHROMA.exists(), reason="needs Chroma's program beside Python's")
def test_a_folder_that_is_served_can_be_used_by_many(library: Path, encoder: CountingEncoder) -> None:
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(["A", "B"], metadatas=[{"tags": ["x"]}, {"year": 1.0}])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(CHROMA), "run", "--path", str(library), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            clients = [http_client(port) for _ in range(2)]
            first, second = (CachedSemanticSearchEngine(encoder, path=library, client=client) for client in clients)
            report = first.index_documents(["A", "new"], metadatas=[{"tags": ["x"]}, {"year": 1}])
            assert counts(report) == {"total": 2, "unchanged": 1, "updated": 1, "encoded": 1}
            assert second.index_documents(["A", "new"], metadatas=[{"tags": ["x"]}, {"year": 1}]).unchanged == 2
            assert [(hit.document, hit.metadata) for hit in second.search("new", 1)] == [("new", {"year": 1})]
            first.close()
            second.close()
        finally:
            server.terminate()


def http_client(port: int) -> Any:
    """Connect to a server that is starting."""
    deadline = monotonic() + 30
    while True:
        try:
            return chromadb.HttpClient("127.0.0.1", port)
        except ValueError:
            if monotonic() > deadline:
                raise
            sleep(0.05)


def test_a_cache_that_cannot_be_opened_releases_the_folder(library: Path) -> None:
    (library / "embeddings.db").mkdir(parents=True)
    with pytest.raises(StorePathError):
        CachedSemanticSearchEngine(CountingEncoder(), path=library)
    assert not (library / "embstore.lock.json").exists()


# --- progress -------------------------------------------------------------------------------


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_is_shown_when_asked_for_or_on_a_terminal(
    engine: Engine, capsys: pytest.CaptureFixture[str], progress: bool | None, shown: bool
) -> None:
    engine.index_documents(["A", "B"], progress=progress)
    printed = capsys.readouterr()
    assert ("Indexing" in printed.err) is shown
    assert printed.out == ""


def test_an_index_refuses_a_model_that_was_swapped_behind_its_name_also_once_the_cache_is_cleared(
    library: Path,
) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(["text 1", "text 2"])
        engine.cache.clear()
    with CachedSemanticSearchEngine(CountingEncoder(seed=1), path=library) as engine:
        for use in (lambda: engine.search("text 1"), lambda: engine.index_documents(["text 1"])):
            with pytest.raises(ModelChangedError, match=r"the collection 'documents'.*collection_name="):
                use()
    with SemanticSearchEngine(CountingEncoder(seed=1), path=library) as engine, pytest.raises(ModelChangedError):
        engine.search("text 1")
    with SemanticSearchEngine(CountingEncoder(), path=library) as engine:
        assert engine.search("text 1")[0].document == "text 1"


def test_an_empty_index_takes_whatever_model_comes(library: Path) -> None:
    with SemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(["text 1"])
        engine.delete_documents(["doc_0"])
    with SemanticSearchEngine(CountingEncoder(seed=1), path=library) as engine:
        engine.index_documents(["text 1"])
        assert engine.search("text 1")[0].score == pytest.approx(1.0)


def test_two_threads_that_index_one_id_leave_the_document_of_the_one_that_came_last(library: Path) -> None:
    encoder = CountingEncoder()
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        reports: list[IndexReport] = []

        def index(text: str) -> None:
            reports.append(engine.index_documents([text], ids=["X"]))

        for attempt in range(5):
            reports.clear()
            threads = [threading.Thread(target=index, args=(f"version {attempt}.{i}",)) for i in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            (record,) = engine.collection.get(ids=["X"])["documents"] or ()
            assert sum(report.updated + report.added for report in reports) == 2
            assert record in {f"version {attempt}.{i}" for i in range(2)}
            assert engine.index_documents([record], ids=["X"]).unchanged == 1
