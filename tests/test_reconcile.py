"""Indexes that differ from the cache and from the source, and what becomes of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, ReconcileReport, SemanticSearchEngine, content_hash
from embstore.codec import Vectors
from embstore.errors import InvalidInputError, InvalidTypeError, StoreClosedError
from embstore.search import chroma
from embstore.search import repair as repair_module
from embstore.search.base import HASH_KEY, IndexRecord
from embstore.search.comparison import compare_records, is_altered, same_direction
from tests.fakes import CountingEncoder

IDS = [f"d{i}" for i in range(20)]
TEXTS = [f"text {i}" for i in range(20)]
METADATAS: list[dict[str, Any] | None] = [{"n": i} for i in range(20)]
Engine = SemanticSearchEngine


@pytest.fixture
def engine(cached: CachedSemanticSearchEngine) -> Iterator[CachedSemanticSearchEngine]:
    """A cached engine with 20 documents whose model must not be called from now on."""
    cached.index_documents(TEXTS, IDS, METADATAS)
    cached.model.calls.clear()
    n_canaries = cached.model.n_canaries
    yield cached
    assert (cached.model.calls, cached.model.n_canaries) == ([], n_canaries)


def found(report: ReconcileReport) -> dict[str, Any]:
    """What a report has to say, without what it has not."""
    return {name: value for name, value in asdict(report).items() if value}


def vector(text: str) -> Vectors:
    return CountingEncoder().vector(text)


def put(engine: Engine, doc_id: str, text: str, vector: Vectors, content_hash_of: str | None = None) -> None:
    """Put a record into the index as something else than embstore would do it."""
    metadata: dict[str, Any] = {"n": int(doc_id[1:])}
    engine.collection.delete(ids=[doc_id])
    key = None if content_hash_of is None else content_hash(content_hash_of).hex()
    engine.collection.add(
        ids=[doc_id],
        embeddings=[vector],
        documents=[text],
        metadatas=[{**metadata, **({HASH_KEY: key} if key else {})}],
    )


def record_of(engine: Engine, doc_id: str) -> IndexRecord:
    ((record,),) = engine._index.records([doc_id])
    return record


def assert_as_indexed(engine: Engine) -> None:
    report = engine.reconcile(TEXTS, IDS, METADATAS)
    assert found(report) == {"n_records": 20}
    assert report.ok


# --- values alone ---------------------------------------------------------------------------


def record(text: str | None, key: str | None, vector: Any) -> IndexRecord:
    return IndexRecord("d", text, key, {}, None if vector is None else np.array(vector, dtype=np.float32))


RIGHT = content_hash("text").hex()


@pytest.mark.parametrize(
    ("it", "stored", "faults"),
    [
        (record("text", RIGHT, [1, 0]), [1, 0], []),
        (record("text", RIGHT, [1, 0]), [3, 0], []),
        (record("text", RIGHT, [1, 1e-6]), [1, 0], []),
        (record("text", RIGHT, [1, 1e-4]), [1, 0], ["wrong_vector"]),
        (record("text", RIGHT, [-1, 0]), [1, 0], ["wrong_vector"]),
        (record("text", RIGHT, [0, 0]), [1, 0], ["wrong_vector"]),
        (record("text", RIGHT, [0, 0]), [0, 0], []),
        (record("text", RIGHT, [1, 0, 0]), [1, 0], ["other_model"]),
        (record("text", RIGHT, None), [1, 0], []),
        (record("text", RIGHT, [1, 0]), None, ["not_cached"]),
        (record("other", RIGHT, [1, 0]), [1, 0], ["altered"]),
        (record("other", RIGHT, [0, 1]), [1, 0], ["altered", "wrong_vector"]),
        (record("other", "no hash", [0, 1]), None, ["altered", "not_cached"]),
        (record("text", None, [5, 5, 5]), None, ["foreign"]),
        (record(None, None, [5, 5, 5]), None, ["foreign"]),
        (record(None, RIGHT, [1, 0]), [1, 0], []),
    ],
)
def test_a_record_is_judged_by_its_values(it: IndexRecord, stored: Any, faults: list[str]) -> None:
    is_stored = np.array([stored is not None])
    vectors = np.array([stored or [9, 9]], dtype=np.float32)
    assert compare_records([it], is_stored, vectors, keeps_vectors=True, cuts=False) == [
        (fault, "d") for fault in faults
    ]
    without = [fault for fault in faults if fault != "not_cached"]
    assert compare_records([it], is_stored, vectors, keeps_vectors=False, cuts=False) == [
        (fault, "d") for fault in without
    ]


@pytest.mark.parametrize("length", [1, 7.3, 1e-3])
def test_a_vector_that_was_rounded_since_is_the_same_and_no_other_is(length: float) -> None:
    rng = np.random.default_rng(0)
    for dim in (2, 8, 384):
        for _ in range(100):
            a = rng.standard_normal(dim)
            a = (length * a / np.linalg.norm(a)).astype(np.float32)
            stored = a.astype(np.float16).astype(np.float32)
            for scaled in (a, a / np.linalg.norm(a)):
                assert same_direction(scaled, stored, b_was_rounded=True)
            other = a + np.float32(0.003 * length) * rng.standard_normal(dim).astype(np.float32)
            assert dim == 2 or not same_direction(other, stored, b_was_rounded=True)


def test_a_text_that_stands_for_one_with_surrogates_is_not_taken_for_altered() -> None:
    assert not is_altered(record("\ufffd alone", content_hash("\ud800 alone").hex(), [1]))
    assert is_altered(record("\ufffe alone", content_hash("\ud800 alone").hex(), [1]))


def test_directions_are_compared_and_not_lengths() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        a = rng.standard_normal(384).astype(np.float32)
        assert same_direction(a, a * np.float32(7.3))
        assert same_direction(a * np.float32(1e19), a)
        assert not same_direction(a * np.float32(1e19), np.roll(a, 1) * np.float32(1e19))
        assert not same_direction(a, a + 1e-4 * np.linalg.norm(a) * rng.standard_normal(384).astype(np.float32))


# --- without a source -----------------------------------------------------------------------


def test_a_sound_index_is_ok(engine: CachedSemanticSearchEngine) -> None:
    assert found(engine.reconcile()) == {"n_records": 20}
    assert engine.reconcile(repair=True).ok
    assert_as_indexed(engine)


def test_an_empty_index_is_ok(cached: CachedSemanticSearchEngine) -> None:
    assert found(cached.reconcile()) == {}
    assert cached.reconcile([], repair=True).ok


def test_a_wrong_vector_is_found_and_replaced(engine: CachedSemanticSearchEngine) -> None:
    put(engine, "d3", "text 3", vector("text 4"), content_hash_of="text 3")
    for _ in range(2):
        report = engine.reconcile()
        assert found(report) == {"n_records": 20, "wrong_vector": ["d3"], "left": ["d3"]}
        assert not report.ok
    repaired = engine.reconcile(repair=True)
    assert found(repaired) == {"n_records": 20, "wrong_vector": ["d3"], "repaired": 1}
    assert repaired.ok
    assert_as_indexed(engine)


def test_an_altered_text_is_believed_where_its_vector_is_stored(engine: CachedSemanticSearchEngine) -> None:
    put(engine, "d3", "text 7", vector("text 3"), content_hash_of="text 3")
    assert found(engine.reconcile()) == {"n_records": 20, "altered": ["d3"], "left": ["d3"]}
    assert found(engine.reconcile(repair=True)) == {"n_records": 20, "altered": ["d3"], "repaired": 1}
    repaired = record_of(engine, "d3")
    assert (repaired.document, repaired.content_hash) == ("text 7", content_hash("text 7").hex())
    assert repaired.vector == pytest.approx(vector("text 7"), abs=1e-6)
    assert repaired.metadata == {"n": 3}


def test_an_altered_text_without_a_vector_needs_the_model(engine: CachedSemanticSearchEngine) -> None:
    put(engine, "d3", "new", vector("text 3"), content_hash_of="text 3")
    before = record_of(engine, "d3")
    expected = {"n_records": 20, "altered": ["d3"], "needs_model": ["d3"], "left": ["d3"]}
    assert found(engine.reconcile()) == expected
    assert found(engine.reconcile(repair=True)) == expected
    assert (record_of(engine, "d3").document, before.document) == ("new", "new")


def test_texts_with_surrogates_are_ok_and_stay_so_when_they_are_repaired(cached: CachedSemanticSearchEngine) -> None:
    cached.index_documents(["\ud800 alone", "other"], ["d0", "d1"])
    assert found(cached.reconcile()) == {"n_records": 2}
    put(cached, "d0", "\ufffd alone", vector("other"), content_hash_of="\ud800 alone")
    assert cached.reconcile(repair=True).repaired == 1
    assert record_of(cached, "d0").content_hash == content_hash("\ud800 alone").hex()
    assert found(cached.reconcile(["\ud800 alone", "other"], ["d0", "d1"], [{"n": 0}, None])) == {"n_records": 2}


def test_a_record_of_another_program_is_told_apart_and_left_alone(engine: CachedSemanticSearchEngine) -> None:
    put(engine, "d99", "foreign", vector("anything"))
    before = record_of(engine, "d99")
    for repair in (False, True):
        report = engine.reconcile(TEXTS, IDS, METADATAS, repair=repair)
        assert found(report) == {"n_records": 21, "foreign": ["d99"]}
        assert report.ok
    assert repr(record_of(engine, "d99")) == repr(before)


def test_a_record_of_another_program_that_no_search_finds_is_left_as_it_is(
    engine: CachedSemanticSearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.collection.add(ids=["f"], embeddings=[vector("f")], documents=["foreign"], uris=["file:///f"])
    before = engine.collection.get(ids=["f"], include=["documents", "uris"])
    monkeypatch.setattr(chroma, "missed_ids", lambda _, doc_ids, __: [doc_id for doc_id in doc_ids if doc_id == "f"])
    report = engine.reconcile(repair=True)
    assert found(report) == {"n_records": 21, "unreachable": ["f"], "foreign": ["f"], "left": ["f"]}
    assert engine.collection.get(ids=["f"], include=["documents", "uris"]) == before


def test_what_no_index_finds_is_told_each_time(
    engine: CachedSemanticSearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (chroma, repair_module):
        monkeypatch.setattr(room, "unreachable_ids", lambda _: ["d3"])
    monkeypatch.setattr(chroma, "missed_ids", lambda _, doc_ids, __: [doc_id for doc_id in doc_ids if doc_id == "d3"])
    for _ in range(2):
        report = engine.reconcile(repair=True)
        assert found(report) == {"n_records": 20, "unreachable": ["d3"], "left": ["d3"]}
    monkeypatch.undo()
    assert_as_indexed(engine)


def test_documents_that_were_moved_aside_for_want_of_a_vector_are_left(engine: CachedSemanticSearchEngine) -> None:
    engine.cache.invalidate(["d5", "d6"])
    engine._index._failure = "failed"  # type: ignore[attr-defined]
    report = engine.reconcile(repair=True)
    assert (sorted(report.unreachable), sorted(report.needs_model)) == (sorted(IDS), ["d5", "d6"])
    assert (report.n_records, sorted(report.left), report.repaired, report.ok) == (18, ["d5", "d6"], 18, False)


def test_documents_that_were_moved_aside_and_are_of_the_source_need_the_model(library: Path) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with SemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(TEXTS, IDS, METADATAS)
        engine._index._failure = "failed"  # type: ignore[attr-defined]
        report = engine.reconcile(TEXTS, IDS, METADATAS, repair=True)
        assert sorted(report.needs_model) == sorted(report.left) == sorted(report.missing) == sorted(IDS)
        assert (report.n_records, report.repaired, report.ok) == (0, 0, False)
        assert engine.index_documents(TEXTS, IDS, METADATAS).added == 20
        assert engine.reconcile(TEXTS, IDS, METADATAS).ok


def test_a_vector_that_the_cache_does_not_have_is_told(engine: CachedSemanticSearchEngine) -> None:
    engine.cache.invalidate("d5")
    for repair in (False, True):
        report = engine.reconcile(repair=repair)
        assert found(report) == {"n_records": 20, "not_cached": ["d5"]}
        assert report.ok


def test_an_engine_without_a_cache_compares_what_it_can(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with SemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(TEXTS, IDS, METADATAS)
        put(engine, "d3", "new", vector("text 3"), content_hash_of="text 3")
        put(engine, "d4", "text 4", vector("text 9"), content_hash_of="text 4")
        report = engine.reconcile(TEXTS, IDS, METADATAS, repair=True)
        assert found(report) == {"n_records": 20, "altered": ["d3"], "needs_model": ["d3"], "left": ["d3"]}


def test_records_of_another_model_are_all_told(library: Path, encoder: CountingEncoder) -> None:
    """The settings of a live model can change."""
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    encoder.model_settings = {"prompt": "a"}  # type: ignore[attr-defined]
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(TEXTS, IDS)
        encoder.model_settings = {"prompt": "b"}  # type: ignore[attr-defined]
        report = engine.reconcile(TEXTS, IDS, repair=True)
        assert (sorted(report.other_model), sorted(report.left)) == (sorted(IDS), sorted(IDS))
        assert report.repaired == 0


def test_more_records_than_a_page_has(cached: CachedSemanticSearchEngine) -> None:
    n = 2500
    texts, ids = [f"text {i}" for i in range(n)], [f"d{i}" for i in range(n)]
    cached.index_documents(texts, ids, [{"n": i} for i in range(n)])
    for i in range(0, n, 250):
        put(cached, f"d{i}", f"text {i}", vector(f"text {i + 1}"), content_hash_of=f"text {i}")
    wrong = [f"d{i}" for i in range(0, n, 250)]
    report = cached.reconcile(repair=True)
    assert (sorted(report.wrong_vector), report.repaired, report.ok) == (sorted(wrong), 10, True)
    assert found(cached.reconcile(iter(texts), iter(ids), ({"n": i} for i in range(n)))) == {"n_records": n}


def test_texts_with_one_vector_are_all_found(cached: CachedSemanticSearchEngine) -> None:
    """Fifty records with the same vector crowd each other out of the results."""
    cached.index_documents(["same"] * 50 + TEXTS, [f"s{i}" for i in range(50)] + IDS)
    assert found(cached.reconcile()) == {"n_records": 70}


# --- against a source -----------------------------------------------------------------------


def test_every_difference_from_the_source_is_told(engine: CachedSemanticSearchEngine) -> None:
    texts, metadatas = [*TEXTS[1:], "text 0", "new"], [*METADATAS[1:], None, None]
    ids = [*IDS[1:], "d100", "d101"]
    texts[0], texts[1], metadatas[2] = "text 9", "newer", {"n": 3, "more": True}
    expected = {
        "n_records": 20,
        "missing": ["d100", "d101"],
        "outdated": ["d1", "d2"],
        "other_metadata": ["d3"],
        "extra": ["d0"],
        "needs_model": ["d101", "d2"],
        "left": ["d100", "d101", "d1", "d2", "d3", "d0"],
    }
    assert found(engine.reconcile(texts, ids, metadatas)) == expected
    assert found(engine.reconcile(texts, ids, metadatas, repair=True)) == {
        **expected,
        "n_records": 21,
        "left": ["d101", "d2", "d0"],
        "repaired": 3,
    }
    assert [record_of(engine, doc_id).document for doc_id in ("d0", "d1", "d2", "d100")] == [
        "text 0",
        "text 9",
        "text 2",
        "text 0",
    ]
    assert record_of(engine, "d3").metadata == {"n": 3, "more": True}
    report = engine.index_documents(texts, ids, metadatas, remove_missing=True)
    assert (report.added, report.updated, report.removed, report.encoded) == (1, 1, 1, 2)
    assert engine.model.calls == [["newer", "new"]]
    engine.model.calls.clear()
    assert engine.reconcile(texts, ids, metadatas).ok


def test_the_source_says_what_an_altered_text_was(engine: CachedSemanticSearchEngine) -> None:
    put(engine, "d3", "text 7", vector("text 3"), content_hash_of="text 3")
    put(engine, "d4", "never seen", vector("text 4"), content_hash_of="text 4")
    report = engine.reconcile(TEXTS, IDS, METADATAS)
    assert found(report) == {"n_records": 20, "altered": ["d3", "d4"], "left": ["d3", "d4"]}
    assert engine.reconcile(TEXTS, IDS, METADATAS, repair=True).repaired == 2
    assert_as_indexed(engine)


def test_a_record_of_another_program_under_an_id_of_the_source_is_not_destroyed(
    engine: CachedSemanticSearchEngine,
) -> None:
    put(engine, "d3", "foreign", vector("text 3"))
    report = engine.reconcile(TEXTS, IDS, METADATAS, repair=True)
    assert found(report) == {"n_records": 20, "foreign": ["d3"], "outdated": ["d3"], "left": ["d3"]}
    assert record_of(engine, "d3").document == "foreign"


def test_repeated_documents_are_compared_once(engine: CachedSemanticSearchEngine) -> None:
    assert engine.reconcile(TEXTS * 2, IDS * 2, METADATAS * 2).ok


# --- the exact index ------------------------------------------------------------------------


def test_an_exact_index_is_compared_with_its_source(library: Path, encoder: CountingEncoder) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine:
        engine.index_documents(TEXTS, IDS, METADATAS)
        assert engine.reconcile(TEXTS, IDS, METADATAS).ok
        report = engine.reconcile([*TEXTS[2:], "text 0", "new"], [*IDS[2:], "d1", "d20"], repair=True)
        assert (report.outdated, report.missing, report.extra) == (["d1"], ["d20"], ["d0"])
        assert (report.needs_model, report.left, report.repaired) == (["d20"], ["d20", "d0"], 19)
        assert engine.search("text 0", n_results=2)[0].score == pytest.approx(1)


def test_a_document_of_an_exact_index_whose_vector_is_lost_needs_the_model(
    library: Path, encoder: CountingEncoder
) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine:
        engine.index_documents(TEXTS, IDS, METADATAS)
        engine.cache.clear(collection="documents")
        for repair in (False, True):
            report = engine.reconcile(repair=repair)
            assert sorted(report.unreachable) == sorted(report.needs_model) == sorted(report.left) == sorted(IDS)
        engine.index_documents(TEXTS, IDS, METADATAS)
        assert engine.reconcile(repair=True).ok


# --- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((["a"], ["x", "y"])), InvalidInputError),
        ((("a",)), InvalidTypeError),
        (((["a", "b"], ["x", "x"])), InvalidInputError),
        (((["a"], ["x"], [{HASH_KEY: "k"}])), InvalidInputError),
        (((None, ["x"])), InvalidInputError),
    ],
)
def test_what_cannot_be_a_source_is_refused_before_anything_is_written(
    engine: CachedSemanticSearchEngine, arguments: Any, error: type[Exception]
) -> None:
    put(engine, "d3", "text 3", vector("text 4"), content_hash_of="text 3")
    with pytest.raises(error):
        engine.reconcile(*arguments, repair=True)
    assert engine.reconcile().wrong_vector == ["d3"]


def test_a_closed_engine_says_so(library: Path, encoder: CountingEncoder) -> None:
    engine = CachedSemanticSearchEngine(encoder, path=library, index="exact")
    engine.close()
    with pytest.raises(StoreClosedError):
        engine.reconcile()


def test_every_field_of_a_report_is_explained() -> None:
    assert ReconcileReport.__doc__ is not None
    for field in fields(ReconcileReport):
        assert field.name in ReconcileReport.__doc__
