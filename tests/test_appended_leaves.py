"""Leaves that are copied before they are looked at: what is in another form is found afterwards, and read otherwise."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embstore import EmbeddingCache, content_hash
from embstore.checksums import content_sums, is_content
from embstore.stores.btrees import tables
from embstore.stores.btrees.appended import FLAG, KEY, LONG_INTEGER, AppendedLeaf, Value
from embstore.stores.btrees.pager import Pager, open_pager
from embstore.stores.tables import other_leaves, vector_pages, vector_rows
from embstore.stores.tables.vector_leaves import Leaves
from tests.fakes import CountingEncoder
from tests.files import change
from tests.test_btrees import pytestmark as needs_descriptors
from tests.test_btrees import reading, vector_ids

HASH = bytes(range(32))


class File(Pager):
    """The pages of a file that nobody writes to."""

    def __init__(self, path: Path) -> None:
        self._data = np.fromfile(path, np.uint8)
        told = int.from_bytes(self._data[16:18].tobytes(), "big")
        self.page_bytes = 65536 if told == 1 else told
        self.n_pages = len(self._data) // self.page_bytes

    def read(self, numbers: np.ndarray, into: np.ndarray) -> None:
        into[:] = self._data.reshape(self.n_pages, -1)[numbers - 1]


def write(path: Path, page_bytes: int, rows: list[tuple[int, int, bytes, int, int, int, bytes]]) -> tuple[Pager, int]:
    """Append rows to a table; give its pages, and which it begins at."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, model, hash, dim, flag, checksum, vector)")
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master").fetchone()
    return File(path), root


def form_of(page_bytes: int, key: int, model: int, dim: int, n_bytes: int) -> AppendedLeaf:
    key_bytes = max(1, -(-key.bit_length() // 7))
    start = (KEY, Value.integer(model), Value.blob(32), Value.integer(dim), FLAG, LONG_INTEGER)
    form = AppendedLeaf(page_bytes, key_bytes, start, n_bytes)
    assert form.lowest_key <= key <= form.highest_key
    return form


numbers = st.sampled_from([0, 1, 2, 127, 128, 255, 32767, 32768, 2**23 - 1, 2**23, 2**31 - 1, 2**31, 2**47 - 1, 2**47])


@given(
    page_bytes=st.sampled_from([512, 4096, 65536]),
    first_key=st.sampled_from([1, 100, 128, 16300, 16384, 2**21 - 50, 2**21, 2**28, 2**34]),
    model=numbers,
    dim=numbers,
    n_bytes=st.sampled_from([4, 60, 64, 200, 1536]),
    n_rows=st.integers(1, 400),
    seed=st.integers(0, 9),
)
def test_full_leaves_are_recognised_and_no_others(
    page_bytes: int,
    first_key: int,
    model: int,
    dim: int,
    n_bytes: int,
    n_rows: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    random = np.random.default_rng(seed)
    blobs = random.integers(0, 256, (n_rows, n_bytes), dtype=np.uint8)
    checksums = random.integers(2**50, 2**62, n_rows) * random.choice([-1, 1], n_rows)
    flags = random.integers(0, 2, n_rows)
    keys = first_key + np.arange(n_rows)
    numbers_of_rows = zip(keys.tolist(), flags.tolist(), checksums.tolist(), strict=True)
    rows = [
        (key, model, HASH, dim, flag, checksum, blob.tobytes())
        for (key, flag, checksum), blob in zip(numbers_of_rows, blobs, strict=True)
    ]
    pager, root = write(tmp_path_factory.mktemp("rows") / "rows.db", page_bytes, rows)
    page_numbers, last_keys = tables.leaves(pager, root)
    stops = np.searchsorted(keys, last_keys, side="right")
    bounds = pairwise([0, *stops.tolist()])
    for number, (start, stop) in zip(page_numbers.tolist(), bounds, strict=True):
        form = form_of(page_bytes, int(keys[start]), model, dim, n_bytes)
        if stop - start != form.n_rows:
            # The last one, or one with keys of several lengths, or a row overflows.
            is_last, are_longer = number == page_numbers[-1], keys[stop - 1] > form.highest_key
            assert is_last or are_longer or not form.n_rows
            continue
        page = pager.read_one(number)[None]
        heads, starts = form.beginnings(page)
        expected = keys[None, start:stop]
        is_one = keys[stop - 1] <= form.highest_key
        assert form.are_of_this_form(heads, starts, expected).tolist() == [is_one]
        assert not form.are_of_this_form(heads, starts, expected + 1).any()
        if is_one:
            assert np.array_equal(form.blobs(page)[0], blobs[start:stop])
            assert np.array_equal(form.integers(starts)[0], checksums[start:stop])


def test_each_byte_that_is_not_of_a_value_that_differs_is_compared(tmp_path: Path) -> None:
    rows = [(key, 300, HASH, 70000, 0, 2**60, bytes(40)) for key in range(200, 400)]
    pager, root = write(tmp_path / "rows.db", 1024, rows)
    number, last_key = (column[1] for column in tables.leaves(pager, root))
    form = form_of(1024, 300, 300, 70000, 40)
    page = pager.read_one(int(number))[None]
    keys = np.arange(last_key - form.n_rows + 1, last_key + 1)[None]
    assert form.are_of_this_form(*form.beginnings(page), keys).all()
    unseen = []
    for place in range(1024):
        for bit in range(8):
            other = page.copy()
            other[0, place] ^= 1 << bit
            if form.are_of_this_form(*form.beginnings(other), keys).all():
                unseen.append(place)
    n_free = 1024 - 8 - form.n_rows * (2 + form.blobs(page).shape[2] + form.beginnings(page)[1].shape[2])
    # Of each row the hash, the checksum and the blob, and one bit of the flag, each of which a checksum is of.
    assert len(unseen) == 8 * (n_free + form.n_rows * (32 + 8 + 40)) + form.n_rows


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many leaves are left for the other way, at each reading."""
    n_left: list[int] = []
    read = other_leaves.read

    def counted(pager: Pager, leaves: Leaves, wanted: object) -> None:
        n_left.append(len(leaves))
        read(pager, leaves, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(other_leaves, "read", counted)
    return n_left


def read_all(cache: EmbeddingCache, some: slice = slice(None)) -> None:
    """Read vectors, in their order and in another, and compare them with what SQLite gives."""
    with reading(cache) as connection:
        model = cache._find_model("fake", None, "document")
        ids = vector_ids(connection)[some]
        of_sqlite = vector_rows.read(connection, ids, model)
        for order in (None, np.random.default_rng(0).permutation(len(ids))):
            found = vector_pages.read(connection, ids, model, order)
            assert found is not None
            at = slice(None) if order is None else order
            assert np.array_equal(found[1][at], of_sqlite.values)
            assert is_content(found[0][at], content_sums(of_sqlite.content_hashes)).all()


@needs_descriptors
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_most_leaves_of_a_file_that_was_filled_are_copied_at_once(
    dtype: str, cache_path: Path, left: list[int]
) -> None:
    encoder = CountingEncoder(384)
    ids = [f"doc {i}" for i in range(3000)]
    with EmbeddingCache(cache_path, dtype=dtype) as cache:  # type: ignore[arg-type]
        cache.get_many(ids[:1500], ids[:1500], encoder)
        cache.embed(ids[1500:], encoder)  # without an id
        read_all(cache)
        cache.compact()
        read_all(cache)
        # All but the first, with keys of one and of two bytes, the last, and perhaps one with a short checksum.
        assert len(left) == 4
        assert max(left) <= 3
        read_all(cache, slice(100, 2900))
        assert max(left) <= 5  # and those at both ends of which some rows were asked for
        with reading(cache) as connection:
            pager = open_pager(connection)
            assert pager is not None
            assert len(Leaves.of(pager, vector_ids(connection))) > 35


@needs_descriptors
def test_leaves_of_any_form_are_read_beside_those_of_the_expected_one(cache: EmbeddingCache, left: list[int]) -> None:
    encoder = CountingEncoder(384)
    ids = [f"doc {i}" for i in range(3000)]
    cache.get_many(ids, ids, encoder)
    short = "UPDATE vectors SET checksum = 5 WHERE vector_id = ?"
    change(cache.path, short, 1500)  # damage, which only whoever compares the sums sees
    cache.invalidate(ids[700:750] + ids[2100:2101])
    cache.prune()
    with reading(cache) as connection:
        model = cache._find_model("fake", None, "document")
        every = vector_ids(connection)
        found = vector_pages.read(connection, every, model, None)
        of_sqlite = vector_rows.read(connection, every, model)
        assert found is not None
        assert np.array_equal(found[1], of_sqlite.values)
        wrong = ~is_content(found[0], content_sums(of_sqlite.content_hashes))
        assert every[wrong].tolist() == [1500]
    assert 3 < left[-1] < 10
    vectors = cache.get_many(ids, ids, encoder)
    assert np.array_equal(vectors, encoder.vectors(ids))
    assert encoder.n_texts == 3000 + 51 + 1
    read_all(cache)


@needs_descriptors
def test_a_value_that_is_no_number_is_left_to_sqlite(cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        encoder = CountingEncoder(384)
        ids = [f"doc {i}" for i in range(2000)]
        cache.get_many(ids, ids, encoder)
        infinite = np.full(384, np.inf, "<f4").tobytes()
        change(cache.path, "UPDATE vectors SET vector = ? WHERE content_hash = ?", infinite, content_hash(ids[1000]))
        with reading(cache) as connection:
            model = cache._find_model("fake", None, "document")
            assert vector_pages.read(connection, vector_ids(connection), model, None) is None
