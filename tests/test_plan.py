"""What a re-index would do: decided without an index, told by an engine, and done to the letter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from embstore import CachedSemanticSearchEngine, IndexPlan, IndexReport, SemanticSearchEngine, content_hash
from embstore.errors import CollectionMismatchError, InvalidInputError, StoreClosedError
from embstore.search.base import Document, Metadata, MetadataPatch, StoredDocument
from embstore.search.plan import Plan, make_plan, metadata_patch
from tests.fakes import CountingEncoder
from tests.files import dump


def document(doc_id: str, text: str = "text", **metadata: str | int) -> Document:
    return Document(doc_id, text, dict(metadata))


def stored(text: str = "text", **metadata: str | int) -> StoredDocument:
    return StoredDocument(content_hash(text).hex(), dict(metadata))


def test_an_id_that_is_not_stored_is_added() -> None:
    assert make_plan([document("a")], {}) == Plan(added=[document("a")])


def test_another_text_is_an_update_whatever_the_metadata() -> None:
    new = document("a", "new", year=2)
    assert make_plan([new], {"a": stored("old", year=1)}) == Plan(updated=[new])


def test_other_metadata_is_a_patch() -> None:
    plan = make_plan([document("a", year=2, kind="x")], {"a": stored(year=1, place="here", kind="x")})
    assert plan == Plan(metadata_patches={"a": {"year": 2, "place": None}})


def test_the_same_text_and_metadata_are_unchanged() -> None:
    assert make_plan([document("a", year=1)], {"a": stored(year=1)}) == Plan()


def test_a_record_that_lost_a_part_is_updated() -> None:
    assert make_plan([document("a")], {"a": StoredDocument("", {})}) == Plan(updated=[document("a")])


def test_a_record_of_another_program_is_told_apart() -> None:
    assert make_plan([document("a")], {"a": StoredDocument(None, {})}) == Plan(foreign=["a"])


def test_documents_keep_the_order_they_were_given_in() -> None:
    given = [document("b"), document("d", "new"), document("a"), document("c", "new")]
    plan = make_plan(given, {"c": stored(), "d": stored()})
    assert plan == Plan(added=[document("b"), document("a")], updated=[document("d", "new"), document("c", "new")])


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"k": 1}, {"k": 1}, {}),
        ({"k": 1}, {"k": 1.0}, {"k": 1.0}),
        ({"k": 1}, {"k": True}, {"k": True}),
        ({"k": 0.0}, {"k": False}, {"k": False}),
        ({"k": [1, 2]}, {"k": [1, 2]}, {}),
        ({"k": [1, 2]}, {"k": [2, 1]}, {"k": [2, 1]}),
        ({"k": [1, 2]}, {"k": [1.0, 2.0]}, {"k": [1.0, 2.0]}),
        ({"k": [1, 0]}, {"k": [True, False]}, {"k": [True, False]}),
        ({"k": ["a"]}, {"k": "a"}, {"k": "a"}),
        ({"kept": "a", "gone": 1}, {"kept": "a", "new": 2}, {"gone": None, "new": 2}),
    ],
)
def test_a_patch_holds_what_differs_in_value_or_type(old: Metadata, new: Metadata, patch: MetadataPatch) -> None:
    assert metadata_patch(old, new) == patch


# --- told by an engine ----------------------------------------------------------------------


NOTHING = IndexPlan(
    total=0,
    new=0,
    changed=0,
    metadata_only=0,
    unchanged=0,
    duplicates=0,
    to_remove=0,
    to_encode=0,
    estimated_s=0.0,
)


def told(report: IndexReport) -> tuple[int, ...]:
    """The counts of a report, as `planned` gives those of a plan."""
    documents = (report.added, report.updated, report.metadata_updated, report.unchanged)
    return (report.total, *documents, report.removed, report.encoded)


def planned(plan: IndexPlan) -> tuple[int, ...]:
    documents = (plan.new, plan.changed, plan.metadata_only, plan.unchanged)
    return (plan.total, *documents, plan.to_remove, plan.to_encode)


def test_a_plan_counts_documents_by_what_would_be_done(engine: SemanticSearchEngine) -> None:
    engine.index_documents(["A", "B", "C", "D"], ids=["a", "b", "c", "d"], metadatas=[{"k": 1}] * 4)
    plan = engine.plan(
        ["A", "B", "new C", "E", "E", "E"],
        ids=["a", "b", "c", "e", "e", "f"],
        metadatas=[{"k": 1}, {"k": 2}, {"k": 1}, None, None, None],
        remove_missing=True,
    )
    assert replace(plan, estimated_s=None) == IndexPlan(
        total=6,
        new=2,
        changed=1,
        metadata_only=1,
        unchanged=2,
        duplicates=2,
        to_remove=1,
        to_encode=2,
        estimated_s=None,
    )


def test_no_documents_are_a_plan_of_nothing(engine: SemanticSearchEngine) -> None:
    assert engine.plan([]) == engine.plan(iter([]), remove_missing=True) == NOTHING


def test_a_plan_writes_nothing_and_calls_no_model(
    engine: SemanticSearchEngine, library: Path, encoder: CountingEncoder
) -> None:
    def state() -> list[object]:
        rows = dump(library / "embeddings.db") if (library / "embeddings.db").exists() else {}
        records = [(*vars(record).values(),) for page in engine._index.records() for record in page]
        return [rows, sorted(map(repr, records)), len(encoder.calls), encoder.n_canaries]

    engine.index_documents(["A", "B", "C"], metadatas=[{"k": 1}] * 3)
    before = state()
    plan = engine.plan(["A", "new", "C"], ["doc_0", "doc_1", "x"], [{"k": 2}, None, None], remove_missing=True)
    assert (plan.metadata_only, plan.changed, plan.new, plan.to_remove) == (1, 1, 1, 1)
    assert state() == before


def test_a_plan_does_not_ask_a_new_model_for_its_canary(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        engine.index_documents(["A"])
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        assert engine.plan(["A", "B"]).to_encode == 1
    assert (encoder.calls, encoder.n_canaries) == ([], 0)


def test_what_is_done_is_what_was_planned(engine: SemanticSearchEngine) -> None:
    random = Random(7)
    for _ in range(40):
        n = random.randrange(12)
        ids = [f"{i}" for i in random.sample(range(16), n)]
        texts = [f"text {random.randrange(20)}" for _ in range(n)]
        metadatas = [random.choice([None, {"k": 1}, {"k": True}, {"k": [1.0]}]) for _ in range(n)]
        remove_missing = random.random() < 0.3
        given: Any = (texts + texts[:2], ids + ids[:2], metadatas + metadatas[:2])
        plan = engine.plan(*given, remove_missing=remove_missing)
        report = engine.index_documents(*given, remove_missing=remove_missing, max_removed=1.0)
        assert told(report) == planned(plan)
        assert planned(engine.plan(*given))[1:4] == (0, 0, 0)


def test_a_text_that_is_new_in_two_windows_is_planned_and_done_alike(
    engine: SemanticSearchEngine, encoder: CountingEncoder
) -> None:
    texts = ["same", *(f"text {i % 10}" for i in range(1500)), "same"]
    plan = engine.plan(iter(texts))
    report = engine.index_documents(iter(texts))
    assert told(report) == planned(plan)
    assert plan.to_encode == encoder.n_texts
    assert plan.duplicates == len(texts) - 11
    if isinstance(engine, CachedSemanticSearchEngine):
        assert plan.to_encode == 11


def test_a_text_that_the_cache_has_is_not_to_be_encoded(cached: CachedSemanticSearchEngine) -> None:
    cached.index_documents(["A", "B"])
    cached.delete_documents(["doc_0", "doc_1"])
    plan = cached.plan(["B", "A", "C"])
    assert (plan.new, plan.to_encode) == (3, 1)


def test_the_time_is_told_by_the_speed_that_the_model_had_before(cached: CachedSemanticSearchEngine) -> None:
    assert cached.plan(["text"]).estimated_s is None
    cached.index_documents(["text " * 100])
    short, long = cached.plan(["x" * 10]), cached.plan(["x" * 1000])
    assert short.estimated_s is not None
    assert long.estimated_s == pytest.approx(100 * short.estimated_s)
    assert cached.plan(["text " * 100]).estimated_s == 0.0


def test_the_time_is_not_known_without_a_cache(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with SemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(["A"])
        assert engine.plan(["A"]).estimated_s == 0.0
        assert engine.plan(["B"]).estimated_s is None


def test_a_plan_refuses_what_indexing_refuses(engine: SemanticSearchEngine, encoder: CountingEncoder) -> None:
    with pytest.raises(InvalidInputError, match="twice"):
        engine.plan(["A", "B"], ids=["twice", "twice"])
    with pytest.raises(InvalidInputError, match="scope"):
        engine.plan(["A"], scope={"k": 1})
    engine.model.model_settings = {"max_seq_length": 8}
    with pytest.raises(CollectionMismatchError, match="max_seq_length"):
        engine.plan(["A"])
    engine.close()
    with pytest.raises(StoreClosedError):
        engine.plan(["A"])
    assert encoder.calls == []
