"""What a cache tells of texts without encoding anything."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, content_hash
from embstore.errors import InvalidInputError, InvalidTypeError
from tests.fakes import CountingEncoder
from tests.tables import change, state


class SlowEncoder(CountingEncoder):
    """Takes a millisecond a text at least."""

    def encode(self, texts: list[str]) -> np.ndarray:
        time.sleep(0.001 * len(texts))
        return super().encode(texts)


def test_missing_lists_distinct_texts_that_are_not_stored(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get_many(["a", "b"], ["one", "two"], encoder)
    assert cache.missing(["three", "one", "four", "three"], encoder) == ["three", "four"]
    assert encoder.texts == ["one", "two"]


def test_missing_and_estimates_call_no_model_and_write_nothing(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    before = state(cache.location)
    assert cache.missing(["text"], encoder) == ["text"]
    assert cache.estimate_s(100, encoder) is None
    assert cache.missing([], encoder) == []
    assert (encoder.calls, encoder.n_canaries) == ([], 0)
    assert state(cache.location) == before


def test_an_estimate_goes_by_the_time_that_the_model_took_for_a_character(cache: EmbeddingCache) -> None:
    slow = SlowEncoder()
    report = cache.fill([f"{i}" for i in range(50)], [f"{i:010}" for i in range(50)], slow)
    assert cache.estimate_s(500, slow) == pytest.approx(report.encode_s)
    cache.fill(["x"], ["y" * 500], slow)
    estimate = cache.estimate_s(1000, slow)
    assert estimate is not None
    assert estimate > report.encode_s


def test_the_record_of_a_model_goes_with_the_model(cache: EmbeddingCache) -> None:
    slow = SlowEncoder()
    cache.get("a", "text", slow)
    cache.clear(model_name="fake")
    assert cache.estimate_s(1, slow) is None
    cache.get("a", "text", slow)
    cache.clear()
    assert cache.estimate_s(1, slow) is None


def test_a_damaged_record_is_reported_and_begun_anew(cache: EmbeddingCache) -> None:
    slow = SlowEncoder()
    cache.get("a", "text", slow)
    change(cache.location, "UPDATE encodings SET seconds = 1e9")
    assert cache.estimate_s(1, slow) is None
    assert [problem.table for problem in cache.verify()] == ["encodings"]
    cache.get("b", "other", slow)
    assert cache.verify() == []


def test_stored_vectors_are_given_by_content_in_the_order_asked_for(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get_many(["a", "b"], ["one", "two"], encoder)
    hashes = [content_hash(text) for text in ("two", "new", "one", "two")]
    found, vectors = cache.stored_vectors(hashes, encoder)
    assert found.tolist() == [True, False, True, True]
    assert (vectors[found] == encoder.vectors(["two", "one", "two"])).all()


def test_stored_vectors_of_a_model_that_is_not_stored_are_none(cache: EmbeddingCache) -> None:
    found, vectors = cache.stored_vectors([content_hash("one")], CountingEncoder(model_name="new"))
    assert found.tolist() == [False]
    assert vectors.shape == (1, 0)


def test_a_text_whose_vector_is_damaged_is_missing(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get_many(["a", "b"], ["one", "two"], encoder)
    change(cache.location, "UPDATE vectors SET vector = ? WHERE vector_id = 1", bytes(32))
    assert cache.missing(["one", "two"], encoder) == ["one"]
    cache.get("a", "one", encoder)
    assert cache.missing(["one", "two"], encoder) == []


@pytest.mark.parametrize(
    ("n_chars", "error"),
    [("x", InvalidTypeError), (None, InvalidTypeError), (True, InvalidTypeError), (-1, InvalidInputError)],
)
def test_what_is_no_number_of_characters_is_refused(
    cache: EmbeddingCache, encoder: CountingEncoder, n_chars: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="n_chars is"):
        cache.estimate_s(n_chars, encoder)


@pytest.mark.parametrize(
    ("content_hashes", "error"),
    [(None, InvalidTypeError), ("abc", InvalidTypeError), ([1], InvalidTypeError), ([b"x"], InvalidInputError)],
)
def test_what_is_no_content_hash_is_refused(
    cache: EmbeddingCache, encoder: CountingEncoder, content_hashes: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="content"):
        cache.stored_vectors(content_hashes, encoder)
