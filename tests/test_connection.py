"""Transactions, locks, threads: what one process does with its connections to a file."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    DamagedStoreError,
    EmbeddingCache,
    ModelIdentity,
    NotAStoreError,
    ReadOnlyError,
    StoreBusyError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StorePathError,
    UnconfirmedWriteError,
    claims,
)
from embstore.stores import committing, opening
from embstore.stores.btrees.connection import FileConnection
from embstore.stores.connection import Database
from embstore.stores.sqlite_errors import sqlite3, translated
from tests.fakes import CountingEncoder
from tests.files import dump, rows


class StopError(Exception):
    pass


# --- transactions ---------------------------------------------------------------------------


def test_a_block_that_raises_writes_nothing_of_what_was_written_in_it(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    before = dump(cache.path)

    def write_and_stop() -> None:
        with cache._store.writing():
            cache.get("b", "more", encoder)
            cache.put_many(["c"], ["else"], np.ones((1, 8)), model_name="other")
            cache.invalidate("a")
            cache.rename_model("fake", "renamed")
            raise StopError

    with pytest.raises(StopError):
        write_and_stop()
    assert dump(cache.path) == before
    cache.get("b", "more", encoder)
    assert sorted(cache.matrix("fake")[0]) == ["a", "b"]


def test_a_block_inside_another_belongs_to_the_outer_one(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    with cache._store.writing():
        with cache._store.writing():
            cache.get("a", "text", encoder)
        assert rows(cache.path, "SELECT count(*) FROM documents") == [(0,)]
        assert len(cache) == 1
    assert rows(cache.path, "SELECT count(*) FROM documents") == [(1,)]


def test_what_was_written_in_a_block_is_read_in_it(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    with cache._store.writing():
        cache.get("a", "text", encoder)
        assert cache.matrix("fake")[1].tolist() == encoder.vectors(["text"]).tolist()
        assert ("a" in cache, cache.stats().n_vectors) == (True, 1)


def test_reading_sees_one_state_whatever_others_write_meanwhile(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    database = Database(cache.path, timeout_s=0)
    count = "SELECT count(*) FROM documents"
    with database.reading() as connection:
        first = connection.execute(count).fetchone()
        with pytest.raises(StoreBusyError), EmbeddingCache(cache.path, timeout_s=0) as other:
            other.get("b", "more", encoder)
        assert connection.execute(count).fetchone() == first == (1,)
    with database.reading() as connection:
        assert connection.execute(count).fetchone() == (1,)
    cache.get("b", "more", encoder)
    with database.reading() as connection:
        assert connection.execute(count).fetchone() == (2,)
    database.close()


def test_a_failed_read_leaves_no_transaction_behind(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    database = Database(cache.path)
    with pytest.raises(StopError), database.reading():
        raise StopError
    with pytest.raises(StoreError), database.reading() as connection:
        connection.execute("SELECT nothing FROM nowhere")
    with database.writing() as connection:
        connection.execute("DELETE FROM documents")
    database.close()


# --- locks ----------------------------------------------------------------------------------


def test_a_locked_file_is_told_after_the_timeout_and_nothing_is_lost(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    before = dump(cache.path)
    with EmbeddingCache(cache.path, timeout_s=0.05) as impatient, cache._store.writing():
        began = time.monotonic()
        with pytest.raises(StoreBusyError, match=r"locked by another process for more than 0\.05 s.*timeout_s"):
            impatient.get("b", "more", encoder)
        assert time.monotonic() - began < 5
    assert dump(cache.path) == before
    assert isinstance(StoreBusyError("x"), TimeoutError)


def test_a_locked_file_is_waited_for(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._store.writing():
            locked.set()
            release.wait()

    with ThreadPoolExecutor(2) as pool, EmbeddingCache(cache.path) as other:
        holding = pool.submit(hold)
        locked.wait()
        waiting = pool.submit(other.get, "a", "text", encoder)
        release.set()
        assert np.array_equal(waiting.result(), encoder.vector("text"))
        holding.result()


@pytest.mark.parametrize(("statement", "kind"), [("BEGIN", "reading"), ("BEGIN IMMEDIATE", "writing")])
def test_an_interrupt_while_waiting_for_a_lock_leaves_no_transaction(
    statement: str, kind: str, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard when the wait is over, and the lock is there."""
    armed = [False]

    class Interrupted(FileConnection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if armed[0] and sql == statement:
                armed[0] = False
                raise KeyboardInterrupt
            return cursor

    monkeypatch.setattr(opening, "FileConnection", Interrupted)
    with EmbeddingCache(cache_path, timeout_s=0) as cache, EmbeddingCache(cache_path, timeout_s=0) as other:
        cache.get("a", "text", CountingEncoder())
        armed[0] = True
        with pytest.raises(KeyboardInterrupt), getattr(cache._store, kind)():
            pass
        assert not cache._store._database._own_handle().connection.in_transaction  # type: ignore[attr-defined]
        other.get("b", "more", CountingEncoder())
        cache.get("c", "else", CountingEncoder())
        assert (len(other), other.verify()) == (3, [])


def test_a_file_locked_for_good_cannot_be_read_either_and_says_so(cache: EmbeddingCache) -> None:
    exclusive = sqlite3.connect(cache.path, isolation_level=None)
    exclusive.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreBusyError):
        EmbeddingCache(cache.path, timeout_s=0.05)
    exclusive.execute("ROLLBACK")
    exclusive.close()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("SQLITE_BUSY", StoreBusyError),
        ("SQLITE_BUSY_SNAPSHOT", StoreBusyError),
        ("SQLITE_LOCKED", StoreBusyError),
        ("SQLITE_READONLY", ReadOnlyError),
        ("SQLITE_READONLY_DBMOVED", ReadOnlyError),
        ("SQLITE_FULL", StoreFullError),
        ("SQLITE_IOERR_WRITE", StoreFullError),
        ("SQLITE_IOERR_READ", StoreError),
        ("SQLITE_NOTADB", NotAStoreError),
        ("SQLITE_CANTOPEN", StorePathError),
        ("SQLITE_CORRUPT", DamagedStoreError),
        ("SQLITE_CORRUPT_INDEX", DamagedStoreError),
        ("SQLITE_CONSTRAINT_FOREIGNKEY", DamagedStoreError),
        (None, DamagedStoreError),
    ],
)
def test_errors_are_told_apart_by_result_code_and_never_by_message(code: str | None, error: type[StoreError]) -> None:
    raised = sqlite3.OperationalError("some message in some language")
    if code is not None:
        raised.sqlite_errorcode = getattr(sqlite3, code)
    ours = translated(raised, "x.db", 30.0)
    assert (type(ours), ours.path) == (error, "x.db")
    assert "x.db" in str(ours)


FULL = """
import resource
import sys

import numpy as np

from embstore import EmbeddingCache, StoreFullError

with EmbeddingCache(sys.argv[1]) as cache:
    cache.put_many(["a"], ["one"], np.ones((1, 4)), model_name="m")
    size = cache.stats().size_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 65536, size + 65536))
    ids = [f"doc {i}" for i in range(3000)]
    try:
        cache.put_many(ids, ids, np.ones((3000, 512)), model_name="m2")
    except StoreFullError as error:
        print(type(error).__name__, len(cache), cache.verify())
    cache.put_many(["b"], ["two"], np.ones((1, 4)), model_name="m")
    print(len(cache), cache.verify())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
def test_a_full_disk_is_told_and_leaves_the_file_as_it_was(cache_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(cache_path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("StoreFullError 1 []\n2 []\n", 0), done.stderr


# --- threads --------------------------------------------------------------------------------


def test_sixteen_threads_on_one_cache_encode_each_text_once_and_get_their_own_rows(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    texts = [f"text {i}" for i in range(60)]
    start = threading.Barrier(16)

    def work(k: int) -> bool:
        mine = texts[k:] + texts[:k]
        start.wait()
        for _ in range(3):
            ids = [f"doc {text}" for text in mine]
            if not np.array_equal(cache.get_many(ids, mine, encoder, batch_size=7), encoder.vectors(mine)):
                return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [True] * 16
    assert sorted(encoder.texts) == sorted(texts)
    assert (len(cache), cache.stats().n_vectors) == (60, 60)


def test_threads_that_read_write_and_forget_disturb_each_other_in_nothing(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    texts = [f"text {i}" for i in range(30)]
    start = threading.Barrier(8)

    def work(k: int) -> None:
        start.wait()
        for i in range(10):
            if k % 4 == 0:
                cache.invalidate([f"doc {i}", f"doc {i + 10}"])
            elif k % 4 == 1:
                ids, vectors = cache.matrix("fake")
                assert np.array_equal(vectors, encoder.vectors([doc_id.replace("doc", "text") for doc_id in ids]))
            else:
                asked = texts[i : i + 15]
                found = cache.get_many([text.replace("text", "doc") for text in asked], asked, encoder)
                assert np.array_equal(found, encoder.vectors(asked))

    cache.embed(["there is a model"], encoder)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, k) for k in range(8)]:
            done.result()


def test_a_text_that_is_forgotten_between_two_look_ups_is_encoded_anew(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.get("a", "forgotten", encoder)
    claim, others = claims.claim, [lambda: cache.embed(["by another thread"], encoder), lambda: cache.invalidate("a")]

    def claim_late(*asked: Any) -> Any:
        """Let others store and forget something after the first look-up, before what it missed is claimed."""
        while others:
            other = threading.Thread(target=others.pop())
            other.start()
            other.join()
        return claim(*asked)

    monkeypatch.setattr(claims, "claim", claim_late)
    report = cache.fill(["a", "b"], ["forgotten", "new"], encoder)
    assert np.array_equal(report.vectors, encoder.vectors(["forgotten", "new"]))
    assert (report.n_encoded, report.n_hits) == (2, 0)
    assert others == []


def test_an_encoder_may_itself_ask_the_cache(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    class Averaging(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            cache.embed([word for text in texts for word in text.split()], encoder)
            return super().encode(texts)

    averaging = Averaging(model_name="averaging")
    assert np.array_equal(cache.get("a", "one two", averaging), averaging.vector("one two"))
    assert set(encoder.texts) >= {"one", "two"}


def test_the_connection_of_a_thread_that_ended_is_closed(cache: EmbeddingCache) -> None:
    def n_handles() -> int:
        gc.collect()
        return len(cache._store._database._handles)  # type: ignore[attr-defined]

    assert len(cache) == 0
    before = n_handles()
    for _ in range(3):
        thread = threading.Thread(target=len, args=(cache,))
        thread.start()
        thread.join()
    assert n_handles() == before


def test_closing_closes_the_connections_of_every_thread(cache_path: Path, encoder: CountingEncoder) -> None:
    cache = EmbeddingCache(cache_path)
    opened, closed = threading.Event(), threading.Event()

    def work() -> None:
        cache.get("a", "text", encoder)
        opened.set()
        closed.wait()
        cache.get("a", "text", encoder)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        opened.wait()
        assert cache.verify() == []
        cache.close()
        closed.set()
        with pytest.raises(StoreClosedError):
            working.result()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for open files in /proc")
def test_closing_leaves_no_file_open(cache_path: Path, encoder: CountingEncoder) -> None:
    def opened() -> list[Path]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if cache_path.name in link.readlink().name]

    for _ in range(3):
        with EmbeddingCache(cache_path) as cache, ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: cache.get(f"{i}", "text", encoder), range(9)))
            assert opened()
    assert opened() == []


# --- calls of the operating system that fail ------------------------------------------------


class Failing:
    """A connection whose next COMMIT is done and then fails, or whatever else it is told to."""

    def __init__(self, connection: Any, statement: str, code: str, *, is_done: bool) -> None:
        self._connection, self._statement, self._is_done = connection, statement, is_done
        self._error = sqlite3.OperationalError("disk I/O error")
        self._error.sqlite_errorcode = getattr(sqlite3, code)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        fails = statement.strip().startswith(self._statement)
        done = self._connection.execute(statement, *values) if self._is_done or not fails else None
        if fails:
            raise self._error
        return done


def fail(cache: EmbeddingCache, statement: str, code: str, *, is_done: bool) -> None:
    """Let a statement of this thread's connection fail, and those of no later connection."""
    assert len(cache) == 0
    handle = cache._store._database._local.handle  # type: ignore[attr-defined]
    handle.connection = Failing(handle.connection, statement, code, is_done=is_done)


@pytest.mark.parametrize("code", ["SQLITE_IOERR_DIR_FSYNC", "SQLITE_IOERR_UNLOCK", "SQLITE_IOERR_RDLOCK"])
def test_what_fails_after_the_commit_is_made_up_for(cache: EmbeddingCache, code: str) -> None:
    if os.name != "posix" and code == "SQLITE_IOERR_DIR_FSYNC":
        pytest.skip("Windows syncs no folders")
    fail(cache, "COMMIT", code, is_done=True)
    cache.put_many(["a"], ["one"], np.ones((1, 4)), model_name="m")
    assert rows(cache.path, "SELECT doc_id FROM documents") == [("a",)]
    cache.put_many(["b"], ["two"], np.ones((1, 4)), model_name="m")
    assert len(cache) == 2


@pytest.mark.skipif(os.name != "posix", reason="Windows syncs no folders")
def test_a_change_whose_folder_cannot_be_synced_is_told_as_written(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    fail(cache, "COMMIT", "SQLITE_IOERR_DIR_FSYNC", is_done=True)
    monkeypatch.setattr(committing.os, "fsync", refuse)
    with pytest.raises(UnconfirmedWriteError, match=r"was written.*Input/output error.*power cut") as caught:
        cache.put_many(["a"], ["one"], np.ones((1, 4)), model_name="m")
    assert caught.value.path == str(cache.path)
    assert rows(cache.path, "SELECT doc_id FROM documents") == [("a",)]


@pytest.mark.parametrize(
    ("statement", "code", "error"),
    [
        ("COMMIT", "SQLITE_IOERR_FSYNC", StoreError),
        ("COMMIT", "SQLITE_FULL", StoreFullError),
        ("BEGIN IMMEDIATE", "SQLITE_READONLY", ReadOnlyError),
        ("SELECT", "SQLITE_IOERR_READ", StoreError),
    ],
)
def test_after_an_error_the_next_call_has_a_new_connection(
    statement: str, code: str, error: type[StoreError], cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    fail(cache, statement, code, is_done=False)
    with pytest.raises(error):
        cache.get("a", "text", encoder)
    assert (len(cache), dump(cache.path)["documents"]) == (0, [])
    cache.get("a", "text", encoder)
    assert dump(cache.path)["documents"] != []


def test_a_block_goes_on_where_an_error_inside_it_was_met_with(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    with cache._store.writing() as connection:
        cache.get("a", "text", encoder)
        with pytest.raises(StoreError), cache._store.reading() as reader:  # type: ignore[attr-defined]
            reader.execute("SELECT nothing FROM nowhere")
        assert connection.in_transaction
        cache.get("b", "text", encoder)
    assert sorted(cache.matrix("fake")[0]) == ["a", "b"]


# --- claims ---------------------------------------------------------------------------------

PLACE = ("embeddings.db", ModelIdentity("fake"))


class InterruptedKeys(list[bytes]):
    """Interrupts whoever goes through it for the first time, after the first key."""

    is_armed = True

    def __iter__(self) -> Iterator[bytes]:
        yield self[0]
        if self.is_armed:
            self.is_armed = False
            raise KeyboardInterrupt
        yield from self[1:]


def claimed_by_another_thread(keys: list[bytes]) -> list[int]:
    def claim() -> list[int]:
        with claims.claim(*PLACE, keys) as claimed:
            return claimed.mine

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(claim).result()


def test_an_interrupt_while_texts_are_claimed_leaves_no_claim() -> None:
    keys = InterruptedKeys([b"a", b"b"])
    with pytest.raises(KeyboardInterrupt), claims.claim(*PLACE, keys):
        pass
    assert claims._owners == {}


def test_a_claim_that_was_left_behind_is_taken_over() -> None:
    with claims.claim(*PLACE, [b"a"]):
        assert claimed_by_another_thread([b"a", b"b"]) == [1]
        (owner,) = {id(owner): owner for of_file in claims._owners.values() for owner in of_file.values()}.values()
        owner.under_way.release()  # as where an interrupt came before the claim was taken back
        assert claimed_by_another_thread([b"a", b"b"]) == [0, 1]
        owner.under_way.acquire()
    assert claims._owners == {}


def test_a_connection_is_deleted_without_waiting_for_the_thread_that_opened_it(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder
) -> None:
    """The garbage collector deletes it in any thread, also in one that the other waits for."""
    deleted = [EmbeddingCache(tmp_path / "deleted.db")]
    is_reading, go_on = threading.Event(), threading.Event()

    def use() -> None:
        deleted[0].get("a", "text", encoder)
        with cache._store.reading():
            is_reading.set()
            go_on.wait(60)

    def delete() -> None:
        deleted.clear()
        gc.collect()

    user, deleter = threading.Thread(target=use), threading.Thread(target=delete)
    user.start()
    is_reading.wait(60)
    deleter.start()
    deleter.join(20)
    try:
        assert not deleter.is_alive()
    finally:
        go_on.set()
        user.join()
        deleter.join()
