"""Batches of rows are given their vectors beside their columns, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, EncoderError, InvalidInputError, InvalidTypeError, StoreBusyError, encoders
from embstore.canary import CANARY_TEXT
from embstore.errors import ServerUnreachableError
from embstore.integrations import _batches
from embstore.integrations._batches import BatchEmbedder, EmbedReport
from tests.fakes import CountingEncoder, QueryEncoder

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")

TEXTS = ["one", "two", "one"]


@pytest.fixture
def embed(cache_path: Path, encoder: CountingEncoder) -> Iterator[BatchEmbedder]:
    """Embedders on one file, which must be sound when the test is over."""
    with BatchEmbedder(cache_path, lambda: encoder, id_column="id") as embed:
        yield embed
    with EmbeddingCache(cache_path) as cache:
        assert cache.verify() == []


def test_arrays_are_given_an_array_of_vectors(embed: BatchEmbedder, encoder: CountingEncoder) -> None:
    batch = {"id": np.array([1, 2, 3]), "text": np.array(TEXTS, dtype=object), "year": np.array([1999, 2000, 2001])}
    given = embed(batch)
    assert list(given) == ["id", "text", "year", "vector"]
    assert all(given[name] is batch[name] for name in batch)
    assert given["vector"].dtype == np.float32
    assert np.array_equal(given["vector"], encoder.vectors(TEXTS))
    assert sorted(encoder.texts) == ["one", "two"]
    assert list(batch) == ["id", "text", "year"]


def test_a_table_is_given_a_column_of_lists(embed: BatchEmbedder, encoder: CountingEncoder) -> None:
    table = pyarrow.table({"id": ["a", "b", "c"], "text": TEXTS})
    given = embed(table)
    assert given.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 8)
    assert given.column("vector").to_pylist() == encoder.vectors(TEXTS).tolist()
    assert given.drop_columns("vector").equals(table)


def test_documents_are_recorded_under_their_ids_in_their_collection(cache_path: Path, encoder: CountingEncoder) -> None:
    options: dict[str, Any] = {"text_column": "body", "id_column": "nr", "collection": "law", "model_name": "mine"}
    with BatchEmbedder(cache_path, lambda: encoder, **options) as embed:
        embed({"nr": [7, 8], "body": ["one", "two"]})
    with EmbeddingCache(cache_path) as cache:
        recorded = [(document.collection, document.doc_id, document.model_name) for document in cache.documents()]
    assert recorded == [("law", "7", "mine"), ("law", "8", "mine")]


def test_without_an_id_column_texts_have_no_id(cache_path: Path, encoder: CountingEncoder) -> None:
    with BatchEmbedder(cache_path, lambda: encoder) as embed:
        assert np.array_equal(embed({"text": TEXTS})["vector"], encoder.vectors(TEXTS))
    with EmbeddingCache(cache_path) as cache:
        assert (len(cache), cache.missing(TEXTS, encoder)) == (0, [])


def test_the_ids_alone_are_given_back_where_no_vectors_are_wanted(cache_path: Path, encoder: CountingEncoder) -> None:
    with BatchEmbedder(cache_path, lambda: encoder, id_column="id", vector_column=None) as embed:
        assert embed({"id": ["a", "b", "c"], "text": TEXTS}) == {"id": ["a", "b", "c"]}
        assert embed(pyarrow.table({"id": ["d"], "text": ["four"]})).to_pydict() == {"id": ["d"]}
    with EmbeddingCache(cache_path) as cache:
        assert sorted(document.doc_id for document in cache.documents()) == ["a", "b", "c", "d"]


def test_the_name_of_a_model_does_for_an_encoder(
    cache_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(encoders._loaded, "fake", encoder)
    with BatchEmbedder(cache_path, "fake") as embed:
        assert np.array_equal(embed({"text": TEXTS})["vector"], encoder.vectors(TEXTS))


def test_a_report_tells_what_all_batches_have_cost(embed: BatchEmbedder) -> None:
    embed({"id": ["a", "b", "c"], "text": TEXTS})
    embed({"id": ["d", "e"], "text": ["two", "three"]})
    assert embed.report == EmbedReport(5, 3, 2, embed.report.encode_s)
    assert embed.report.encode_s > 0


def test_queries_have_vectors_of_their_own(cache_path: Path) -> None:
    encoder = QueryEncoder()
    with BatchEmbedder(cache_path, lambda: encoder, role="query") as embed:
        assert np.array_equal(embed({"text": ["one"]})["vector"], encoder.vectors(["query: one"]))


@pytest.mark.parametrize("rows", [{"id": [], "text": []}, pyarrow.table({"id": [], "text": []})])
def test_no_rows_have_no_vectors_of_the_same_length(embed: BatchEmbedder, rows: Any) -> None:
    given = embed(rows)
    if isinstance(given, dict):
        assert given["vector"].shape == (0, 8)
    else:
        assert given.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 8)
        assert given.num_rows == 0


def test_nothing_is_made_before_the_first_batch_and_it_is_made_once(cache_path: Path) -> None:
    made: list[CountingEncoder] = []

    def make() -> CountingEncoder:
        made.append(CountingEncoder())
        return made[-1]

    with BatchEmbedder(cache_path, make) as embed:
        assert (made, cache_path.exists()) == ([], False)
        embed({"text": ["one"]})
        embed({"text": ["two"]})
        assert [encoder.n_canaries for encoder in made] == [1]


BAD_BATCHES: dict[str, tuple[Any, type[Exception], str]] = {
    "no text column": (
        {"id": ["a"], "body": ["one"]},
        InvalidInputError,
        "no column 'text' among 'id', 'body'; say wh",
    ),
    "no id column": ({"text": ["one"]}, InvalidInputError, "no column 'id' among 'text'; say which by id_column="),
    "null": ({"id": ["a", "b"], "text": ["one", None]}, InvalidInputError, "'text' is null in row 1 of a batch; leave"),
    "NaN": ({"id": [1], "text": np.array([np.nan], object)}, InvalidInputError, "'text' is null in row 0"),
    "null in a table": (pyarrow.table({"id": [1], "text": [None]}), InvalidInputError, "'text' is null in row 0"),
    "a number": ({"id": ["a"], "text": [5]}, InvalidTypeError, "'text' has int in row 0 of a batch: 5"),
    "no id": (
        {"id": ["a", None], "text": ["one", "two"]},
        InvalidTypeError,
        "'id' has NoneType in row 1 of a batch, n",
    ),
    "a broken id": ({"id": [1.5], "text": ["one"]}, InvalidTypeError, "'id' has float in row 0"),
    "an empty id": ({"id": [""], "text": ["one"]}, InvalidInputError, "position 0 is empty"),
    "one id for two": ({"id": ["a", "a"], "text": ["one", "two"]}, InvalidInputError, "'a' is given twice"),
    "lengths": ({"id": ["a", "b"], "text": ["one"]}, InvalidInputError, "2 doc_ids and 1 texts"),
    "vectors": ({"id": ["a"], "text": ["one"], "vector": [1]}, InvalidInputError, "column 'vector' already; name ano"),
    "a list": ([{"id": "a", "text": "one"}], InvalidTypeError, "a batch is list, not columns by name"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_batch_that_cannot_be_used_is_named_and_encodes_nothing(
    case: str, embed: BatchEmbedder, encoder: CountingEncoder
) -> None:
    batch, kind, message = BAD_BATCHES[case]
    with pytest.raises(kind, match=message):
        embed(batch)
    assert encoder.n_texts == 0


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a live encoder": ({"make_encoder": CountingEncoder()}, InvalidTypeError, "make_encoder is CountingEncoder; give"),
    "no encoder": ({"make_encoder": None}, InvalidTypeError, "make_encoder is NoneType"),
    "no vectors and no ids": ({"vector_column": None}, InvalidInputError, "say by id_column= which"),
    "role": ({"role": "title"}, InvalidInputError, "role"),
    "batch_size": ({"batch_size": 0}, InvalidInputError, "batch_size is 0"),
    "collection": ({"collection": 5}, InvalidTypeError, "collection is int"),
    "an unknown one": (
        {"dtpye": "float16"},
        InvalidTypeError,
        "neither an option here nor of EmbeddingCache: .*'dtpye'",
    ),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_an_argument_that_cannot_be_used_is_refused_at_once(case: str, cache_path: Path) -> None:
    options, kind, message = BAD_ARGUMENTS[case]
    with pytest.raises(kind, match=message):
        BatchEmbedder(**{"store": cache_path, "make_encoder": CountingEncoder, **options})
    assert not cache_path.exists()


def test_a_live_cache_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidTypeError, match="store is EmbeddingCache; give a path or a URL"):
        BatchEmbedder(cache, CountingEncoder)  # type: ignore[arg-type]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is waited between two tries, on a clock that nothing else moves."""
    slept: list[float] = []
    monkeypatch.setattr(_batches.time, "sleep", slept.append)
    monkeypatch.setattr(_batches.time, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(_batches.random, "uniform", lambda low, high: high)
    return slept


class BusyAtFirst(BatchEmbedder):
    """One whose store is busy `n_busy` times."""

    n_busy = 0

    def _open(self) -> EmbeddingCache:
        if self.n_busy:
            self.n_busy -= 1
            raise StoreBusyError("busy", path="somewhere")
        return super()._open()


def test_a_store_that_is_busy_is_asked_again(cache_path: Path, encoder: CountingEncoder, pauses: list[float]) -> None:
    with BusyAtFirst(cache_path, lambda: encoder) as embed:
        embed.n_busy = 8
        assert np.array_equal(embed({"text": TEXTS})["vector"], encoder.vectors(TEXTS))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]


def test_a_store_that_stays_away_is_given_up(cache_path: Path, encoder: CountingEncoder, pauses: list[float]) -> None:
    with BusyAtFirst(cache_path, lambda: encoder, patience_s=2) as embed:
        embed.n_busy = 1_000
        with pytest.raises(StoreBusyError):
            embed({"text": TEXTS})
    assert 1 < sum(pauses) <= 2
    assert encoder.n_texts == 0


class LosingCache(EmbeddingCache):
    """One whose store goes away `n_losses` times when a call has been encoded and is to be stored."""

    n_losses = 0

    def fill(self, *arguments: Any, **options: Any) -> Any:
        if LosingCache.n_losses:
            LosingCache.n_losses -= 1
            _, texts, encoder = arguments
            encoder.encode(texts[:2], role="document", batch_size=32)
            raise ServerUnreachableError("away", path="somewhere")
        return super().fill(*arguments, **options)


def test_what_was_encoded_when_the_server_went_away_is_not_encoded_again(
    cache_path: Path, encoder: CountingEncoder, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "EmbeddingCache", LosingCache)
    texts = ["one", "two", "three"]
    with BatchEmbedder(cache_path, lambda: encoder) as embed:
        monkeypatch.setattr(LosingCache, "n_losses", 3)
        assert np.array_equal(embed({"text": texts})["vector"], encoder.vectors(texts))
        assert len(pauses) == 3
        assert sorted(encoder.texts) == ["one", "three", "two"]
        assert embed({"text": ["one"]})["vector"].shape == (1, 8)
        with EmbeddingCache(cache_path) as cache:
            cache.clear()
        embed({"text": ["one"]})
    assert encoder.texts.count("one") == 2  # it is remembered for its batch, and no longer


def test_a_server_that_was_never_reached_is_not_waited_for(
    cache_path: Path, encoder: CountingEncoder, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ServerUnreachableError("no such host", path="somewhere")

    with BatchEmbedder(cache_path, lambda: encoder) as embed:
        monkeypatch.setattr(_batches, "EmbeddingCache", refuse)
        with pytest.raises(ServerUnreachableError, match="no such host"):
            embed({"text": TEXTS})
    assert (pauses, encoder.n_texts) == ([], 0)


def test_what_does_not_pass_is_not_tried_again(cache_path: Path, pauses: list[float]) -> None:
    def fail(texts: list[str]) -> np.ndarray:
        if texts == [CANARY_TEXT]:
            return np.ones((1, 8), np.float32)
        raise MemoryError

    with BatchEmbedder(cache_path, lambda: fail, model_name="fails") as embed, pytest.raises(EncoderError):
        embed({"text": TEXTS})
    assert pauses == []
