"""What holds for every text, id, vector and batch that there is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embstore.formats import ABSOLUTE_ERROR, LARGEST_FLOAT16, RELATIVE_ERROR, SMALLEST_NORMAL
from tests.contract.conftest import NewCache
from tests.fakes import CountingEncoder

short_texts = st.sampled_from(["", "a", "b", "ab", "a\0", "é", "e\u0301", "🙂", "\ud800", "a" * 50])
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)


in_float16 = st.floats(-LARGEST_FLOAT16, LARGEST_FLOAT16, width=32, allow_subnormal=True) | st.floats(
    -(2.0**-13), 2.0**-13, width=32, allow_subnormal=True
)


@settings(max_examples=40)
@given(st.lists(st.lists(short_texts, max_size=12), min_size=1, max_size=4), st.integers(1, 5))
def test_any_calls_give_the_matrix_without_a_cache_and_encode_each_text_once(
    new_cache: NewCache, calls: list[list[str]], batch_size: int
) -> None:
    encoder = CountingEncoder(dim=3)
    with new_cache() as cache:
        for call in calls:
            found = cache.embed(call, encoder, batch_size=batch_size)
            assert found.tobytes() == encoder.vectors(call).tobytes()
        assert sorted(encoder.texts) == sorted({text for call in calls for text in call})
        assert all(len(call) <= batch_size for call in encoder.calls)


@settings(max_examples=40)
@given(st.dictionaries(ids, short_texts, max_size=8), st.dictionaries(ids, short_texts, max_size=8), st.data())
def test_matrix_gives_what_each_document_was_stored_with_last(
    new_cache: NewCache, first: dict[str, str], then: dict[str, str], data: st.DataObject
) -> None:
    encoder = CountingEncoder(dim=3)
    with new_cache() as cache:
        cache.embed(["there is a model"], encoder)
        for documents in (first, then):
            cache.get_many(documents, documents.values(), encoder)
        expected = first | then
        asked = data.draw(st.lists(st.sampled_from(sorted(expected)), max_size=10)) if expected else []
        found, vectors = cache.matrix("fake", doc_ids=asked)
        assert found == asked
        assert np.array_equal(vectors, encoder.vectors([expected[doc_id] for doc_id in asked]))
        every, matrix = cache.matrix("fake")
        assert sorted(every) == sorted(expected)
        assert np.array_equal(matrix, encoder.vectors([expected[doc_id] for doc_id in every]))
        for batch_rows in (1, 3):
            pages = list(cache.iter_matrix("fake", batch_rows=batch_rows))
            assert [doc_id for page, _ in pages for doc_id in page] == every


@settings(max_examples=40)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=finite))
def test_any_finite_vectors_come_back_bit_for_bit(new_cache: NewCache, vectors: np.ndarray) -> None:
    names = [f"doc {i}" for i in range(len(vectors))]
    with new_cache() as cache:
        cache.put_many(names, names, vectors, model_name="m")
        found, matrix = cache.matrix("m", doc_ids=names)
        assert (found, matrix.view(np.uint32).tolist()) == (names, vectors.view(np.uint32).tolist())


@settings(max_examples=60)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=in_float16))
def test_float16_moves_a_value_by_no_more_than_is_said(new_cache: NewCache, vectors: np.ndarray) -> None:
    names = [f"doc {i}" for i in range(len(vectors))]
    with new_cache("float16") as cache:
        cache.put_many(names, names, vectors, model_name="m")
        stored = cache.matrix("m", doc_ids=names)[1]
        magnitudes = np.abs(vectors.astype(np.float64))
        allowed = np.where(magnitudes >= SMALLEST_NORMAL, RELATIVE_ERROR * magnitudes, ABSOLUTE_ERROR)
        assert (np.abs(stored - vectors.astype(np.float64)) <= allowed).all()
        assert stored.tobytes() == vectors.astype(np.float16).astype(np.float32).tobytes()
        cache.convert("m", dtype="float32")
        cache.convert("m", dtype="float16")
        assert cache.matrix("m", doc_ids=names)[1].tobytes() == stored.tobytes()


@settings(max_examples=30)
@given(st.lists(st.tuples(ids, st.text(st.characters(codec="utf-8"), max_size=4)), min_size=1, unique=True))
def test_ids_and_collections_of_any_unicode_are_kept_apart(new_cache: NewCache, names: list[tuple[str, str]]) -> None:
    encoder = CountingEncoder(dim=2)
    with new_cache() as cache:
        for i, (doc_id, collection) in enumerate(names):
            cache.get(doc_id, f"text {i}", encoder, collection=collection)
        for i, (doc_id, collection) in enumerate(names):
            found, vectors = cache.matrix("fake", doc_ids=[doc_id], collection=collection)
            assert (found, vectors.tolist()) == ([doc_id], encoder.vectors([f"text {i}"]).tolist())
        assert {(row.doc_id, row.collection) for row in cache.documents()} == set(names)
        for doc_id, collection in names:
            assert cache.invalidate(doc_id, collection=collection) == 1
        assert len(cache) == 0
