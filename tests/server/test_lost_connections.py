"""Connections that end at any moment, servers that are restarted, and writers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, ServerUnreachableError, StoreClosedError, UnconfirmedWriteError
from embstore.stores import open_store
from tests.fakes import CountingEncoder, HookedEncoder
from tests.postgres import Server

pytest.importorskip("psycopg", reason="needs the extra postgres")

import psycopg

from tests.server.proxy import HangUpError, Proxy, standing_before, statement_of

TEXTS = [f"text {i}" for i in range(20)]
IDS = [f"d{i}" for i in range(20)]


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    with standing_before(Proxy(postgres_url)) as proxy:
        yield proxy


class HangsUp:
    """Ends the connection at the n-th message whose statement begins so."""

    def __init__(self, beginning: str, *, at: int = 1, passing_it_on: bool = False) -> None:
        self.beginning, self.at, self.passing_it_on = beginning, at, passing_it_on
        self.n = 0

    def __call__(self, kind: bytes, contents: bytes) -> bytes:
        statement = statement_of(kind, contents).strip()
        if statement and statement.startswith(self.beginning):
            self.n += 1
            if self.n == self.at:
                raise HangUpError(passing_it_on=self.passing_it_on)
        return contents


@pytest.mark.parametrize(
    "beginning", ["BEGIN ISOLATION LEVEL READ COMMITTED", "INSERT INTO vectors", "INSERT INTO doc"]
)
def test_what_is_lost_before_a_commit_is_written_again(proxy: Proxy, beginning: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(proxy.url) as cache:
        proxy.on_message = hangs_up = HangsUp(beginning)
        vectors = cache.get_many(IDS, TEXTS, encoder)
        assert hangs_up.n == 2
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), vectors)
        assert (encoder.n_texts, len(cache), cache.verify()) == (20, 20, [])


@pytest.mark.parametrize("beginning", ["BEGIN ISOLATION LEVEL REPEATABLE READ", "\nSELECT", "SELECT"])
def test_what_is_lost_while_reading_is_read_again(proxy: Proxy, beginning: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(proxy.url) as cache:
        vectors = cache.get_many(IDS, TEXTS, encoder)
        proxy.on_message = hangs_up = HangsUp(beginning.strip(), at=2)
        ids, read = cache.matrix(encoder.model_name)
        assert (ids, read.tolist()) == (IDS, vectors.tolist())
        assert len(cache) == 20
        assert hangs_up.n > 2
        assert cache.get("d3", "text 3", encoder).tolist() == vectors[3].tolist()


@pytest.mark.parametrize(("passing_it_on", "lease_s"), [(False, None), (True, None), (True, 60)])
def test_a_batch_is_stored_whichever_message_is_lost(proxy: Proxy, passing_it_on: bool, lease_s: float | None) -> None:
    """Also a COMMIT: what fills a cache changes nothing where it is done twice."""
    n_lost = 0
    for n in range(1, 100):
        encoder = CountingEncoder(seed=n, model_name=f"model {n}")
        with EmbeddingCache(proxy.url, lease_s=lease_s) as cache:
            cache.get_many(IDS[:2], TEXTS[:2], encoder)
            hangs_up = proxy.on_message = HangsUp("", at=n, passing_it_on=passing_it_on)
            vectors = cache.get_many(IDS, TEXTS, encoder)
            again = cache.get_many(IDS, TEXTS, encoder)
            proxy.on_message = HangsUp("nothing")
            if hangs_up.n < n:
                break
            n_lost += 1
            assert np.array_equal(vectors, again)
            assert np.array_equal(vectors, encoder.vectors(TEXTS))
            assert encoder.n_texts == 20
    assert n_lost > 10
    with EmbeddingCache(proxy.url) as cache:
        assert cache.verify() == []


def test_a_commit_that_nobody_confirms_is_written_or_not_and_says_so(proxy: Proxy) -> None:
    with EmbeddingCache(proxy.url) as cache:
        for n, passing_it_on in enumerate((False, True)):
            proxy.on_message = HangsUp("COMMIT", passing_it_on=passing_it_on)
            vectors = np.full((1, 4), n + 1, dtype=np.float32)
            with pytest.raises(UnconfirmedWriteError, match="write it again"):
                cache.put_many(["a"], [f"text {n}"], vectors, model_name="m")
            proxy.on_message = HangsUp("nothing")
            cache.put_many(["a"], [f"text {n}"], vectors, model_name="m")
            assert cache.matrix("m")[1].tolist() == vectors.tolist()
        assert cache.verify() == []


def test_a_server_that_stays_away_is_an_error_after_a_while(proxy: Proxy) -> None:
    with EmbeddingCache(proxy.url, timeout_s=0.3) as cache:
        cache.put_many(["a"], ["text"], np.ones((1, 4), np.float32), model_name="m")
        proxy.close()

        def hang_up(kind: bytes, contents: bytes) -> bytes:
            raise HangUpError(passing_it_on=False)

        proxy.on_message = hang_up
        for call in (lambda: len(cache), lambda: cache.prune(), lambda: cache.matrix("m")):
            with pytest.raises(ServerUnreachableError, match="cannot be reached"):
                call()


def test_a_server_that_is_restarted_is_used_again(own_postgres: Server) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(own_postgres.url) as cache:
        vectors = cache.get_many(IDS, TEXTS, encoder)
        own_postgres.restart()
        assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), vectors)
        own_postgres.stop("immediate")
        restarting = threading.Thread(target=own_postgres.start)
        restarting.start()
        cache.get_many(["more"], ["more text"], encoder)  # waits until it is there
        restarting.join()
        assert (encoder.n_texts, len(cache), cache.verify()) == (21, 21, [])
        in_a_batch = HookedEncoder(lambda _: own_postgres.restart("immediate"))
        cache.get_many(["one", "two"], ["text of one", "text of two"], in_a_batch)
        assert (in_a_batch.n_texts, len(cache), cache.verify()) == (2, 23, [])


def test_a_closed_cache_says_so(postgres_url: str) -> None:
    cache = EmbeddingCache(postgres_url)
    cache.close()
    cache.close()
    for call in (lambda: len(cache), lambda: cache.prune(), lambda: cache.get("a", "b", CountingEncoder())):
        with pytest.raises(StoreClosedError, match="closed"):
            call()


def test_no_connection_stays_open(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as watching:

        def n_connections() -> int:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            ((n,),) = watching.execute(query, ("counted",)).fetchall()
            return n

        url = f"{postgres_url}&application_name=counted"
        with EmbeddingCache(url) as cache, ThreadPoolExecutor(20) as threads:
            encoder = CountingEncoder()
            list(threads.map(lambda i: cache.get(f"{i}", f"text {i}", encoder), range(40)))
            assert 1 <= n_connections() <= 10
        opened = [EmbeddingCache(url)]
        opened[0].get("1", "text 1", encoder)
        assert n_connections() >= 1
        opened.clear()
        for _ in range(100):
            if not n_connections():
                break
            threading.Event().wait(0.02)
        assert n_connections() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(postgres_url: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(postgres_url) as cache:
        cache.get_many(IDS, TEXTS, encoder)

        def in_a_transaction() -> int:
            cache.put_many(["mine"], ["mine"], np.ones((1, 8), np.float32), model_name="fake")
            child = os.fork()
            if not child:
                try:
                    assert len(cache) == 20  # without what the parent has not committed
                    cache.put_many(["child's"], ["its"], np.ones((1, 8), np.float32), model_name="fake")
                    assert cache.get("d1", "text 1", encoder).tolist() == encoder.vector("text 1").tolist()
                    os._exit(0)
                except BaseException as error:
                    sys.stderr.write(repr(error))
                finally:
                    os._exit(1)
            return os.waitpid(child, 0)[1]

        assert cache.store.write(in_a_transaction) == 0
        assert len(cache) == 22
        assert cache.verify() == []


def put_for_ever(url: str, told: Path) -> None:
    """Store batches of 50 documents, and note each once it was acknowledged."""
    rng = np.random.default_rng(0)
    with EmbeddingCache(url) as cache, told.open("a", encoding="utf-8") as acknowledged:
        for batch in range(10_000):
            ids = [f"{batch}/{i}" for i in range(50)]
            cache.put_many(ids, ids, rng.standard_normal((50, 32), np.float32), model_name="m", collection=str(batch))
            acknowledged.write(f"{batch}\n")
            acknowledged.flush()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_whole_batches_and_all_that_were_acknowledged(postgres_url: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    context = multiprocessing.get_context("spawn")
    told = tmp_path / "acknowledged"
    told.touch()
    for n in range(3):
        killed = context.Process(target=put_for_ever, args=(postgres_url, told))
        killed.start()
        while len(told.read_text().splitlines()) < 4 * (n + 1):
            killed.join(0.01)
            assert killed.is_alive()
        killed.join(rng.uniform(0, 0.05))
        os.kill(killed.pid or 0, signal.SIGKILL)
        killed.join()
    with EmbeddingCache(postgres_url) as cache:
        documents = list(cache.documents())
        sizes = dict.fromkeys({document.collection for document in documents}, 0)
        for document in documents:
            sizes[document.collection] += 1
        assert set(sizes.values()) == {50}
        assert {*told.read_text().split()} <= set(sizes)
        assert cache.verify() == []


def test_work_that_the_server_cannot_put_in_order_is_run_again(postgres_url: str) -> None:
    """By PostgreSQL's own error for it."""
    store = open_store(postgres_url)
    n_runs = 0

    def work() -> str:
        nonlocal n_runs
        n_runs += 1
        store.byte_values.mset({"key": str(n_runs).encode()})
        if n_runs < 4:
            with store.reading() as connection:
                connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
        return "done"

    try:
        assert (store.write(work), n_runs, store.byte_values.mget(["key"])) == ("done", 4, [b"4"])
    finally:
        store.close()
