"""A document that is asked for again comes from memory for as long as nobody has written to the file."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
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

    def counted(database: Database, statement: str, values: tuple[int, str, str]) -> object:
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


def test_another_text_id_collection_or_model_is_another_document(
    known: EmbeddingCache, encoder: CountingEncoder
) -> None:
    other = CountingEncoder(model_name="other", seed=1)
    for _ in range(2):
        assert np.array_equal(known.get("a", "text b", encoder), encoder.vector("text b"))
        assert np.array_equal(known.get("a", "text a", other), other.vector("text a"))
        assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))
    assert len(known) == 3 + 1
    for more, given in enumerate(({"doc_id": "d"}, {"collection": "c"}), start=1):
        for _ in range(2):
            known.get(**{"doc_id": "a", "text": "text a", "model": encoder, **given})  # type: ignore[arg-type]
        assert len(known) == 4 + more


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


def test_on_a_network_file_system_sqlite_is_asked(cache_path: Path, encoder: CountingEncoder, asked: list[str]) -> None:
    with EmbeddingCache(cache_path, allow_network_filesystem=True) as cache:
        for _ in range(6):
            cache.get("a", "text a", encoder)
    assert len(asked) >= 4


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
    define(known.path, "PRAGMA journal_mode = WAL; SELECT 1")
    assert states.state(connection) is None
    define(known.path, "PRAGMA journal_mode = DELETE; SELECT 1")
    assert states.state(connection) not in (None, told)


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
    for _ in range(4):
        assert np.array_equal(known.get("a", "text a", encoder), encoder.vector("text a"))
    assert asked == ["a", "a"]  # then another one is found
    if becomes != "closed":
        os.close(number)


def test_a_thread_that_ends_takes_its_descriptor_along(
    cache_path: Path, encoder: CountingEncoder, asked: list[str]
) -> None:
    """The number is then given to another file, which is in the state that this one will be in next."""
    copy = cache_path.with_name("copy.db")
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text a", encoder)
    shutil.copy(cache_path, copy)
    newer = CountingEncoder(seed=7).vector("text a")
    with EmbeddingCache(copy) as cache:
        cache.put_many(["a"], ["text a"], [newer], model_name="fake")
    with EmbeddingCache(cache_path) as cache:

        def get() -> None:
            assert np.array_equal(cache.get("a", "text a", encoder), encoder.vector("text a"))

        connection = cache._store._database._own_handle().connection  # type: ignore[attr-defined]
        with copy.open("rb") as other:
            for is_there in (True, False, True):
                connection.descriptor = other.fileno() if is_there else None
                get()
            connection.descriptor = other.fileno()
            get()
        with EmbeddingCache(cache_path) as another:
            another.put_many(["a"], ["text a"], [newer], model_name="fake")
        assert cache_path.read_bytes()[18:40] == copy.read_bytes()[18:40]
        for _ in range(3):
            assert np.array_equal(cache.get("a", "text a", encoder), newer)


def test_a_file_that_takes_the_place_of_another_in_the_same_state_is_another(
    cache_path: Path, encoder: CountingEncoder
) -> None:
    other_path = cache_path.with_name("other.db")
    vectors = [CountingEncoder(seed=seed).vector("text a") for seed in (7, 8)]
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text a", encoder)
        cache.get("b", "text b", encoder)
    shutil.copy(cache_path, other_path)
    for path, vector in zip((cache_path, other_path), vectors, strict=True):
        with EmbeddingCache(path) as cache:
            cache.put_many(["a"], ["text a"], [vector], model_name="fake")
    assert cache_path.read_bytes()[18:40] == other_path.read_bytes()[18:40]
    found: list[np.ndarray] = []
    with EmbeddingCache(cache_path) as cache:
        for _ in range(3):
            assert np.array_equal(cache.get("a", "text a", encoder), vectors[0])
        other_path.replace(cache_path)

        def get() -> None:
            for _ in range(3):  # by now this thread knows how to tell the state
                cache.get("b", "text b", encoder)
            found.append(cache.get("a", "text a", encoder))

        thread = threading.Thread(target=get)
        thread.start()
        thread.join()
        assert np.array_equal(found[0], vectors[1])
        found.append(cache.get("a", "text a", encoder))
        assert np.array_equal(found[1], cache.matrix("fake", doc_ids=["a"])[1][0])


def test_who_asks_once_looks_for_no_descriptor(
    known: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    monkeypatch.setattr(states, "descriptors", lambda file: looked.append(file) or iter([]))
    for n_gets, n_looks in ((1, 0), (2, 1), (5, 1)):
        looked.clear()

        def get(n: int = n_gets) -> None:
            for _ in range(n):
                known.get("a", "text a", encoder)

        thread = threading.Thread(target=get)
        thread.start()
        thread.join()
        assert len(looked) == n_looks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_given_what_is_stored_then(known: EmbeddingCache, encoder: CountingEncoder) -> None:
    vectors = [CountingEncoder(seed=seed).vector("text a") for seed in (7, 8)]
    known.put_many(["a"], ["text a"], [vectors[0]], model_name="fake")
    known.get("a", "text a", encoder)
    child = os.fork()
    if not child:
        is_right = all(np.array_equal(known.get("a", "text a", encoder), vectors[0]) for _ in range(3))
        known.put_many(["a"], ["text a"], [vectors[1]], model_name="fake")
        is_right &= all(np.array_equal(known.get("a", "text a", encoder), vectors[1]) for _ in range(3))
        os._exit(0 if is_right else 1)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(3):
        assert np.array_equal(known.get("a", "text a", encoder), vectors[1])


def test_in_a_block_that_reads_there_is_one_state(known: EmbeddingCache, encoder: CountingEncoder) -> None:
    with known._store.reading():  # type: ignore[attr-defined]
        known.get("a", "text a", encoder)
        with contextlib.closing(sqlite3.connect(known.path, timeout=0)) as another:
            another.execute("DELETE FROM documents WHERE doc_id = 'a'")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                another.commit()
            another.rollback()
        known.get("a", "text a", encoder)


def test_the_state_is_told_while_nobody_can_write(
    known: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, nor after: a commit could come in between, or one that is under way come to nothing."""
    known.put_many(["new"], ["text a"], [encoder.vector("text a")], model_name="fake")
    state_of_fetch, refused = states.state_of_fetch, []

    def told(connection: sqlite3.Connection) -> object:
        with contextlib.closing(sqlite3.connect(known.path, timeout=0)) as another:
            another.execute("DELETE FROM documents WHERE doc_id = 'a'")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                another.commit()
            refused.append(True)
        return state_of_fetch(connection)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(states, "state_of_fetch", told)
        known.get("a", "text a", encoder)
    assert refused == [True]
    change(known.path, "UPDATE documents SET checksum = checksum + 1 WHERE doc_id = 'a'")  # the lock is let go
    known.get("a", "text a", encoder)


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


@pytest.mark.parametrize(("dim", "id_chars", "most"), [(8, 6, 17), (1024, 6, 2), (8, 1200, 1), (8, 3000, 0)])
def test_memory_is_bounded(
    dim: int, id_chars: int, most: int, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_documents, "MOST_BYTES", 10_000)
    encoder = CountingEncoder(dim)
    ids = [f"{i:0{id_chars}}" for i in range(25)]
    cache.get_many(ids, ids, encoder)
    documents = cache._store._documents  # type: ignore[attr-defined]
    n_kept = []
    for doc_id in ids * 2:
        assert np.array_equal(cache.get(doc_id, doc_id, encoder), encoder.vector(doc_id))
        n_kept.append(len(documents._recent.values))
    assert max(n_kept) == most


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
        self.n_puts = self.n_gets = 0

    who = st.integers(0, 1)
    names = st.sampled_from("abc")

    @rule(who=who, doc_id=names, text=names, times=st.integers(1, 3))
    def get(self, who: int, doc_id: str, text: str, times: int) -> None:
        for _ in range(times):
            found = self.caches[who].get(doc_id, text, self.encoder)
            self.n_gets += 1
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
