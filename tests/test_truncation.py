"""Shorter vectors from the stored ones: by the function, by `matrix` and by `iter_matrix`."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from embstore import DamagedStoreError, DimensionError, EmbeddingCache, InvalidInputError, InvalidTypeError
from embstore.codec import Vectors
from embstore.errors import EmbstoreError
from embstore.stores import bulk
from embstore.truncation import truncated
from tests.fakes import CountingEncoder
from tests.files import change

IDS = [f"doc {i}" for i in range(10)]
TEXTS = [f"text {i}" for i in range(10)]


class Long(CountingEncoder):
    """Gives vectors that are not of length 1."""

    def vector(self, text: str) -> np.ndarray:
        return super().vector(text) * 3


@pytest.fixture
def filled(cache: EmbeddingCache) -> EmbeddingCache:
    """Ten documents of one model."""
    cache.get_many(IDS, TEXTS, Long(), batch_size=1)
    return cache


def unit(vectors: Vectors) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


# --- the function ---------------------------------------------------------------------------


def test_the_leading_values_are_scaled_to_length_1() -> None:
    vectors = np.array([[3, 4, 12], [-0.6, 0.8, 0]], dtype=np.float32)
    assert truncated(vectors, 2).tolist() == np.array([[0.6, 0.8], [-0.6, 0.8]], dtype=np.float32).tolist()


def test_one_value_is_a_sign() -> None:
    vectors = np.array([[3, 4], [-1e-45, 4], [3.4e38, 4]], dtype=np.float32)
    assert truncated(vectors, 1).tolist() == [[1.0], [-1.0], [1.0]]


def test_leading_values_that_are_all_zero_stay_zero() -> None:
    assert truncated(np.array([[0, 0, 1], [0, 1, 1]], dtype=np.float32), 2).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("value", [1e-45, 1e-38, 1e-20, 1e20, 3.4e38])
def test_the_squares_of_values_need_be_no_float32(value: float) -> None:
    vectors = np.full((2, 4), value, dtype=np.float32)
    assert truncated(vectors, 4).tolist() == [[0.5] * 4] * 2


def test_what_is_given_stays_as_it_is() -> None:
    vectors = np.array([[3, 4]], dtype=np.float32)
    vectors.flags.writeable = False
    shorter = truncated(vectors, 2)
    assert not np.shares_memory(vectors, shorter)
    assert vectors.tolist() == [[3, 4]]


def test_many_rows_are_cut_in_pieces() -> None:
    vectors = np.random.default_rng(0).standard_normal((1300, 6)).astype(np.float32)
    assert np.allclose(truncated(vectors, 3), unit(vectors[:, :3]), rtol=0, atol=1e-7)


# --- matrix and iter_matrix -----------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3, 8])
@pytest.mark.parametrize("rows_at_once", [1, 3, 10, 2048])
def test_matrix_gives_the_leading_values_of_what_is_stored(
    dim: int, rows_at_once: int, filled: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_ROWS_TRUNCATED_AT_ONCE", rows_at_once)
    filled.get_many(["same", "as before"], ["text 3", "text 1"], Long())
    for asked in (None, ["doc 7", "same", "doc 7", "as before", "doc 0"]):
        ids, whole = filled.matrix("fake", doc_ids=asked)
        shorter_ids, shorter = filled.matrix("fake", doc_ids=asked, dim=dim)
        assert shorter_ids == ids
        assert (shorter.shape, shorter.dtype, shorter.flags.c_contiguous) == ((len(ids), dim), np.float32, True)
        assert np.allclose(shorter, unit(whole[:, :dim]), rtol=0, atol=1e-7)


def test_without_dim_vectors_come_as_stored(filled: EmbeddingCache) -> None:
    assert np.array_equal(filled.matrix("fake", dim=None)[1], Long().vectors(TEXTS))
    ((_, page),) = filled.iter_matrix("fake", dim=None)
    assert np.array_equal(page, Long().vectors(TEXTS))


@pytest.mark.parametrize("batch_rows", [1, 3, 10])
def test_pages_joined_are_the_matrix(batch_rows: int, filled: EmbeddingCache) -> None:
    ids, vectors = filled.matrix("fake", dim=5)
    pages = list(filled.iter_matrix("fake", dim=5, batch_rows=batch_rows))
    assert [doc_id for page, _ in pages for doc_id in page] == ids
    assert np.concatenate([page for _, page in pages]).tobytes() == vectors.tobytes()


def test_no_documents_have_the_dim_that_is_asked_for(filled: EmbeddingCache) -> None:
    assert filled.matrix("fake", doc_ids=[], dim=3)[1].shape == (0, 3)
    assert list(filled.iter_matrix("fake", collection="none", dim=3)) == []


@pytest.mark.parametrize("read", [EmbeddingCache.matrix, EmbeddingCache.iter_matrix])
@pytest.mark.parametrize(
    ("dim", "error", "said"),
    [
        (9, DimensionError, "dim is 9, and vectors of model 'fake' have 8 values; give 1 to 8"),
        (0, InvalidInputError, "dim is 0; it must be at least 1"),
        (-1, InvalidInputError, "dim is -1; it must be at least 1"),
        (True, InvalidTypeError, "dim is bool, not int: True"),
        (3.0, InvalidTypeError, "dim is float, not int: 3.0"),
        ("3", InvalidTypeError, "dim is str, not int: '3'"),
    ],
)
def test_a_dim_that_vectors_do_not_have_is_refused_at_the_call(
    read: Any, dim: Any, error: type[EmbstoreError], said: str, filled: EmbeddingCache
) -> None:
    with pytest.raises(error) as caught:
        read(filled, "fake", dim=dim)
    assert str(caught.value) == said


def test_the_error_of_a_dim_says_whose_it_is(filled: EmbeddingCache) -> None:
    with pytest.raises(DimensionError) as caught:
        filled.matrix("fake", dim=np.int64(9))
    assert caught.value.facts == {"model_name": "fake", "dim": 9, "expected_dim": 8}


def test_damage_to_what_is_cut_off_is_found(cache_path: Any) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(IDS, TEXTS, Long(), batch_size=1)
    blob = bytearray(Long().vector("text 3").tobytes())
    blob[-1] ^= 1
    change(cache_path, "UPDATE vectors SET vector = ? WHERE vector_id = 4", bytes(blob))
    with EmbeddingCache(cache_path) as cache:
        with pytest.raises(DamagedStoreError, match="'doc 3'"):
            cache.matrix("fake", dim=2)
        with pytest.raises(DamagedStoreError, match="'doc 3'"):
            list(cache.iter_matrix("fake", dim=2))


def test_the_whole_vectors_are_never_all_in_memory(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_ROWS_TRUNCATED_AT_ONCE", 100)
    vectors = np.random.default_rng(0).standard_normal((4000, 1024)).astype(np.float32)
    ids = [f"doc {i}" for i in range(len(vectors))]
    cache.put_many(ids, ids, vectors, model_name="m")
    tracemalloc.start()
    try:
        shorter = cache.matrix("m", dim=16)[1]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(shorter, truncated(vectors, 16))
    assert peak_bytes < vectors.nbytes / 4
