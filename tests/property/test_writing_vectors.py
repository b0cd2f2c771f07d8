"""Rows of vectors that are written many at once are those that are written one by one, for every batch there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embstore import EmbeddingCache, ModelIdentity, content_hash
from embstore.codec import Vectors
from embstore.identity import DTYPES, Dtype
from embstore.stores.base import StoredModel
from embstore.stores.tables import models, vector_writes, vectors
from tests.files import Row, connection

ALL = """
SELECT vector_id, content_hash, dim, standalone, checksum, vector
FROM vectors
ORDER BY vector_id
"""

keys = st.integers(0, 30).map(lambda i: content_hash(str(i)))
contents = st.lists(keys, max_size=20, unique=True)
Insert = Callable[..., int]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    path: Path = tmp_path_factory.mktemp("writing") / "embeddings.db"
    EmbeddingCache(path).close()
    with connection(path, "rw") as opened:
        opened.execute("PRAGMA foreign_keys = ON")
        yield opened


@given(
    calls=st.lists(st.tuples(contents, st.booleans()), min_size=1, max_size=3),
    dim=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    rows_together=st.sampled_from([1, 2, 7, 1000]),
    least_share=st.sampled_from([0.0, 0.5, 1e9]),
    seed=st.integers(0, 2**32),
)
def test_rows_written_together_are_those_written_one_by_one(
    opened: Connection,
    calls: list[tuple[list[bytes], bool]],
    dim: int,
    dtype: Dtype,
    rows_together: int,
    least_share: float,
    seed: int,
) -> None:
    identity = ModelIdentity.of("m").stored_as(dtype)
    values = np.random.default_rng(seed).standard_normal((len(calls), 20, dim), dtype=np.float32)

    def written_by(insert: Insert) -> tuple[list[int], list[Row]]:
        opened.execute("BEGIN")
        try:
            model = models.insert(opened, identity, dim, None)
            n_new = [
                insert(opened, model, some, values[i, : len(some)], standalone=standalone)
                for i, (some, standalone) in enumerate(calls)
            ]
            return n_new, opened.execute(ALL).fetchall()
        finally:
            opened.rollback()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_writes, "ROWS_TOGETHER", rows_together)
        patch.setattr(vector_writes, "LEAST_SHARE_TOGETHER", least_share)
        assert written_by(vector_writes.insert) == written_by(one_by_one)


def one_by_one(
    opened: Connection, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
) -> int:
    rows = list(vector_writes._rows(model, content_hashes, vectors, np.full(len(content_hashes), standalone)))
    return sum(opened.execute(vector_writes.INSERT, row).rowcount for row in rows)


@given(
    calls=st.lists(st.tuples(contents, st.sampled_from(["a", "b"])), max_size=4),
    removed=st.sets(keys, max_size=3),
    asked=st.lists(keys, max_size=20),
    asks_for_last=st.booleans(),
)
def test_ids_of_what_was_stored_last_are_those_that_a_search_finds(
    opened: Connection,
    calls: list[tuple[list[bytes], str]],
    removed: set[bytes],
    asked: list[bytes],
    asks_for_last: bool,
) -> None:
    opened.execute("BEGIN")
    try:
        model_of = {name: models.insert(opened, ModelIdentity.of(name), 2, None) for name in "ab"}
        for some, name in calls:
            vector_writes.insert(opened, model_of[name], some, np.ones((len(some), 2), np.float32), standalone=False)
        opened.executemany("DELETE FROM vectors WHERE content_hash = ?", [(key,) for key in removed])
        if asks_for_last and calls:
            asked = [*calls[-1][0], *asked[:2]]
        for model in model_of.values():
            found = vectors.find_new_ids(opened, model.model_id, asked)
            searched = vectors.find_ids(opened, model.model_id, asked)
            assert [found.get(key) for key in asked] == [searched.get(key) for key in asked]
    finally:
        opened.rollback()


def test_every_checksum_there_can_be_is_written_as_it_is(opened: Connection) -> None:
    """They go through JSON, whose numbers some readers make floats of."""
    checksums = [-(2**63), -(2**63) + 1, -(2**53) - 1, -1, 0, 1, 2**53 + 1, 2**63 - 1]
    read = opened.execute("SELECT value, typeof(value) FROM json_each(?) ORDER BY key", (str(checksums),)).fetchall()
    assert read == [(checksum, "integer") for checksum in checksums]
