"""Rows that are read off the pages of the file are those that SQLite gives, or SQLite is asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embstore import DamagedStoreError, EmbeddingCache, content_hash
from embstore.checksums import content_sums, is_content
from embstore.stores import opening
from embstore.stores.btrees import descriptors, pager
from embstore.stores.btrees.cells import Records
from embstore.stores.btrees.connection import FileConnection
from embstore.stores.btrees.indexes import ScopeRows
from embstore.stores.btrees.pager import Pager, UnreadableError, open_pager
from embstore.stores.btrees.tables import leaves
from embstore.stores.tables import document_pages, document_rows, vector_pages, vector_rows
from tests.fakes import CountingEncoder
from tests.files import change, define, rows

pytestmark = pytest.mark.skipif(
    not (hasattr(os, "preadv") and Path(descriptors.FOLDER).is_dir()),
    reason="this system does not tell which descriptors a process has",
)

N = 1200  # more than are asked of SQLite, in several pages
IDS = [f"doc {i}" for i in range(N)]
TEXTS = [f"text {i}" for i in range(N)]


@pytest.fixture
def filled(cache: EmbeddingCache, encoder: CountingEncoder) -> EmbeddingCache:
    cache.get_many(IDS, TEXTS, encoder)
    return cache


@contextlib.contextmanager
def reading(cache: EmbeddingCache) -> Iterator[FileConnection]:
    with cache._store._database.reading() as connection:  # type: ignore[attr-defined]
        assert isinstance(connection, FileConnection)
        yield connection


def vector_ids(connection: FileConnection) -> np.ndarray:
    found = connection.execute("SELECT vector_id FROM vectors ORDER BY vector_id").fetchall()
    return np.array([one for (one,) in found], dtype=np.int64)


def read_off(cache: EmbeddingCache) -> bool:
    """Whether the vectors are read off pages, and right; SQLite gives the same."""
    with reading(cache) as connection:
        model = cache._find_model("fake", None, "document")
        ids = vector_ids(connection)
        of_pages = vector_pages.read(connection, ids, model, None)
        of_sqlite = vector_rows.read(connection, ids, model)
        documents = document_pages.read(connection, model.model_id, "")
        listed = connection.execute(document_rows.ALL, (model.model_id, "")).fetchall()
        assert documents is None or [*zip(*(list(column) for column in documents), strict=True)] == listed
        assert of_pages is None or np.array_equal(of_pages[1], of_sqlite.values)
        assert of_pages is None or is_content(of_pages[0], content_sums(of_sqlite.content_hashes)).all()
        assert (of_pages is None) == (documents is None)
        return of_pages is not None


def test_a_sound_file_is_read_off_its_pages(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert read_off(filled)
    assert np.array_equal(filled.get_many(IDS[::-1], TEXTS[::-1], encoder), encoder.vectors(TEXTS[::-1]))
    assert np.array_equal(filled.matrix("fake", doc_ids=IDS[::-1])[1], encoder.vectors(TEXTS[::-1]))
    doc_ids, vectors = filled.matrix("fake")
    assert dict(zip(doc_ids, vectors.tolist(), strict=True)) == dict(
        zip(IDS, encoder.vectors(TEXTS).tolist(), strict=True)
    )
    assert encoder.n_texts == N


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.integers(1, 3000).map("x".__mul__)
steps = st.lists(
    st.tuples(st.sampled_from(["put", "forget"]), st.sampled_from(["", "other", "ö"]), st.lists(ids, max_size=60)),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(("page_bytes", "dim"), [(512, 3), (1024, 8), (4096, 8), (65536, 8), (65536, 500)])
@given(steps=steps, float16=st.booleans())
def test_whatever_was_stored_and_forgotten_pages_give_what_sqlite_gives(
    page_bytes: int, dim: int, steps: list[tuple[str, str, list[str]]], float16: bool, tmp_path_factory
) -> None:
    file = tmp_path_factory.mktemp("pages") / "embeddings.db"
    encoder = CountingEncoder(dim)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "PAGE_SIZE", page_bytes)
        patched.setattr(vector_pages, "LEAST_ROWS", 1)
        patched.setattr(vector_pages, "MOST_IDS_A_ROW", 2**40)
        with EmbeddingCache(file, dtype="float16" if float16 else "float32") as cache:
            for number, (act, collection, doc_ids) in enumerate(steps):
                if act == "put":
                    texts = [f"{doc_id} {number % 2}" for doc_id in dict.fromkeys(doc_ids)]
                    cache.get_many(dict.fromkeys(doc_ids), texts, encoder, collection=collection)
                else:
                    cache.invalidate(doc_ids, collection=collection)
            with reading(cache) as connection:
                for (model_id,) in connection.execute("SELECT model_id FROM models").fetchall():
                    for collection in ("", "other", "ö", "none"):
                        columns = document_pages.read(connection, model_id, collection)
                        listed = connection.execute(document_rows.ALL, (model_id, collection)).fetchall()
                        if columns is None:  # a long id overflows its page, or one has a NUL
                            longest = (page_bytes - 12) * 64 // 255 - 23 - 100
                            assert any(
                                len(id_.encode()) > longest or "\0" in id_
                                for (id_,) in connection.execute("SELECT doc_id FROM documents")
                            )
                        else:
                            assert [*zip(*(list(column) for column in columns), strict=True)] == listed
                    model = cache._find_model("fake", None, "document")
                    every = vector_ids(connection)
                    for some in (every, every[::2], every[-1:]):
                        if len(some):
                            order = np.random.default_rng(0).permutation(len(some))
                            read = vector_pages.read(connection, some, model, order)
                            there = vector_rows.read(connection, some, model, order)
                            assert read is not None or page_bytes == 512
                            if read is not None:
                                assert np.array_equal(read[1], there.values)
                                assert is_content(read[0], content_sums(there.content_hashes)).all()


def test_ids_that_no_row_has_are_asked_of_sqlite(filled: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_pages, "LEAST_ROWS", 1)
    monkeypatch.setattr(vector_pages, "MOST_IDS_A_ROW", N)
    with reading(filled) as connection:
        model = filled._find_model("fake", None, "document")
        assert vector_pages.read(connection, np.array([1, N]), model, None) is not None
        for missing in ([N + 1], [1, N + 1], [-1, 1], [2**62]):
            assert vector_pages.read(connection, np.array(missing), model, None) is None


def test_what_a_transaction_has_not_written_yet_is_not_read_off_the_file(
    filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    with filled._store.writing() as connection:  # type: ignore[attr-defined]
        filled.get_many(["new"], ["new text"], encoder)
        assert open_pager(connection) is None
        assert "new" in filled.matrix("fake")[0]
    assert read_off(filled)


def test_a_write_ahead_log_is_left_to_sqlite(cache_path: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
    for mode, is_read in (("WAL", False), ("DELETE", True)):
        define(cache_path, f"PRAGMA journal_mode = {mode}; SELECT 1")
        with contextlib.closing(opening.connect(cache_path, "rw", 1)) as connection:
            connection.execute("BEGIN")
            assert (open_pager(connection) is not None) == is_read


def test_a_number_that_is_another_files_by_now_is_not_used(
    filled: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(filled.path, tmp_path / "copy.db")
    with reading(filled) as connection, (tmp_path / "copy.db").open("rb") as copy:
        assert open_pager(connection) is not None
        own = connection.descriptor
        connection.descriptor = copy.fileno()
        assert open_pager(connection) is not None
        assert connection.descriptor == own
        # Closed, and given anew, while it was read.
        monkeypatch.setattr(pager, "descriptors", lambda _: iter([copy.fileno()]))
        connection.descriptor = None
        model = filled._find_model("fake", None, "document")
        assert open_pager(connection) is not None
        assert vector_pages.read(connection, vector_ids(connection), model, None) is None
        assert document_pages.read(connection, model.model_id, "") is None


def test_a_descriptor_for_writing_only_is_passed_over(filled: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(filled) as connection:
        own = list(descriptors.descriptors(connection.file))
        to_nowhere = os.open(os.devnull, os.O_WRONLY)
        monkeypatch.setattr(pager, "descriptors", lambda _: iter([to_nowhere, *own]))
        connection.descriptor = None
        assert open_pager(connection) is not None
        assert connection.descriptor in own
        os.close(to_nowhere)


def test_a_file_that_another_took_the_place_of_while_it_was_opened_is_left_to_sqlite(
    filled: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter([(1, 1), (1, 2)])
    with monkeypatch.context() as patched:
        patched.setattr(opening, "file_id", lambda _: next(ids))
        with contextlib.closing(opening.connect(filled.path, "ro", 1)) as connection:
            assert connection.file is None
            connection.execute("BEGIN")
            assert open_pager(connection) is None


def test_where_the_system_lists_no_descriptors_sqlite_is_asked(
    filled: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(descriptors, "FOLDER", str(tmp_path / "none"))
    with EmbeddingCache(filled.path) as other:
        assert not read_off(other)
        assert np.array_equal(other.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
        assert len(other.matrix("fake")[0]) == N


def test_a_descriptor_that_cannot_be_read_any_more_is_left_for_sqlite(
    filled: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError("no")

    monkeypatch.setattr(os, "preadv", fail)
    assert not read_off(filled)
    assert len(filled.matrix("fake")[0]) == N


def test_reading_opens_no_other_descriptor(filled: EmbeddingCache) -> None:
    with reading(filled) as connection:
        file = connection.file
    assert file is not None
    before = list(descriptors.descriptors(file))
    filled.matrix("fake")
    assert set(descriptors.descriptors(file)) <= set(before) != set()


def test_pages_that_are_cut_off_or_not_there_are_none(filled: EmbeddingCache) -> None:
    with reading(filled) as connection:
        opened = open_pager(connection)
        assert isinstance(opened, Pager)
        for number in (0, -1, opened.n_pages + 1):
            with pytest.raises(UnreadableError):
                opened.read_one(number)


def test_a_damaged_row_is_named_as_ever(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    zeros = "UPDATE vectors SET vector = zeroblob(length(vector)) WHERE content_hash = ?"
    change(filled.path, zeros, content_hash(TEXTS[7]))
    with pytest.raises(DamagedStoreError, match="'doc 7'"):
        filled.matrix("fake")
    assert np.array_equal(filled.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
    assert encoder.n_texts == N + 1


def test_each_reading_is_of_one_state_while_somebody_writes(filled: EmbeddingCache) -> None:
    """All vectors are replaced in one transaction, again and again."""
    versions = [CountingEncoder(seed=seed).vectors(TEXTS) for seed in (1, 2)]
    filled.put_many(IDS, TEXTS, versions[0], model_name="put")
    stop = threading.Event()

    def write() -> None:
        with EmbeddingCache(filled.path) as other:
            number = 0
            while not stop.is_set():
                number += 1
                other.put_many(IDS, TEXTS, versions[number % 2], model_name="put")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = set()
        for _ in range(200):
            doc_ids, vectors = filled.matrix("put", doc_ids=IDS)
            assert doc_ids == IDS
            (state,) = [number for number, version in enumerate(versions) if np.array_equal(vectors, version)]
            seen.add(state)
            with reading(filled) as connection:
                assert open_pager(connection) is not None
    finally:
        stop.set()
        writer.join()
    assert seen == {0, 1}
    assert rows(filled.path, "SELECT count(*) FROM documents WHERE collection = ''")[0][0] == 2 * N


def test_texts_of_many_rows_at_one_place_take_no_more_memory_than_their_pages() -> None:
    data = np.zeros(1000, dtype=np.uint8)
    data[100:900] = ord("a")
    types, ends = np.full((1, 50), 13 + 2 * 800), np.full((1, 50), 900)
    assert Records(data, types[:, :1], ends[:, :1]).texts(0).as_list(np.array([0])) == ["a" * 800]
    with pytest.raises(UnreadableError):
        Records(data, types, ends).texts(0)


def page(kind: int, cells: list[bytes], page_bytes: int = 512, right: int = 0) -> bytes:
    """A page of a b-tree, https://sqlite.org/fileformat2.html 1.6."""
    head = bytes([kind, 0, 0]) + len(cells).to_bytes(2, "big") + page_bytes.to_bytes(2, "big") + b"\0"
    head += right.to_bytes(4, "big") if kind in (2, 5) else b""
    at, starts, body = page_bytes, b"", b""
    for cell in cells:
        at -= len(cell)
        starts += at.to_bytes(2, "big")
        body = cell + body
    return (head + starts).ljust(at, b"\0") + body


class InMemory(Pager):
    """Pages that are in no file, numbered from 1."""

    def __init__(self, pages: list[bytes]) -> None:
        self._pages = pages
        self.page_bytes, self.n_pages = len(pages[0]), len(pages)

    def read(self, numbers: np.ndarray, into: np.ndarray) -> None:
        for number, row in zip(numbers.tolist(), into, strict=True):
            row[:] = np.frombuffer(self._pages[number - 1], np.uint8)


@pytest.mark.parametrize("n_pages", [2, 500])
def test_trees_that_lead_back_to_themselves_are_given_up(n_pages: int) -> None:
    row = bytes([4, 4, 9, 13, 0])  # its length, and (1, "", NULL): the length of its header, and three types
    to_itself = [page(5, [(1).to_bytes(4, "big") + bytes([i]) for i in range(1, 40)], right=1)] * n_pages
    with pytest.raises(UnreadableError):
        leaves(InMemory(to_itself), 1)
    to_itself = [page(2, [(1).to_bytes(4, "big") + row] * 3, right=1)] * n_pages
    with pytest.raises(UnreadableError):
        ScopeRows(InMemory(to_itself), 1, 3, (1, b""))


def test_pages_that_many_lead_to_are_visited_once() -> None:
    """Each of a chain of pages leads to the next one seven times: 7^19 ways."""
    row = bytes([4, 4, 9, 13, 0])
    chain = [page(2, [number.to_bytes(4, "big") + row] * 6, right=number) for number in range(2, 20)]
    with pytest.raises(UnreadableError):
        ScopeRows(InMemory([*chain, page(10, [row])]), 1, 3, (1, b""))


@pytest.mark.parametrize(
    ("place", "value"), [(16, b"\0\0"), (16, b"\2\0"), (18, b"\2\2"), (20, b"\1"), (56, b"\0\0\0\2")]
)
def test_a_header_that_says_otherwise_is_left_to_sqlite(
    place: int, value: bytes, filled: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.pread

    def other(descriptor: int, n_bytes: int, offset: int) -> bytes:
        header = bytearray(read(descriptor, n_bytes, offset))
        header[place : place + len(value)] = value
        return bytes(header)

    monkeypatch.setattr(os, "pread", other)
    assert not read_off(filled)
    assert len(filled.matrix("fake")[0]) == N


def test_texts_in_utf_16_are_left_to_sqlite(cache_path: Path, encoder: CountingEncoder) -> None:
    cache_path.touch()
    define(cache_path, "PRAGMA encoding = 'UTF-16le'; CREATE TABLE x (a)")
    define(cache_path, "DROP TABLE x")
    with EmbeddingCache(cache_path) as cache:
        vectors = cache.get_many(IDS, TEXTS, encoder, collection="c")
        assert np.array_equal(cache.matrix("fake", collection="c", doc_ids=IDS)[1], vectors)
        assert len(cache.matrix("fake", collection="c")[0]) == N


def test_a_log_that_sqlite_reads_is_left_to_it_whatever_the_header_says(
    cache_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
    define(cache_path, "PRAGMA journal_mode = WAL; SELECT 1")
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda *asked: read(*asked)[:18] + b"\1\1" + read(*asked)[20:])
    with contextlib.closing(opening.connect(cache_path, "rw", 1)) as connection:
        connection.execute("BEGIN")
        assert open_pager(connection) is None
