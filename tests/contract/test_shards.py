"""Several readers share out a bulk read of a store: each document comes to one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embstore import AsyncEmbeddingCache, EmbeddingCache, InvalidInputError, InvalidTypeError
from embstore.stores import shards
from tests.contract.conftest import NewCache
from tests.contract.test_properties import ids, short_texts
from tests.fakes import CountingEncoder

N = 5_000
IDS = [f"doc {i:04}" for i in range(N)]


def share(cache: EmbeddingCache, i: int, n: int, **options: Any) -> tuple[list[str], np.ndarray]:
    """One share of all documents, its pages joined."""
    pages = list(cache.iter_matrix("fake", shard=(i, n), **options))
    assert all(0 < len(doc_ids) == len(vectors) <= options.get("batch_rows", 8192) for doc_ids, vectors in pages)
    doc_ids = [doc_id for page, _ in pages for doc_id in page]
    return doc_ids, np.concatenate([vectors for _, vectors in pages]) if pages else np.empty((0, 8), np.float32)


@pytest.fixture
def filled(cache: EmbeddingCache, encoder: CountingEncoder) -> EmbeddingCache:
    cache.put_many(IDS, IDS, encoder.vectors(IDS), model=encoder)
    return cache


@settings(max_examples=25)
@given(
    st.lists(st.dictionaries(ids, short_texts, max_size=8), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([None, "0", "1"]),
)
def test_shares_hold_each_document_once_with_its_vector(
    new_cache: NewCache,
    collections: list[dict[str, str]],
    n: int,
    block_rows: int,
    batch_rows: int,
    collection: str | None,
) -> None:
    encoder = CountingEncoder()
    with new_cache() as cache, mock.patch.object(shards, "BLOCK_ROWS", block_rows):
        cache.embed(["there is a model"], encoder)
        for name, documents in enumerate(collections):
            cache.get_many(documents, documents.values(), encoder, collection=str(name))
        shares = [share(cache, i, n, batch_rows=batch_rows, collection=collection) for i in range(n)]
        doc_ids, vectors = cache.matrix("fake", collection=collection)
        row_bytes = Counter(zip(doc_ids, map(bytes, vectors), strict=True))
        assert row_bytes == sum((Counter(zip(some, map(bytes, rows), strict=True)) for some, rows in shares), Counter())


@pytest.mark.parametrize("n", [2, 3, 4])
def test_shares_are_about_as_large_and_in_the_order_stored(n: int, filled: EmbeddingCache) -> None:
    shares = [share(filled, i, n, batch_rows=300)[0] for i in range(n)]
    assert all(first < second for some in shares for first, second in pairwise(some))
    assert sorted(doc_id for some in shares for doc_id in some) == IDS
    assert max(map(len, shares)) - min(map(len, shares)) <= shards.BLOCK_ROWS


def test_a_share_reads_neighbours_together(filled: EmbeddingCache) -> None:
    places = [IDS.index(doc_id) for doc_id in share(filled, 1, 3)[0]]
    n_breaks = sum(second != first + 1 for first, second in pairwise(places))
    assert n_breaks <= N / shards.BLOCK_ROWS / 3


def test_readers_that_begin_at_different_moments_agree_on_who_reads_what(
    filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    first, _ = share(filled, 0, 3)
    filled.invalidate(IDS[: N // 3])
    filled.prune()
    new = [f"new {i}" for i in range(N // 2)]
    filled.put_many(new, new, encoder.vectors(new), model=encoder)
    others = [doc_id for i in (1, 2) for doc_id in share(filled, i, 3)[0]]
    assert not set(first) & set(others)
    assert set(IDS[N // 3 :]) <= {*first, *others}


def test_a_share_of_truncated_vectors_is_that_of_whole_ones(filled: EmbeddingCache) -> None:
    doc_ids, vectors = share(filled, 1, 2, dim=3)
    assert doc_ids == share(filled, 1, 2)[0]
    assert vectors.tolist() == filled.matrix("fake", doc_ids=doc_ids, dim=3)[1].tolist()


def test_the_only_share_is_the_whole(filled: EmbeddingCache) -> None:
    pages = list(filled.iter_matrix("fake", shard=(0, 1)))
    assert [doc_id for page, _ in pages for doc_id in page] == IDS


def test_shares_come_by_async_for(filled: EmbeddingCache) -> None:
    async def main() -> list[list[str]]:
        async with AsyncEmbeddingCache(filled) as cache:
            return [[d async for page, _ in cache.iter_matrix("fake", shard=(i, 2)) for d in page] for i in (0, 1)]

    assert asyncio.run(main()) == [share(filled, i, 2)[0] for i in (0, 1)]


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "beyond the last": ((2, 2), InvalidInputError, r"\(2, 2\); of 2 shares the first is \(0, 2\), the last \(1, 2\)"),
    "before the first": ((-1, 2), InvalidInputError, "number of the share is -1; it must be at least 0"),
    "of no shares": ((0, 0), InvalidInputError, "number of shares is 0; it must be at least 1"),
    "one number": (1, InvalidTypeError, "shard is int, not a tuple of two int: 1"),
    "a str": ("01", InvalidTypeError, "shard is str"),
    "three numbers": ((0, 1, 2), InvalidInputError, "shard has 3 values, not 2"),
    "a half": ((0.5, 2), InvalidTypeError, "number of the share is float"),
    "true": ((True, 2), InvalidTypeError, "number of the share is bool"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_share_is_refused_before_the_first_page(
    case: str, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    shard, error, message = BAD[case]
    with pytest.raises(error, match=message):
        cache.iter_matrix("fake", shard=shard)


def test_numpys_integers_are_integers(filled: EmbeddingCache) -> None:
    shard: Any = np.array([1, 2])
    with pytest.raises(InvalidTypeError):
        filled.iter_matrix("fake", shard=shard)
    assert share(filled, *(np.int64(value) for value in (1, 2)))[0] == share(filled, 1, 2)[0]  # type: ignore[arg-type]
