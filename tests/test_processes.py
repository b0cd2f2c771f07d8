"""Several processes on one file: made at once, filled at once, forked, and killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache
from embstore.stores import opening
from embstore.stores.btrees.connection import FileConnection
from tests.fakes import CountingEncoder, HookedEncoder
from tests.files import rows

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Started afresh: a child that inherits nothing is what another program is.
spawn = multiprocessing.get_context("spawn")

N_PROCESSES = 8
TEXTS = [f"text {i}" for i in range(120)]
IDS = [f"doc {i}" for i in range(120)]


def run_all(target: Callable[..., None], *arguments: object, n: int = N_PROCESSES) -> None:
    """Run a function in n processes that begin together; each must end well."""
    barrier = spawn.Barrier(n)
    processes = [spawn.Process(target=target, args=(barrier, k, *arguments)) for k in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * n


# --- at once --------------------------------------------------------------------------------


def create_at_once(barrier: Barrier, k: int, folder: Path, n_rounds: int) -> None:
    encoder = CountingEncoder()
    for i in range(n_rounds):
        barrier.wait(60)
        with EmbeddingCache(folder / f"{i}.db") as cache:
            assert np.array_equal(cache.get(f"doc {k}", f"text {k}", encoder), encoder.vector(f"text {k}"))


def test_eight_processes_that_create_one_file_at_once_all_have_a_working_cache(tmp_path: Path) -> None:
    n_rounds = 12
    run_all(create_at_once, tmp_path, n_rounds)
    encoder = CountingEncoder()
    for i in range(n_rounds):
        with EmbeddingCache(tmp_path / f"{i}.db") as cache:
            assert cache.verify() == []
            asked = [f"doc {k}" for k in range(N_PROCESSES)]
            expected = encoder.vectors([f"text {k}" for k in range(N_PROCESSES)])
            assert cache.matrix("fake", doc_ids=asked)[1].tolist() == expected.tolist()
        assert rows(tmp_path / f"{i}.db", "SELECT count(*) FROM _sqlite_migrations") == rows(
            tmp_path / "0.db", "SELECT max(rowid) FROM _sqlite_migrations"
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{i}.db" for i in range(n_rounds))


def fill_at_once(barrier: Barrier, k: int, path: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(path) as cache:
        barrier.wait(60)
        for _ in range(3):
            mine = TEXTS[k * 7 :] + TEXTS[: k * 7]
            assert np.array_equal(cache.get_many(IDS, mine, encoder, batch_size=8), encoder.vectors(mine))
        assert len(set(encoder.texts)) == len(encoder.texts)


def test_processes_that_fill_one_file_with_the_same_texts_meet_no_error_and_leave_one_row_each(
    cache_path: Path,
) -> None:
    run_all(fill_at_once, cache_path, n=4)
    with EmbeddingCache(cache_path) as cache:
        assert cache.verify() == []
        stats = cache.stats()
        assert (stats.n_vectors, stats.n_documents) == (len(TEXTS), len(IDS))


def write_and_forget(barrier: Barrier, k: int, path: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(path) as cache:
        barrier.wait(60)
        for i in range(15):
            if k % 3 == 0:
                cache.invalidate(IDS[i : i + 20])
                cache.prune(standalone=True)
            elif k % 3 == 1:
                some, texts = IDS[i : i + 30], TEXTS[i : i + 30]
                assert np.array_equal(cache.get_many(some, texts, encoder), encoder.vectors(texts))
            else:
                ids, vectors = cache.matrix("fake")
                expected = encoder.vectors([TEXTS[IDS.index(doc_id)] for doc_id in ids])
                assert np.array_equal(vectors, expected)
                assert cache.verify() == []


def test_readers_writers_and_those_who_forget_disturb_each_other_in_nothing(cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(IDS, TEXTS, CountingEncoder())
    run_all(write_and_forget, cache_path, n=3)
    with EmbeddingCache(cache_path) as cache:
        assert cache.verify() == []


def test_a_spawned_process_opens_the_file_for_itself(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    run_all(fill_at_once, cache.path, n=1)
    assert cache.stats().n_vectors == len(TEXTS)


# --- forks ----------------------------------------------------------------------------------


@contextlib.contextmanager
def forked(work: Callable[[], object]) -> Iterator[None]:
    """Run a function in a forked child beside the block; it must end well, and within a minute."""
    alive, kept_open = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(kept_open)  # the child alone holds it now, so that its end can be waited for
    try:
        yield
    finally:
        ended, _, _ = select.select([alive], [], [], 60)
        os.close(alive)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@needs_fork
def test_a_forked_child_reads_and_writes_through_a_connection_of_its_own(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    with cache._store.writing() as of_the_parent:
        pass

    def work() -> None:
        with cache._store.writing() as of_the_child:
            assert of_the_child is not of_the_parent
        child = CountingEncoder()
        assert np.array_equal(cache.get_many(IDS, TEXTS, child), child.vectors(TEXTS))
        assert child.calls == []
        cache.get("of the child", "new", child)
        cache.invalidate(IDS[0])
        assert cache.verify() == []

    with forked(work):
        cache.get("of the parent", "also new", encoder)
    assert ("of the child" in cache, "of the parent" in cache, IDS[0] in cache) == (True, True, False)
    assert cache.verify() == []


@needs_fork
def test_a_child_that_closes_the_cache_takes_nothing_from_its_parent(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    with forked(cache.close):
        pass
    cache.get("b", "more", encoder)
    with forked(lambda: cache._store.close()):
        pass
    assert len(cache) == 2


@needs_fork
def test_a_child_that_forgets_the_cache_takes_nothing_from_its_parents_transaction(cache_path: Path) -> None:
    encoder = CountingEncoder()
    caches = [EmbeddingCache(cache_path)]
    caches[0].get("a", "text", encoder)

    def forget() -> None:
        import gc

        caches.clear()
        gc.collect()

    with caches[0]._store.writing():
        caches[0].get("b", "more", encoder)
        with forked(forget):
            pass
        # A child that closed the connection would have rolled back what its parent is writing.
        assert cache_path.with_name(f"{cache_path.name}-journal").exists()
        # A child that closed the file would have dropped this process's lock on it.
        script = (
            "import sys; from embstore import EmbeddingCache, StoreBusyError\n"
            "try: EmbeddingCache(sys.argv[1], timeout_s=0).invalidate('a')\n"
            "except StoreBusyError: print('busy')"
        )
        done = subprocess.run([sys.executable, "-c", script, str(cache_path)], capture_output=True, text=True)
        assert done.stdout == "busy\n", done.stderr
    assert (len(caches[0]), caches[0].verify()) == (2, [])
    caches[0].close()


@needs_fork
@pytest.mark.parametrize("kind", ["reading", "writing"])
def test_a_child_forked_while_another_thread_reads_can_write(
    kind: str, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    inside, forking, release = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with getattr(cache._store._database, kind)() as connection:  # type: ignore[attr-defined]
            connection.execute("SELECT * FROM documents").fetchall()
            inside.set()
            forking.wait()
            release.wait(0.2)  # nothing tells when fork() has begun to wait

    def work() -> None:
        assert np.array_equal(cache.get("a", "text", encoder), encoder.vector("text"))
        cache.get("of the child", "new", encoder)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    forking.set()
    with forked(work):
        release.set()
        thread.join()
        cache.get("of the parent", "also new", encoder)
    assert sorted(row.doc_id for row in cache.documents()) == ["a", "of the child", "of the parent"]


@needs_fork
def test_a_child_forked_in_the_middle_of_its_own_threads_transaction_leaves_it_to_the_parent(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    with cache._store.writing():
        cache.get("b", "more", encoder)
        with forked(lambda: None):
            pass
        cache.get("c", "even more", encoder)
    assert (len(cache), cache.verify()) == (3, [])
    with forked(lambda: cache.get("d", "new", encoder)):
        pass
    assert len(cache) == 4


@needs_fork
@pytest.mark.parametrize("kind", ["reading", "writing"])
@pytest.mark.parametrize("way", ["end", "exception"])
def test_a_child_that_comes_out_of_the_block_that_it_was_forked_in_leaves_it_to_the_parent(
    kind: str, way: str, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    """Its rollback would take away the journal of its parent, whose commit would then fail."""
    cache.get("a", "text", encoder)
    with contextlib.ExitStack() as block:
        block.enter_context(getattr(cache._store, kind)())
        if kind == "writing":
            cache.get("b", "more", encoder)

        def come_out() -> None:
            if way == "end":
                block.close()
            else:
                block.__exit__(ValueError, ValueError("of the child"), None)

        with forked(come_out):
            pass
        assert Path(f"{cache.path}-journal").exists() == (kind == "writing")
    assert (len(cache), cache.verify()) == (2 if kind == "writing" else 1, [])


@needs_fork
@pytest.mark.parametrize("way", ["the end of a thread", "close"])
def test_a_fork_waits_until_another_thread_has_closed_its_connection(
    way: str, cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of it that thread has locks of SQLite's, which nobody would release in the child."""
    cache.get("a", "text", encoder)
    closing, forking = threading.Event(), threading.Event()
    order: list[str] = []

    class Slow(FileConnection):
        def close(self) -> None:
            is_first = not closing.is_set()  # it is closed once more when it is deleted
            if is_first:
                closing.set()
                forking.wait(10)
                threading.Event().wait(0.2)  # nothing tells when fork() has begun to wait
            super().close()
            if is_first:
                order.append("closed")

    monkeypatch.setattr(opening, "FileConnection", Slow)

    def use() -> None:
        other.get("b", "more", encoder)
        if way == "close":
            other.close()

    forking.set()
    with EmbeddingCache(cache.path) as other:
        order.clear()
        closing.clear()
        forking.clear()
        thread = threading.Thread(target=use)
        thread.start()
        closing.wait()
        forking.set()
        with forked(lambda: None):
            order.append("forked")
        thread.join()
        forking.set()
    assert order[:2] == ["closed", "forked"]


@needs_fork
def test_a_fork_is_not_kept_waiting_by_threads_that_never_stop_reading(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    for i in range(3):
        stop = threading.Event()

        def read(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                cache.matrix("fake")

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            with forked(lambda i=i: cache.get(f"child {i}", f"new {i}", encoder)):  # type: ignore[misc]
                # Threads of one process that read without a pause let no other process write: SQLite's locks are
                # the process's, and it keeps them.
                stop.set()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert [f"child {i}" in cache for i in range(3)] == [True] * 3


@needs_fork
def test_multiprocessing_with_fork_works_with_an_open_cache(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=cache.get, args=(f"new {i}", f"new {i}", encoder)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert len(cache) == len(IDS) + 3


# --- kills ----------------------------------------------------------------------------------

FILL = """
import sys

from embstore import EmbeddingCache, filling
from tests.fakes import HookedEncoder

filling.GROUP_S = 0.0  # a commit a batch


def hook(texts):
    print(len(encoder.calls), flush=True)
    if len(encoder.calls) == 5:
        sys.stdin.read()


encoder = HookedEncoder(hook)
with EmbeddingCache(sys.argv[1]) as cache:
    texts = [f"text {i}" for i in range(100)]
    cache.get_many([f"doc {i}" for i in range(100)], texts, encoder, batch_size=10)
"""


def test_after_a_kill_while_filling_only_the_rest_is_encoded(cache_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", FILL, str(cache_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(6)] == [f"{k}\n" for k in range(6)]
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.communicate()
    encoder = CountingEncoder()
    texts, ids = TEXTS[:100], IDS[:100]
    with EmbeddingCache(cache_path) as cache:
        stored = sorted(cache.matrix("fake")[0])
        assert len(stored) in (40, 50)  # the fifth group was being stored
        assert np.array_equal(cache.get_many(ids, texts, encoder), encoder.vectors(texts))
        assert sorted(encoder.texts) == sorted(set(texts) - {doc_id.replace("doc", "text") for doc_id in stored})
        assert cache.verify() == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal, also where the tests run in the background."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_filling_keeps_what_was_encoded(cache_path: Path) -> None:
    def interrupt(texts: list[str]) -> None:
        if len(encoder.calls) == 4:
            signal.raise_signal(signal.SIGINT)

    encoder = HookedEncoder(interrupt)
    with EmbeddingCache(cache_path) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.get_many(IDS, TEXTS, encoder, batch_size=10)
        assert (len(cache), cache.verify()) == (40, [])


CLOSED_WHILE_USED = """
import sys, threading
from embstore import EmbeddingCache, StoreClosedError
from tests.fakes import CountingEncoder

cache = EmbeddingCache(sys.argv[1])
encoder = CountingEncoder()
under_way = threading.Barrier(5)
ended = []

def work(name):
    cache.get(name, name, encoder)
    under_way.wait()
    try:
        for i in range(100_000):
            cache.get(f"{name} {i}", f"{name} {i}", encoder)
    except StoreClosedError:
        ended.append(name)

threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(4)]
for thread in threads:
    thread.start()
under_way.wait()
cache.close()
for thread in threads:
    thread.join()
print(len(ended))
"""


def test_a_cache_that_is_closed_while_threads_use_it_ends_them_with_an_error_of_ours(cache_path: Path) -> None:
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", CLOSED_WHILE_USED, str(cache_path)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=Path(__file__).parent.parent,
            check=False,
        )
        assert (ran.returncode, ran.stdout.strip()) == (0, "4"), ran.stderr
    with EmbeddingCache(cache_path) as cache:
        assert cache.verify() == []


def test_a_query_does_not_wait_for_another_threads_long_call(cache: EmbeddingCache) -> None:
    begun, query_done = threading.Event(), threading.Event()

    class Slow(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            if texts[0].startswith("long"):
                begun.set()
                assert query_done.wait(60)
            return super().encode(texts)

    encoder = Slow()
    filling = threading.Thread(target=cache.get_many, args=(["a"], ["long text"], encoder))
    filling.start()
    assert begun.wait(60)
    assert np.array_equal(cache.embed_query("query", encoder), encoder.vector("query"))
    query_done.set()
    filling.join()
    assert sorted(encoder.texts) == ["long text", "query"]
