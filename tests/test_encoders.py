"""Any object with `encode`: its name, its roles, and what it may return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embstore import (
    EncoderError,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    ModelIdentity,
    ModelNameError,
    PrecisionError,
    encoders,
)
from embstore.encoders import Encoder, NamedEncoder, as_encoder, without_surrogates
from embstore.encoders.base import checked_output
from embstore.identity import ROLES
from tests.fakes import CountingEncoder, DocumentEncoder, QueryEncoder


class Tensor:
    """What torch gives, as far as a reader of vectors sees it."""

    def __init__(self, values: np.ndarray, device: str = "cuda") -> None:
        self.values = values
        self.device = device

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return Tensor(self.values, "cpu")

    def float(self) -> Tensor:
        return Tensor(self.values.astype(np.float32), self.device)

    def is_floating_point(self) -> bool:
        return self.values.dtype.kind == "f"

    def numpy(self) -> np.ndarray:
        assert self.device == "cpu"
        return self.values


def with_settings(**settings: Any) -> CountingEncoder:
    encoder = CountingEncoder()
    encoder.model_settings = settings  # type: ignore[attr-defined]
    return encoder


# --- who it is ------------------------------------------------------------------------------


def test_an_object_with_encode_is_an_encoder() -> None:
    assert isinstance(CountingEncoder(), Encoder)
    assert as_encoder(CountingEncoder()).identity("document") == ModelIdentity("fake")


def test_a_name_that_is_given_comes_before_the_objects_own() -> None:
    assert as_encoder(CountingEncoder(), "given").identity("document") == ModelIdentity("given")


@pytest.mark.parametrize("name", [None, 5, b"name"])
def test_an_object_without_a_usable_name_says_how_to_give_one(name: Any) -> None:
    encoder = CountingEncoder(model_name=None)
    encoder.model_name = name
    with pytest.raises(ModelNameError, match=r"CountingEncoder.*model_name='...'"):
        as_encoder(encoder).identity("document")


def test_an_empty_name_is_refused_and_not_replaced_by_the_objects_own() -> None:
    with pytest.raises(InvalidInputError, match="model_name is empty"):
        as_encoder(CountingEncoder(), "").identity("document")


@pytest.mark.parametrize("model", [None, 5, object(), {"encode": 1}, dict])
def test_what_has_no_encode_is_refused(model: Any) -> None:
    with pytest.raises(InvalidTypeError, match=type(model).__name__):
        as_encoder(model)


def test_a_function_is_an_encoder_and_needs_a_name() -> None:
    fake = CountingEncoder()
    named = as_encoder(lambda texts: fake.vectors(texts).tolist(), "function")
    assert {named.identity(role) for role in ROLES} == {ModelIdentity("function")}
    assert np.array_equal(named.encode(["a", "b"], role="query", batch_size=1), fake.vectors(["a", "b"]))
    with pytest.raises(ModelNameError, match=r"model_name='\.\.\.'"):
        as_encoder(fake.vectors).identity("document")


def test_an_object_with_encode_is_not_called_even_where_it_can_be() -> None:
    class Callable(CountingEncoder):
        def __call__(self, texts: list[str]) -> np.ndarray:
            raise AssertionError

    fake = Callable()
    assert np.array_equal(as_encoder(fake).encode(["a"], role="document", batch_size=1), fake.vectors(["a"]))


def test_a_named_encoder_stays_what_it_is_and_can_be_given_another_name() -> None:
    named = as_encoder(CountingEncoder())
    assert as_encoder(named) is named
    assert as_encoder(named, "other").identity("document") == ModelIdentity("other")


@pytest.mark.parametrize("values", [(1, 1.0, True), (True, 1.0, 1), (0, False, 0.0, -0.0)])
def test_settings_that_compare_equal_are_different_identities_of_live_objects(values: tuple[Any, ...]) -> None:
    identities = [as_encoder(with_settings(v=value)).identity("document") for value in values]
    assert identities == [ModelIdentity.of("fake", {"v": value}) for value in values]


def test_settings_are_read_anew_from_the_live_object() -> None:
    encoder = with_settings(revision="a")
    named = as_encoder(encoder)
    before = named.identity("document")
    encoder.model_settings["revision"] = "b"  # type: ignore[attr-defined]
    assert (before, named.identity("document")) == (
        ModelIdentity.of("fake", {"revision": "a"}),
        ModelIdentity.of("fake", {"revision": "b"}),
    )


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"bytes", float("nan")])
def test_a_setting_that_cannot_be_part_of_an_identity_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="'odd'"):
        as_encoder(with_settings(odd=value)).identity("document")


# --- roles ----------------------------------------------------------------------------------


def test_a_query_has_an_identity_of_its_own_where_the_object_encodes_queries_otherwise() -> None:
    assert as_encoder(QueryEncoder()).identity("query") == ModelIdentity.of("fake", role="query")
    assert as_encoder(CountingEncoder()).identity("query") == ModelIdentity("fake")
    assert as_encoder(QueryEncoder()).identity("document") == ModelIdentity("fake")


@pytest.mark.parametrize("kind", [CountingEncoder, QueryEncoder, DocumentEncoder])
def test_roles_that_share_an_identity_share_their_vectors(kind: type[CountingEncoder]) -> None:
    named = as_encoder(kind())
    document, query = (named.encode(["text"], role=role, batch_size=1) for role in ROLES)
    same = named.identity("document") == named.identity("query")
    assert np.array_equal(document, query) == same


def test_a_role_among_an_objects_settings_does_not_hide_its_queries() -> None:
    encoder = QueryEncoder()
    encoder.model_settings = {"role": "mine"}  # type: ignore[attr-defined]
    named = as_encoder(encoder)
    try:
        identities = {named.identity("document"), named.identity("query")}
    except InvalidInputError:
        return  # to refuse it is as good
    assert len(identities) == 2


# --- what it is given and gives -------------------------------------------------------------


def test_a_plain_encoder_is_never_given_more_than_a_batch() -> None:
    encoder = CountingEncoder()
    texts = [f"text {i}" for i in range(10)]
    vectors = as_encoder(encoder).encode(texts, role="document", batch_size=4)
    assert encoder.calls == [texts[:4], texts[4:8], texts[8:]]
    assert np.array_equal(vectors, encoder.vectors(texts))


def test_other_encoders_than_sentence_transformers_get_surrogates_as_they_are() -> None:
    encoder = CountingEncoder()
    as_encoder(encoder).encode(["a\ud800"], role="document", batch_size=1)
    assert encoder.texts == ["a\ud800"]


GOOD: dict[str, Callable[[np.ndarray], Any]] = {
    "float32": lambda vectors: vectors,
    "float64": lambda vectors: vectors.astype(np.float64),
    "float16": lambda vectors: vectors.astype(np.float16),
    "big-endian": lambda vectors: vectors.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "read-only": lambda vectors: np.frombuffer(vectors.tobytes(), np.float32).reshape(vectors.shape),
    "lists of floats": lambda vectors: vectors.tolist(),
    "tuple of arrays": tuple,
    "tensor on a device": Tensor,
    "list of tensors": lambda vectors: [Tensor(vector) for vector in vectors],
}


@pytest.mark.parametrize("kind", GOOD)
def test_float_vectors_of_any_kind_are_taken(kind: str) -> None:
    vectors = np.array([[0.5, -0.25], [0.0, 1.0]], np.float32)  # exact in float16
    taken = checked_output(GOOD[kind](vectors), n_texts=2, model_name="fake")
    assert (taken.dtype, taken.tolist(), taken.flags.c_contiguous) == (np.dtype("<f4"), vectors.tolist(), True)


BAD: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "None": (lambda vectors: None, "NoneType"),
    "one row too few": (lambda vectors: vectors[:-1], r"shape \(1, 4\)"),
    "one row too many": (lambda vectors: np.concatenate([vectors, vectors[:1]]), r"shape \(3, 4\)"),
    "no rows": (lambda vectors: vectors[:0], r"shape \(0, 4\)"),
    "no columns": (lambda vectors: vectors[:, :0], r"shape \(2, 0\)"),
    "one vector": (lambda vectors: vectors[0], r"shape \(4,\)"),
    "three axes": (lambda vectors: vectors[None], r"shape \(1, 2, 4\)"),
    "a number": (lambda vectors: 0.5, r"shape \(\)"),
    "ragged lists": (lambda vectors: [[0.1, 0.2], [0.3]], "no matrix"),
    "rows of None": (lambda vectors: [None, None], "list of dtype object"),
    "strings": (lambda vectors: [["a", "b"]] * 2, "list of dtype str"),
    "a generator": (lambda vectors: (row for row in vectors), "generator of dtype object"),
    "a dict": (lambda vectors: {"vectors": vectors}, "dict of dtype object"),
    "complex": (lambda vectors: vectors.astype(np.complex64), "dtype complex64"),
    "NaN": (lambda vectors: vectors * np.array([[1], [np.nan]]), "NaN or infinite values in row 1"),
    "infinite": (lambda vectors: vectors * np.array([[1], [np.inf]]), "NaN or infinite values in row 1"),
    "too large for float32": (lambda vectors: np.float64(1e39) * vectors, "infinite values in row 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_one_finite_float_vector_a_text_is_refused_with_what_it_is(kind: str) -> None:
    make, message = BAD[kind]
    with pytest.raises(EncoderOutputError, match=rf"model 'fake' was given 2 texts.*{message}.*\(2, dim\)"):
        checked_output(make(np.ones((2, 4), np.float32)), n_texts=2, model_name="fake")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("wrap", [np.asarray, Tensor, np.ndarray.tolist], ids=["array", "tensor", "lists"])
def test_quantised_vectors_are_refused_because_their_values_depend_on_the_batch(
    dtype: Any, wrap: Callable[[np.ndarray], Any]
) -> None:
    with pytest.raises(PrecisionError, match="precision='float32'"):
        checked_output(wrap(np.ones((2, 4), dtype)), n_texts=2, model_name="fake")


def test_what_an_encoder_raises_is_the_cause_of_an_error_that_names_model_and_text() -> None:
    class Broken(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            raise ZeroDivisionError("inside")

    with pytest.raises(EncoderError, match=r"'fake' raised ZeroDivisionError.*'text'.*inside") as caught:
        as_encoder(Broken()).encode(["text"], role="document", batch_size=1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_program_is_passed_on(stop: type[BaseException]) -> None:
    class Stopped(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            raise stop

    with pytest.raises(stop):
        as_encoder(Stopped()).encode(["text"], role="document", batch_size=1)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_given_shares_no_memory_with_what_the_encoder_returned(batch_size: int) -> None:
    class Buffered(CountingEncoder):
        buffer = np.empty((3, 8), np.float32)

        def encode(self, texts: list[str]) -> np.ndarray:
            self.buffer[: len(texts)] = super().encode(texts)
            return self.buffer[: len(texts)]

    encoder = Buffered()
    texts = ["a", "b", "c"]
    vectors = as_encoder(encoder).encode(texts, role="document", batch_size=batch_size)
    encoder.buffer[:] = np.nan
    assert np.array_equal(vectors, encoder.vectors(texts))


def test_batches_of_different_dimensions_are_refused() -> None:
    class Shrinking(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            return super().encode(texts)[:, len(self.calls) :]

    with pytest.raises((EncoderOutputError, InvalidInputError), match="fake"):
        as_encoder(Shrinking()).encode(["a", "b"], role="document", batch_size=1)


def test_a_model_given_by_name_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from embstore.encoders import sentence_transformer

    loaded: list[str] = []
    monkeypatch.setattr(encoders, "_loaded", {})
    monkeypatch.setattr(sentence_transformer, "load", lambda name: loaded.append(name) or CountingEncoder())
    first, second = as_encoder("some model"), as_encoder("some model")
    assert isinstance(first, NamedEncoder)
    assert first.model is second.model
    assert loaded == ["some model"]


def test_surrogates_alone_are_replaced_and_nothing_else() -> None:
    assert without_surrogates("a\ud800b\udfff🙂é\0") == "a\ufffdb\ufffd🙂é\0"
    text = "🙂é"
    assert without_surrogates(text) is text
