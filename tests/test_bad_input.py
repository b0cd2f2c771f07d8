"""Whatever is given wrongly is refused with a name and a cure, and the file stays as it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pytest

from embstore import (
    DimensionError,
    EmbeddingCache,
    EmbstoreError,
    EncoderError,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    ModelNameError,
    PrecisionError,
)
from embstore.canary import CANARY_TEXT
from tests.fakes import CountingEncoder
from tests.files import dump

ONE = np.ones((1, 8), np.float32)

Call = Callable[[EmbeddingCache, CountingEncoder], object]

# What is called, the error, and what its message must say.
CALLS: dict[str, tuple[Call, type[EmbstoreError], str]] = {
    "more ids than texts": (
        lambda cache, encoder: cache.get_many(["a", "b", "c"], ["one", "two"], encoder),
        InvalidInputError,
        "3 doc_ids and 2 texts; give one text for each id",
    ),
    "more texts than ids": (
        lambda cache, encoder: cache.get_many(iter(["a"]), iter(["one", "two"]), encoder),
        InvalidInputError,
        "1 doc_ids and 2 texts",
    ),
    "an id twice with different texts": (
        lambda cache, encoder: cache.get_many(["a", "b", "a"], ["one", "two", "three"], encoder),
        InvalidInputError,
        "doc_id 'a' is given twice with different texts",
    ),
    "an id that is None": (
        lambda cache, encoder: cache.get_many(["a", None], ["one", "two"], encoder),  # type: ignore[list-item]
        InvalidTypeError,
        "the doc_id at position 1 is NoneType, not str",
    ),
    "an id that is a number": (
        lambda cache, encoder: cache.get(5, "one", encoder),  # type: ignore[arg-type]
        InvalidTypeError,
        "the doc_id at position 0 is int, not str: 5",
    ),
    "an id that is bytes": (
        lambda cache, encoder: cache.get(b"a", "one", encoder),  # type: ignore[arg-type]
        InvalidTypeError,
        "bytes",
    ),
    "an empty id": (
        lambda cache, encoder: cache.get_many(["a", ""], ["one", "two"], encoder),
        InvalidInputError,
        "the doc_id at position 1 is empty; give each document an id",
    ),
    "an id with a lone surrogate": (
        lambda cache, encoder: cache.get("a\ud800", "one", encoder),
        InvalidInputError,
        r"doc_id 'a\ud800' holds a lone surrogate at position 1",
    ),
    "a text that is None": (
        lambda cache, encoder: cache.get_many(["a", "b"], ["one", None], encoder),  # type: ignore[list-item]
        InvalidTypeError,
        "the text at position 1 is NoneType, not str",
    ),
    "a text that is a number": (
        lambda cache, encoder: cache.embed(["one", 2], encoder),  # type: ignore[list-item]
        InvalidTypeError,
        "the text at position 1 is int, not str: 2",
    ),
    "a text that is bytes": (
        lambda cache, encoder: cache.get("a", b"one", encoder),  # type: ignore[arg-type]
        InvalidTypeError,
        "the text at position 0 is bytes",
    ),
    "a str for texts": (
        lambda cache, encoder: cache.embed("some text", encoder),
        InvalidTypeError,
        "texts is one str; give a list: ['some text']",
    ),
    "bytes for texts": (
        lambda cache, encoder: cache.embed(b"some text", encoder),  # type: ignore[arg-type]
        InvalidTypeError,
        "texts is one bytes; give a list",
    ),
    "a str for ids": (
        lambda cache, encoder: cache.get_many("a", ["one"], encoder),
        InvalidTypeError,
        "doc_ids is one str; give a list: ['a']",
    ),
    "None for texts": (
        lambda cache, encoder: cache.embed(None, encoder),  # type: ignore[arg-type]
        InvalidTypeError,
        "texts is NoneType, not a list of str",
    ),
    "a number for a query": (
        lambda cache, encoder: cache.embed_query(5, encoder),  # type: ignore[arg-type]
        InvalidTypeError,
        "texts is int",
    ),
    "no model": (
        lambda cache, encoder: cache.get("a", "one"),
        InvalidTypeError,
        "give the model that encodes the text",
    ),
    "two models": (
        lambda cache, encoder: cache.get("a", "one", encoder, embedding_model=encoder),
        InvalidTypeError,
        "give the model that encodes the text, once",
    ),
    "a model without encode": (
        lambda cache, encoder: cache.embed(["one"], object()),
        InvalidTypeError,
        "model is object, which has no encode(list[str])",
    ),
    "a model without a name": (
        lambda cache, encoder: cache.embed(["one"], CountingEncoder(model_name=None)),
        ModelNameError,
        "pass model_name='...'",
    ),
    "an empty name": (
        lambda cache, encoder: cache.embed(["one"], encoder, model_name=""),
        InvalidInputError,
        "model_name is empty",
    ),
    "a name that is no str": (
        lambda cache, encoder: cache.embed(["one"], encoder, model_name=5),  # type: ignore[arg-type]
        InvalidTypeError,
        "model_name is int, not str",
    ),
    "an unknown role": (
        lambda cache, encoder: cache.embed(["one"], encoder, role="passage"),  # type: ignore[arg-type]
        InvalidInputError,
        "role 'passage' is not one of 'document', 'query'",
    ),
    "a collection that is None": (
        lambda cache, encoder: cache.get("a", "one", encoder, collection=None),  # type: ignore[arg-type]
        InvalidTypeError,
        "collection is NoneType, not str",
    ),
    "a collection with a lone surrogate": (
        lambda cache, encoder: cache.get("a", "one", encoder, collection="\ud800"),
        InvalidInputError,
        "collection",
    ),
    "batches of nothing": (
        lambda cache, encoder: cache.embed(["one"], encoder, batch_size=0),
        InvalidInputError,
        "batch_size is 0; it must be at least 1",
    ),
    "batches of half a text": (
        lambda cache, encoder: cache.embed(["one"], encoder, batch_size=0.5),  # type: ignore[arg-type]
        InvalidTypeError,
        "batch_size is float, not int",
    ),
    "batches of True": (
        lambda cache, encoder: cache.embed(["one"], encoder, batch_size=True),
        InvalidTypeError,
        "batch_size is bool",
    ),
    "put: NaN": (
        lambda cache, encoder: cache.put_many(["a", "b"], ["1", "2"], [[1.0], [np.nan]], model_name="m"),
        InvalidInputError,
        "row 1",
    ),
    "put: infinite": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], -np.inf * ONE, model_name="m"),
        InvalidInputError,
        "NaN or infinite",
    ),
    "put: too large for float32": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], [[1e39]], model_name="m"),
        InvalidInputError,
        "row 0",
    ),
    "put: a vector too few": (
        lambda cache, encoder: cache.put_many(["a", "b"], ["1", "2"], ONE, model_name="m"),
        InvalidInputError,
        "(1, 8)",
    ),
    "put: one-dimensional": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], ONE[0], model_name="m"),
        InvalidInputError,
        "(8,)",
    ),
    "put: no columns": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], np.ones((1, 0)), model_name="m"),
        InvalidInputError,
        "(1, 0)",
    ),
    "put: ragged": (
        lambda cache, encoder: cache.put_many(["a", "b"], ["1", "2"], [[1.0], [1.0, 2.0]], model_name="m"),
        InvalidInputError,
        "vectors",
    ),
    "put: None": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], None, model_name="m"),  # type: ignore[arg-type]
        InvalidInputError,
        "vectors",
    ),
    "put: quantised": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], ONE.astype(np.int8), model_name="m"),
        InvalidInputError,
        "int8",
    ),
    "put: more ids than texts": (
        lambda cache, encoder: cache.put_many(["a", "b"], ["1"], ONE, model_name="m"),
        InvalidInputError,
        "2 doc_ids and 1 texts",
    ),
    "put: an id twice with different texts": (
        lambda cache, encoder: cache.put_many(["a", "a"], ["1", "2"], np.ones((2, 8)), model_name="m"),
        InvalidInputError,
        "'a' is given twice",
    ),
    "put: one text with two vectors": (
        lambda cache, encoder: cache.put_many(["a", "b"], ["1", "1"], [[1.0, 0.0], [0.0, 1.0]], model_name="m"),
        InvalidInputError,
        "rows 0 and 1 hold the same text with different vectors",
    ),
    "put: an object that gives no array": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], Stubborn(), model_name="m"),  # type: ignore[arg-type]
        InvalidInputError,
        "vectors",
    ),
    "put: another dimension than stored": (
        lambda cache, encoder: cache.put_many(["b"], ["more"], np.ones((1, 5)), model_name="fake"),
        DimensionError,
        "5",
    ),
    "put: another dimension than the encoder's": (
        lambda cache, encoder: cache.put_many(["b"], ["1"], np.ones((1, 5)), model=encoder, model_name="new"),
        DimensionError,
        "5",
    ),
    "put: whose?": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], ONE),
        InvalidInputError,
        "pass model= (an encoder) or model_name=",
    ),
    "put: settings of an encoder": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], ONE, model=encoder, settings={"a": 1}),
        InvalidInputError,
        "settings= goes with model_name= alone",
    ),
    "put: settings that are no scalars": (
        lambda cache, encoder: cache.put_many(["a"], ["1"], ONE, model_name="m", settings={"a": [1]}),  # type: ignore[dict-item]
        InvalidInputError,
        "model setting 'a': [1]",
    ),
}


class Stubborn:
    """What a tensor that needs a gradient does."""

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise RuntimeError("call detach() first")


@pytest.fixture
def filled(cache: EmbeddingCache, encoder: CountingEncoder) -> EmbeddingCache:
    cache.get("stored", "stored text", encoder)
    encoder.calls.clear()
    return cache


@pytest.mark.parametrize("case", CALLS)
def test_what_cannot_be_used_is_named_and_changes_nothing(
    case: str, filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    call, error, message = CALLS[case]
    before = dump(filled.path)
    with pytest.raises(error, match=re.escape(message)):
        call(filled, encoder)
    assert dump(filled.path) == before
    assert encoder.calls == []


OUTPUTS: dict[str, tuple[Callable[[np.ndarray], Any], type[EncoderError], str]] = {
    "None": (lambda vectors: None, EncoderOutputError, "NoneType"),
    "too few": (lambda vectors: vectors[:-1], EncoderOutputError, "(1, 8)"),
    "too many": (lambda vectors: np.repeat(vectors, 2, axis=0), EncoderOutputError, "(4, 8)"),
    "one-dimensional": (lambda vectors: vectors[0], EncoderOutputError, "(8,)"),
    "three-dimensional": (lambda vectors: vectors[:, None], EncoderOutputError, "(2, 1, 8)"),
    "ragged": (lambda vectors: [vectors[0], vectors[1][:-1]], EncoderOutputError, "no matrix"),
    "strings": (lambda vectors: [["x"] * 8] * 2, EncoderOutputError, "str"),
    "integers": (lambda vectors: [[1, 2, 3, 4, 5, 6, 7, 8]] * 2, PrecisionError, "int64"),
    "int8": (lambda vectors: (100 * vectors).astype(np.int8), PrecisionError, "int8"),
    "NaN": (lambda vectors: vectors * [[1], [np.nan]], EncoderOutputError, "row 1"),
    "infinite": (lambda vectors: vectors * [[np.inf], [1]], EncoderOutputError, "row 0"),
    "too large": (lambda vectors: 1e39 * vectors.astype(np.float64), EncoderOutputError, "row 0"),
}


class Spoiling(CountingEncoder):
    """Right on its canary, and wrong in some way on all else."""

    def __init__(self, spoil: Callable[[np.ndarray], Any]) -> None:
        super().__init__()
        self.spoil = spoil

    def encode(self, texts: list[str]) -> Any:
        vectors = super().encode(texts)
        return vectors if texts == [CANARY_TEXT] else self.spoil(vectors)


@pytest.mark.parametrize("case", OUTPUTS)
@pytest.mark.parametrize("known", [True, False], ids=["known model", "new model"])
def test_what_an_encoder_returns_wrongly_is_named_and_changes_nothing(
    case: str, known: bool, filled: EmbeddingCache
) -> None:
    spoil, error, message = OUTPUTS[case]
    before = dump(filled.path)
    name = "fake" if known else "new"
    with pytest.raises(error, match=re.escape(message)) as caught:
        filled.get_many(["a", "b"], ["one", "two"], Spoiling(spoil), model_name=name)
    assert repr(name) in str(caught.value)
    assert dump(filled.path) == before


@pytest.mark.parametrize("check_canary", [True, False])
def test_another_dimension_than_stored_is_named_and_changes_nothing(check_canary: bool, filled: EmbeddingCache) -> None:
    before = dump(filled.path)
    with EmbeddingCache(filled.path, check_canary=check_canary) as cache:
        with pytest.raises((DimensionError, ValueError), match="fake") as caught:
            cache.get("a", "one", CountingEncoder(dim=6))
        assert {"6", "8"} <= set(re.findall(r"\d+", str(caught.value)))
    assert dump(filled.path) == before


def test_another_dimension_than_the_canary_is_named_and_changes_nothing(filled: EmbeddingCache) -> None:
    before = dump(filled.path)
    with pytest.raises((DimensionError, EncoderError), match="new"):
        filled.get("a", "one", Spoiling(lambda vectors: vectors[:, :6]), model_name="new")
    assert dump(filled.path) == before


def test_one_bad_argument_spoils_nothing_for_the_next_call(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    for call, error, _ in CALLS.values():
        with pytest.raises(error):
            call(filled, encoder)
    assert np.array_equal(filled.get("a", "one", encoder), encoder.vector("one"))


def test_every_error_of_bad_input_is_the_builtin_that_fits_too() -> None:
    kinds = {error for _, error, _ in CALLS.values()}
    assert all(issubclass(kind, (ValueError, TypeError)) for kind in kinds)


# --- odd, and right -------------------------------------------------------------------------


class Name(str, Enum):  # noqa: UP042 - its str() is not its value, as that of a StrEnum is
    """Ids that are members of an enumeration."""

    A = "alpha"


def test_a_subclass_of_str_stands_for_its_value(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    filled.get_many([Name.A, np.str_("b")], [Name.A, np.str_("two")], encoder)
    assert sorted(encoder.texts) == ["alpha", "two"]
    assert ("alpha" in filled, Name.A in filled, "b" in filled) == (True, True, True)
    assert filled.matrix("fake", doc_ids=[Name.A])[0] == ["alpha"]


def test_the_same_id_with_the_same_text_may_be_given_twice(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert np.array_equal(filled.get_many(["a", "a"], ["one", "one"], encoder), encoder.vectors(["one", "one"]))
    assert filled.put_many(["a", "a"], ["x", "x"], np.ones((2, 8)), model_name="fake") == 1


@pytest.mark.parametrize("kind", [list, tuple, set, dict.fromkeys, np.array])
def test_any_iterable_of_str_will_do(kind: Any, filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    texts = kind(["one", "two"])
    assert np.array_equal(filled.embed(texts, encoder), encoder.vectors(list(texts)))
