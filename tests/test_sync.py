"""Removing what the source no longer has: at the end, never too much, never what others wrote."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, SemanticSearchEngine, TooManyRemovalsError
from embstore.errors import CollectionMismatchError, EncoderError, InvalidInputError, InvalidTypeError
from embstore.search.base import HASH_KEY
from tests.fakes import CountingEncoder

Engine = SemanticSearchEngine
Source = Callable[[Iterable[str]], Iterable[str]]


class FailingEncoder(CountingEncoder):
    """Fails on texts that hold "bad"."""

    def encode(self, texts: list[str]) -> np.ndarray:
        if any("bad" in text for text in texts):
            raise RuntimeError("out of memory")
        return super().encode(texts)


@pytest.fixture
def encoder() -> CountingEncoder:
    return FailingEncoder()


@pytest.fixture(params=[list, iter], ids=["list", "iterator"])
def source(request: pytest.FixtureRequest) -> Source:
    """Documents as a list and as an iterator."""
    given: Source = request.param
    return given


def held(engine: Engine) -> dict[str, str]:
    """What the index holds: texts by id."""
    return {record.doc_id: record.document for page in engine._index.records() for record in page}


def texts(n: int) -> list[str]:
    return [f"text {i}" for i in range(n)]


def test_documents_that_the_source_no_longer_has_are_removed(engine: Engine, source: Source) -> None:
    engine.index_documents(["A", "B", "C", "D"], ids=["a", "b", "c", "d"])
    report = engine.index_documents(
        source(["new A", "B", "E"]), ids=source(["a", "b", "e"]), remove_missing=True, max_removed=0.5
    )
    assert (report.total, report.updated, report.unchanged, report.added, report.removed) == (3, 1, 1, 1, 2)
    assert held(engine) == {"a": "new A", "b": "B", "e": "E"}


def test_nothing_is_removed_where_nobody_asks_for_it(engine: Engine, source: Source) -> None:
    engine.index_documents(["A", "B"])
    assert engine.index_documents(source(["A"])).removed == 0
    assert held(engine) == {"doc_0": "A", "doc_1": "B"}


def test_documents_of_several_windows_are_removed_together(engine: Engine, source: Source) -> None:
    engine.index_documents(texts(2500))
    report = engine.index_documents(source(texts(1300)), remove_missing=True)
    assert (report.unchanged, report.removed) == (1300, 1200)
    assert held(engine) == {f"doc_{i}": f"text {i}" for i in range(1300)}


def test_only_documents_in_scope_are_removed(engine: Engine, source: Source) -> None:
    metadatas = [{"folder": "x"}, {"folder": "x"}, {"folder": "y"}, None]
    engine.index_documents(["A", "B", "C", "D"], ids=["a", "b", "c", "d"], metadatas=metadatas)
    assert engine.plan(source(["A"]), ids=["a"], remove_missing=True, scope={"folder": "x"}).to_remove == 1
    report = engine.index_documents(
        source(["A"]), ids=["a"], metadatas=[{"folder": "x"}], remove_missing=True, scope={"folder": "x"}
    )
    assert report.removed == 1
    assert held(engine) == {"a": "A", "c": "C", "d": "D"}


def test_a_document_that_is_put_back_costs_no_model_call(
    cached: CachedSemanticSearchEngine, encoder: CountingEncoder
) -> None:
    cached.index_documents(["A", "B"])
    assert cached.index_documents(["A"], remove_missing=True).removed == 1
    report = cached.index_documents(["A", "B"], remove_missing=True)
    assert (report.added, report.encoded, report.from_cache) == (1, 0, 1)
    assert encoder.n_texts == 2


# --- never too much -------------------------------------------------------------------------


def test_a_list_that_would_remove_too_much_changes_nothing(engine: Engine, encoder: CountingEncoder) -> None:
    engine.index_documents(texts(10))
    before, n_texts = held(engine), encoder.n_texts
    with pytest.raises(TooManyRemovalsError, match="6 of the 10 in the collection") as raised:
        engine.index_documents([*texts(4), "new"], ids=[*map("doc_{}".format, range(4)), "new"], remove_missing=True)
    assert (raised.value.n_removed, raised.value.n_documents, raised.value.max_removed) == (6, 10, 0.5)
    assert "nothing was changed" in str(raised.value)
    assert (held(engine), encoder.n_texts) == (before, n_texts)


def test_an_iterator_that_would_remove_too_much_removes_nothing_and_keeps_what_it_added(engine: Engine) -> None:
    engine.index_documents(texts(10))
    before = held(engine)
    with pytest.raises(TooManyRemovalsError, match="what was indexed stays"):
        engine.index_documents(iter(["new"]), ids=["new"], remove_missing=True)
    assert held(engine) == {**before, "new": "new"}


def test_exactly_the_allowed_share_may_be_removed(engine: Engine, source: Source) -> None:
    engine.index_documents(texts(100))
    assert engine.index_documents(source(texts(71)), remove_missing=True, max_removed=0.29).removed == 29


def test_an_empty_source_removes_nothing_unless_everything_may_be(engine: Engine, source: Source) -> None:
    engine.index_documents(texts(4), metadatas=[{"folder": "x"}, *[{"folder": "y"}] * 3])
    for scope in (None, {"folder": "x"}):
        with pytest.raises(TooManyRemovalsError, match="the source has 0 documents"):
            engine.index_documents(source([]), remove_missing=True, scope=scope, max_removed=0.99)
    assert len(held(engine)) == 4
    assert engine.index_documents(source([]), remove_missing=True, scope={"folder": "x"}, max_removed=1).removed == 1
    assert engine.index_documents(source([]), remove_missing=True, scope={"folder": "x"}).removed == 0
    assert engine.index_documents(source([]), remove_missing=True, max_removed=1.0).removed == 3
    assert engine.index_documents(source([]), remove_missing=True, max_removed=0).removed == 0


def test_a_run_that_fails_removes_nothing(engine: Engine) -> None:
    engine.index_documents(texts(4))

    def interrupted() -> Iterator[str]:
        yield "text 0"
        raise OSError("unplugged")

    with pytest.raises(EncoderError):
        engine.index_documents(["text 0", "text 1", "bad"], remove_missing=True)
    with pytest.raises(OSError, match="unplugged"):
        engine.index_documents(interrupted(), remove_missing=True)
    assert len(held(engine)) == 4


# --- never what others wrote ----------------------------------------------------------------


def test_records_of_another_program_stay_and_are_logged(
    cached: CachedSemanticSearchEngine, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    cached.index_documents(["A", "B"], ids=["a", "b"])
    cached.collection.add(ids=["other"], documents=["theirs"], embeddings=[[1.0] * 8])  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, logger="embstore"):
        assert cached.plan(source(["A"]), ids=["a"], remove_missing=True).to_remove == 1
        assert cached.index_documents(source(["A"]), ids=["a"], remove_missing=True).removed == 1
    assert held(cached) == {"a": "A", "other": "theirs"}
    assert "1 records that the source does not have stay" in caplog.messages[-1]
    assert "'other'" in caplog.messages[-1]


def test_a_record_of_another_program_is_not_replaced(cached: CachedSemanticSearchEngine, source: Source) -> None:
    cached.index_documents(["A"], ids=["a"])
    cached.collection.add(ids=["other"], documents=["theirs"], embeddings=[[1.0] * 8])  # type: ignore[arg-type]
    uses: list[Callable[[], object]] = [
        lambda: cached.plan(source(["B", "mine"]), ids=["b", "other"]),
        lambda: cached.index_documents(source(["B", "mine"]), ids=["b", "other"]),
        lambda: cached.reindex_document("other", "mine"),
    ]
    for use in uses:
        with pytest.raises(CollectionMismatchError, match=r"'other' .* another program .* delete_documents"):
            use()
    assert held(cached) == {"a": "A", "other": "theirs"}
    assert cached.delete_documents(["other"]) == 1
    assert cached.index_documents(["mine"], ids=["other"]).added == 1


# --- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"scope": {"k": 1}}, InvalidInputError, "remove_missing=True"),
        ({"scope": {}, "remove_missing": True}, InvalidInputError, "scope is empty"),
        ({"scope": "k", "remove_missing": True}, InvalidTypeError, "scope is str"),
        ({"scope": {HASH_KEY: "x"}, "remove_missing": True}, InvalidInputError, "reserved key"),
        ({"scope": {"k": {"$near": 1}}, "remove_missing": True}, InvalidInputError, "near"),
        ({"max_removed": 1.5}, InvalidInputError, "max_removed is 1.5"),
        ({"max_removed": -0.1}, InvalidInputError, "max_removed is -0.1"),
        ({"max_removed": float("nan")}, InvalidInputError, "max_removed is nan"),
        ({"max_removed": True}, InvalidTypeError, "max_removed is bool"),
        ({"max_removed": "half"}, InvalidTypeError, "max_removed is str"),
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_written(
    engine: Engine, source: Source, arguments: Any, error: type[Exception], said: str
) -> None:
    engine.index_documents(["A"], metadatas=[{"k": 1}])
    with pytest.raises(error, match=said):
        engine.index_documents(source(["new"]), **arguments)
    assert held(engine) == {"doc_0": "A"}
