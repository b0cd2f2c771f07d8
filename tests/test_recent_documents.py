"""A document that is asked for again comes from memory for as long as nobody has written to the file."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from embstore import EmbeddingCache, StoreClosedError
from embstore.stores import sqlite_documents
from embstore.stores.btrees import descriptors, states
from embstore.stores.connection import Database
from tests.fakes import CountingEncoder
from tests.files import change, define

pytestmark = pytest.mark.skipif(
    not (hasattr(os, "preadv") and Path(descriptors.FOLDER).is_dir()),
    reason="this system does not tell which descriptors a process has",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that SQLite was asked for."""
    doc_ids: list[str] = []
    fetch = Database.fetch

    def counted(database: Database, statement: str, values: tuple[int, str, str]) -> list[object]:
        doc_ids.append(values[2])
        return fetch(database, statement, values)

    monkeypatch.setattr(Database, "fetch", counted)
    return doc_ids


@pytest.fixture
def known(cache: EmbeddingCache, encoder: CountingEncoder, asked: list[str]) -> EmbeddingCache:
    """Holds "a" with "text a" to "c", each of which was asked for since it was stored."""
    for _ in range(3):
        for name in "abc":
            cache.get(name, f"text {name}", encoder)
    asked.clear()
    return cache


def test_sqlite_is_asked_once(known: EmbeddingCache, encoder: CountingEncoder, asked: list[str]) -> None:
    vector = known.get("a", "text a", encoder)
    assert np.array_equal(vector, encoder.vector("text a"))
    assert not asked
    vector[:] = 0  # the caller's own
    assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))
    assert not asked
    assert encoder.n_texts == 3
    assert known.stats().models[0].usage.n_hits >= 6 + 2  # counted all the same


def test_another_text_collection_role_or_model_is_another_document(
    known: EmbeddingCache, encoder: CountingEncoder
) -> None:
    other = CountingEncoder(model_name="other", seed=1)
    assert np.array_equal(known.get("a", "text b", encoder), encoder.vector("text b"))
    assert np.array_equal(known.get("a", "text a", encoder, collection="c"), encoder.vector("text a"))
    assert np.array_equal(known.get("a", "text a", other), other.vector("text a"))
    assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))


@pytest.mark.parametrize(
    "write",
    [
        lambda cache, vector: cache.put_many(["a"], ["text a"], [vector], model_name="fake"),
        lambda cache, vector: cache.put_many(["new"], ["text a"], [vector], model_name="fake"),
    ],
)
@pytest.mark.parametrize("who", ["itself", "another"])
def test_what_was_written_since_is_given(
    who: str, write: object, known: EmbeddingCache, encoder: CountingEncoder, asked: list[str]
) -> None:
    vector = CountingEncoder(seed=7).vector("text a")
    with EmbeddingCache(known.path) as another:
        write(known if who == "itself" else another, vector)  # type: ignore[operator]
    assert np.array_equal(known.get("a", "text a", encoder), vector)
    assert asked == ["a"]


@pytest.mark.parametrize("who", ["itself", "another"])
def test_what_was_forgotten_since_is_recorded_anew(who: str, known: EmbeddingCache, encoder: CountingEncoder) -> None:
    with EmbeddingCache(known.path) as another:
        forgetful = known if who == "itself" else another
        forgetful.invalidate(["a"])
        assert len(known) == 2
        known.get("a", "text a", encoder)
        assert len(known) == 3
        forgetful.clear(model_name="fake")
        known.get("b", "text b", encoder)
    assert encoder.texts.count("text b") == 2


def test_in_a_transaction_that_writes_its_own_rows_are_given(
    known: EmbeddingCache, encoder: CountingEncoder, asked: list[str]
) -> None:
    vector = CountingEncoder(seed=7).vector("text a")
    with contextlib.suppress(KeyError), known._store.writing():  # type: ignore[attr-defined]
        known.put_many(["a"], ["text a"], [vector], model_name="fake")
        for _ in range(2):
            assert np.array_equal(known.get("a", "text a", encoder), vector)
        raise KeyError
    assert asked == ["a", "a"]
    for _ in range(2):
        assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))


def test_a_changed_model_row_is_looked_at(known: EmbeddingCache, encoder: CountingEncoder) -> None:
    change(known.path, "UPDATE models SET checksum = checksum + 1")
    with pytest.raises(Exception, match="damaged"):
        known.get("a", "text a", encoder)
    change(known.path, "UPDATE models SET checksum = checksum - 1")
    assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))


def test_damage_that_nobody_wrote_is_not_seen(known: EmbeddingCache, encoder: CountingEncoder) -> None:
    """Bits that flip on the disk count nothing up; what is in memory was sound."""
    data = known.path.read_bytes()
    place = data.index(encoder.vector("text a").tobytes())
    with known.path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(8))
    assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))
    with known.path.open("r+b") as file:
        file.seek(place)
        file.write(data[place : place + 8])


def test_a_closed_cache_gives_nothing(known: EmbeddingCache, encoder: CountingEncoder, cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as other:
        for _ in range(2):
            other.get("a", "text a", encoder)
    with pytest.raises(StoreClosedError):
        other.get("a", "text a", encoder)


def test_with_a_write_ahead_log_sqlite_is_asked(cache_path: Path, encoder: CountingEncoder, asked: list[str]) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text a", encoder)
    with contextlib.closing(sqlite3.connect(cache_path)) as connection:
        if sqlite3.sqlite_version_info < (3, 51, 3):
            pytest.skip("a file with a write-ahead log is refused where SQLite's is not safe")
        connection.execute("PRAGMA journal_mode = WAL")
    with EmbeddingCache(cache_path) as cache:
        for _ in range(3):
            cache.get("a", "text a", encoder)
    assert asked[-3:] == ["a", "a", "a"]


def test_a_log_that_comes_later_is_seen(known: EmbeddingCache) -> None:
    connection = known._store._database._own_handle().connection  # type: ignore[attr-defined]
    told = states.state(connection)
    assert told is not None
    assert states.is_in(connection, told)
    define(known.path, "PRAGMA journal_mode = WAL; SELECT 1")
    assert not states.is_in(connection, told)
    assert states.state(connection) is None
    define(known.path, "PRAGMA journal_mode = DELETE; SELECT 1")
    assert states.state(connection) is not None


@pytest.mark.parametrize("becomes", ["closed", "of another file", "to write only"])
def test_a_descriptor_that_is_no_more_what_it_was_tells_nothing(
    becomes: str, known: EmbeddingCache, encoder: CountingEncoder, asked: list[str], tmp_path: Path
) -> None:
    connection = known._store._database._own_handle().connection  # type: ignore[attr-defined]
    (tmp_path / "copy.db").write_bytes(known.path.read_bytes())
    where = os.devnull if becomes == "to write only" else tmp_path / "copy.db"
    number = os.open(where, os.O_WRONLY if becomes == "to write only" else os.O_RDONLY)
    connection.descriptor = number
    if becomes == "closed":
        os.close(number)
    for _ in range(2):
        assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))
    assert asked == ["a", "a"]
    if becomes != "closed":
        os.close(number)


def test_a_commit_that_comes_in_between_is_not_missed(
    known: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between telling the state and reading, and between reading and telling it again."""
    fetch = Database.fetch
    vectors = [CountingEncoder(seed=seed).vector("text a") for seed in range(4)]
    with EmbeddingCache(known.path) as another:

        def put() -> None:
            another.put_many(["a"], ["text a"], [vectors.pop()], model_name="fake")

        def before(*arguments: object) -> object:
            put()
            return fetch(*arguments)  # type: ignore[arg-type]

        def after(*arguments: object) -> object:
            rows = fetch(*arguments)  # type: ignore[arg-type]
            put()
            return rows

        for slow in (before, after):
            put()
            with monkeypatch.context() as patched:
                patched.setattr(Database, "fetch", slow)
                known.get("a", "text a", encoder)
            _, (now,) = another.matrix("fake", doc_ids=["a"])
            for _ in range(3):
                assert np.array_equal(known.get("a", "text a", encoder), now)
    assert not vectors


def test_the_state_of_a_commit_that_came_to_nothing_is_not_the_next_ones(
    known: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is told in the middle of a commit that is rolled back; the next commit counts up to the same."""
    vector = CountingEncoder(seed=7).vector("text a")
    known.put_many(["a"], ["text a"], [encoder.vector("text a")], model_name="fake")
    told = known._store._database.state()  # type: ignore[attr-defined]
    coming = told[:6] + (int.from_bytes(told[6:10], "big") + 1).to_bytes(4, "big") + told[10:]
    with monkeypatch.context() as patched:
        answers = iter([coming, told])
        patched.setattr(Database, "state", lambda _: next(answers))
        assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))
    with EmbeddingCache(known.path) as another:
        another.put_many(["a"], ["text a"], [vector], model_name="fake")
    assert known._store._database.state() == coming  # type: ignore[attr-defined]
    assert np.array_equal(known.get("a", "text a", encoder), vector)


def write_half(path: Path) -> None:
    """Leave a journal, and pages of a transaction that never was."""
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA cache_size = 1; PRAGMA synchronous = OFF; BEGIN IMMEDIATE")
    connection.execute("UPDATE vectors SET vector = zeroblob(length(vector)), checksum = 0")
    connection.execute("CREATE TABLE half (x)")
    connection.executemany("INSERT INTO half VALUES (?)", [(bytes(60_000),)] * 50)
    os._exit(0)


def test_what_a_killed_process_left_half_written_is_not_believed(cache_path: Path) -> None:
    encoder = CountingEncoder(384)
    ids = [f"doc {i}" for i in range(500)]
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(ids, ids, encoder)
        for doc_id in ids[:10] * 2:
            cache.get(doc_id, doc_id, encoder)
        before = cache_path.read_bytes()
        process = multiprocessing.get_context("spawn").Process(target=write_half, args=(cache_path,))
        process.start()
        process.join()
        assert cache_path.read_bytes() != before
        assert cache_path.with_name(cache_path.name + "-journal").stat().st_size > 0
        for doc_id in ids[:20] * 2:
            assert np.array_equal(cache.get(doc_id, doc_id, encoder), encoder.vector(doc_id))
        assert cache_path.read_bytes()[: len(before)] == before
    assert encoder.n_texts == len(ids)


def test_memory_is_bounded(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    monkeypatch.setattr(sqlite_documents, "MOST_BYTES", 10 * 8 * 4)
    encoder = CountingEncoder(8)
    ids = [f"doc {i}" for i in range(25)]
    cache.get_many(ids, ids, encoder)
    documents = cache._store._documents  # type: ignore[attr-defined]
    for doc_id in ids * 2:
        assert np.array_equal(cache.get(doc_id, doc_id, encoder), encoder.vector(doc_id))
        assert len(documents._recent[1]) <= 10


def test_many_threads_ask_while_others_write(cache_path: Path) -> None:
    """Each vector tells which call wrote it; nobody is given one of before a call that has returned."""
    encoder = CountingEncoder(8)
    written, stop = [0], threading.Event()
    failures: list[tuple[int, float]] = []
    n_asked = [0]
    with EmbeddingCache(cache_path, check_canary=False) as cache, EmbeddingCache(cache_path) as other:

        def put(writer: EmbeddingCache, number: int) -> None:
            writer.put_many(["a"], ["text"], np.full((1, 8), number, np.float32), model_name="fake")
            written[0] = number

        def ask() -> None:
            while not stop.is_set():
                least = written[0]
                found = cache.get("a", "text", encoder)[0]
                n_asked[0] += 1
                if found < least:
                    failures.append((least, float(found)))

        put(cache, 0)
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 80):
            put(other if number % 2 else cache, number)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert not encoder.n_texts
    assert n_asked[0] > 80


class TwoCaches(RuleBasedStateMachine):
    """Two caches on one file, as of two processes: whoever asks is given what was put last, by whomever."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = contextlib.ExitStack()
        self.path = Path(self.folder.enter_context(tempfile.TemporaryDirectory())) / "embeddings.db"
        self.caches = [EmbeddingCache(self.path, check_canary=False) for _ in range(2)]
        self.encoder = CountingEncoder(4)
        self.vectors: dict[str, np.ndarray] = {}
        self.documents: dict[str, str] = {}
        self.n_puts = 0

    who = st.integers(0, 1)
    names = st.sampled_from("abc")

    @rule(who=who, doc_id=names, text=names, times=st.integers(1, 3))
    def get(self, who: int, doc_id: str, text: str, times: int) -> None:
        for _ in range(times):
            found = self.caches[who].get(doc_id, text, self.encoder)
            self.documents[doc_id] = text
            expected = self.vectors.setdefault(text, self.encoder.vector(text))
            assert np.array_equal(found, expected)

    @rule(who=who, doc_id=names, text=names)
    def put(self, who: int, doc_id: str, text: str) -> None:
        self.n_puts += 1
        self.vectors[text] = np.full(4, self.n_puts, np.float32)
        self.documents[doc_id] = text
        self.caches[who].put_many([doc_id], [text], self.vectors[text][None], model_name="fake")

    @rule(who=who, doc_id=names)
    def forget(self, who: int, doc_id: str) -> None:
        self.caches[who].invalidate([doc_id])
        text = self.documents.pop(doc_id, None)
        if text is not None and text not in self.documents.values():
            del self.vectors[text]

    @rule(who=who)
    def prune(self, who: int) -> None:
        self.caches[who].prune()
        self.vectors = {text: vector for text, vector in self.vectors.items() if text in self.documents.values()}

    @rule(who=who)
    def compact(self, who: int) -> None:
        self.caches[who].compact()

    @rule(who=who)
    def open_anew(self, who: int) -> None:
        self.caches[who].close()
        self.caches[who] = EmbeddingCache(self.path, check_canary=False)

    @invariant()
    def documents_are_recorded(self) -> None:
        assert len(self.caches[0]) == len(self.caches[1]) == len(self.documents)

    def teardown(self) -> None:
        for cache in self.caches:
            cache.close()
        self.folder.close()


TestTwoCaches = TwoCaches.TestCase
TestTwoCaches.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
