"""Everything is read from a server by one statement, whose rows it puts together, or row by row where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embstore import DamagedStoreError, EmbeddingCache

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

from embstore.stores.postgres import bulk, copied, spans  # noqa: E402

N, DIM = 60, 5
CONTENTS = [*range(40), *range(20, 40)]  # half of the vectors have two documents
TEXTS = [f"text {i}" for i in CONTENTS]
IDS = [f"doc {i}" for i in range(N - 3)] + ["\0", "a\1b", "ключ 🗝"]
VECTORS = np.random.default_rng(3).standard_normal((40, DIM)).astype(np.float32)[CONTENTS]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "PAGE_BYTES", 7 * 4 * DIM)
    monkeypatch.setattr(spans, "PART_BYTES", 7 * 4 * DIM)
    monkeypatch.setattr(spans.rows_at_once, "__defaults__", (7 * 4 * DIM,))


@pytest.fixture
def cache(postgres_url: str) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(postgres_url) as cache:
        cache.put_many(IDS, TEXTS, VECTORS, model_name="m", collection="first")
        cache.put_many(["own"], ["own"], np.ones((1, DIM)), model_name="m", collection="second\1")
        cache.put_many([f"same {i}" for i in range(30)], ["one"] * 30, np.ones((30, DIM)), model_name="m")
        yield cache


def everything(cache: EmbeddingCache) -> dict[str, bytes]:
    """What is read by all ways, which must be the same in the same order."""
    ids, vectors = cache.matrix("m")
    pages = list(cache.iter_matrix("m", batch_rows=13))
    assert [doc_id for page, _ in pages for doc_id in page] == ids
    assert np.concatenate([page for _, page in pages]).tobytes() == vectors.tobytes()
    assert max(len(page) for page, _ in pages) == 13
    for _, page in pages:
        page[:] = 0  # it is the caller's
    return {doc_id: vector.tobytes() for doc_id, vector in zip(ids, vectors, strict=True)}


def expected() -> dict[str, bytes]:
    one = np.ones(DIM, np.float32).tobytes()
    return {
        **{doc_id: vector.tobytes() for doc_id, vector in zip(IDS, VECTORS, strict=True)},
        "own": one,
        **{f"same {i}": one for i in range(30)},
    }


def count_blocks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    read: list[Any] = []
    copy_blocks = copied.copy_blocks

    def counted(*arguments: Any) -> Iterator[Any]:
        for block in copy_blocks(*arguments):
            read.append(block)
            yield block

    monkeypatch.setattr(bulk, "copy_blocks", counted)
    return read


def test_all_is_read_in_blocks_of_one_statement(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    read = count_blocks(monkeypatch)
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(bulk.PostgresBulk, "_read_span")  # which would read them in pages
        cache.matrix("m")
    assert sum(map(len, read)) == N + 31
    assert len(read) >= (N + 31) // 7
    assert everything(cache) == expected()
    ids, vectors = cache.matrix("m", collection="second\1")
    assert (ids, vectors.tolist()) == (["own"], [[1.0] * DIM])
    shorter = cache.matrix("m", dim=2)[1]
    assert shorter.shape == (N + 31, 2)


@pytest.mark.parametrize("refusal", [psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFunction])
def test_a_server_that_cannot_put_rows_together_gives_them_one_by_one(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, refusal: type[Exception]
) -> None:
    def refuse(*_: Any) -> Any:
        raise refusal("no")
        yield

    monkeypatch.setattr(bulk, "copy_blocks", refuse)
    monkeypatch.setattr(copied, "copy_blocks", refuse)
    assert everything(cache) == expected()


def test_what_is_too_much_for_one_answer_is_read_in_pages(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL makes no value of more than 1 GB, which many documents of one text would be."""

    def too_large(connection: Any, *_: Any) -> Any:
        yield None
        connection.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded'; END $$")

    monkeypatch.setattr(bulk, "copy_blocks", too_large)
    assert everything(cache) == expected()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE vectors SET vector = overlay(vector PLACING '\\x00'::bytea FROM 2) WHERE vector_id = {}",
        "UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = {}",
        "UPDATE documents SET checksum = checksum + 1 WHERE vector_id = {}",
        "UPDATE documents SET vector_id = 1 WHERE vector_id = {}",
        "UPDATE vectors SET vector = substr(vector, 1, 8), dim = 2 WHERE vector_id = {}",
        "DELETE FROM vectors WHERE vector_id = {}",
    ],
)
def test_a_damaged_row_is_never_returned(cache: EmbeddingCache, postgres_url: str, damage: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        ((vector_id,),) = connection.execute("SELECT vector_id FROM documents WHERE doc_id = 'doc 25'").fetchall()
        assert connection.execute(damage.format(vector_id)).rowcount >= 1
    with pytest.raises(DamagedStoreError, match="doc 25"):
        cache.matrix("m")
    with pytest.raises(DamagedStoreError, match="doc 25"):
        list(cache.iter_matrix("m", batch_rows=13))
    assert cache.matrix("m", doc_ids=["doc 3"])[1].tobytes() == VECTORS[3:4].tobytes()


def test_texts_that_are_not_as_long_as_was_said_are_not_cut() -> None:
    lengths = np.array([1, 2])
    assert copied.cut("abb", lengths) == ["a", "bb"]
    assert copied.cut("\1\1a", lengths) == ["\1", "\1a"]
    assert copied.cut("", np.array([], dtype=np.int64)) == []
    for together in ("ab", "abbb", ""):
        with pytest.raises(copied.NotTogetherError):
            copied.cut(together, lengths)
