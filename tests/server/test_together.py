"""What several do at once on a server comes out as if one had done it after the other, and outlives a crash."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    ModelIdentity,
    ServerUnreachableError,
    StoreBusyError,
    UnconfirmedWriteError,
    content_hash,
)
from embstore.stores import open_store
from embstore.stores.texts import StoredText
from tests.fakes import CountingEncoder
from tests.postgres import NoServerError, Schemas, own_server, programs
from tests.tables import rows

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

N_THREADS = 8
KEYS = [content_hash(f"text {i}") for i in range(20)]
VECTORS = CountingEncoder(dim=5).vectors([f"text {i}" for i in range(20)])


def at_once(work: Callable[[int], object]) -> None:
    """Let threads begin together."""
    begin = threading.Barrier(N_THREADS)

    def run(thread: int) -> None:
        begin.wait(60)
        work(thread)

    with ThreadPoolExecutor(N_THREADS) as threads:
        for running in [threads.submit(run, thread) for thread in range(N_THREADS)]:
            running.result()


def test_what_many_count_at_once_adds_up(schemas: Schemas) -> None:
    encoder = CountingEncoder()
    with schemas.one() as url, EmbeddingCache(url) as cache:

        def work(thread: int) -> None:
            with EmbeddingCache(url) as mine:
                for i in range(6):
                    mine.get(f"{thread}/{i}", f"text {thread}/{i}", encoder)
                    mine.get(f"{thread}/{i}", f"text {thread}/{i}", encoder)
                mine.invalidate("nothing")  # a write, with which hits are noted that wait

        at_once(work)
        n = 6 * N_THREADS
        ((n_hits, n_encoded, n_stored),) = rows(url, "SELECT sum(n_hits), sum(n_encoded), sum(n_stored) FROM usage")
        assert (n_hits, n_encoded, n_stored) == (n, n, n)
        assert rows(url, "SELECT n_texts FROM encodings") == [(n,)]
        assert cache.verify() == []


def test_texts_that_many_write_into_one_collection_are_all_there(schemas: Schemas) -> None:
    with schemas.one() as url:
        stores = [open_store(url) for _ in range(N_THREADS)]

        def work(thread: int) -> None:
            texts = stores[thread].texts
            texts.ensure_collection("c", ModelIdentity("m"))
            for i in range(5):
                mine = [
                    StoredText(f"{thread}/{i}", KEYS[0], "{}", "x"),
                    StoredText("shared", KEYS[1], "{}", f"{thread}"),
                ]
                texts.put("c", mine)
            assert texts.delete("c", [f"{thread}/0"]) == 1

        at_once(work)
        found = stores[0].texts.find_collection("c")
        assert found is not None
        assert found.n_texts == 4 * N_THREADS + 1 == len(stores[0].texts.text_ids("c"))
        assert found.texts_version == 6 * N_THREADS
        assert stores[0].verify() == []
        for store in stores:
            store.close()


def test_a_model_that_many_begin_with_is_stored_once(schemas: Schemas) -> None:
    with schemas.one() as url:
        stores = [open_store(url) for _ in range(N_THREADS)]
        given: list[int] = []
        at_once(lambda thread: given.append(stores[thread].ensure_variant(ModelIdentity("m"), 5, None).model_id))
        assert len(set(given)) == 1
        assert len(stores[0].find_models()) == 1
        for store in stores:
            store.close()


FORGETS: dict[str, Callable[[EmbeddingCache], object]] = {
    "prune": lambda cache: cache.prune(standalone=True),
    "clear": lambda cache: cache.clear(),
    "clear of the model": lambda cache: cache.clear(model_name="m"),
    "invalidate": lambda cache: cache.invalidate("old"),
    "convert": lambda cache: cache.convert("m", dtype="float16"),
}


@pytest.mark.parametrize("forget", FORGETS)
def test_who_forgets_waits_for_who_writes_and_takes_nothing_from_him(forget: str, schemas: Schemas) -> None:
    """Vectors that are stored, and that no document points at yet, are those that a writer is about to point at."""
    with schemas.one() as url:
        store, impatient = open_store(url), EmbeddingCache(url, timeout_s=0.2)
        model = store.ensure_model(ModelIdentity("m"), 5, None)
        store.insert_vectors(model, KEYS[:5], VECTORS[:5], standalone=False)
        store.put_documents(model, "", ["old"], KEYS[4:5])

        def write() -> None:
            assert store.insert_vectors(model, KEYS, VECTORS, standalone=False) == 15  # five are there
            with pytest.raises(StoreBusyError):
                FORGETS[forget](impatient)
            store.put_documents(model, "", [f"doc {i}" for i in range(20)], KEYS)

        store.write(write)
        assert store.verify() == []
        ids, vectors = store.matrix(model, collection=None, doc_ids=[f"doc {i}" for i in range(20)])
        assert (len(ids), vectors.tolist()) == (20, VECTORS.tolist())
        FORGETS[forget](impatient)
        assert store.verify() == []
        impatient.close()
        store.close()


def test_a_writer_who_met_a_forgotten_model_stores_it_anew(schemas: Schemas) -> None:
    with schemas.one() as url, EmbeddingCache(url) as cache, EmbeddingCache(url) as other:
        encoder = CountingEncoder()
        for i in range(4):
            cache.get("a", f"text {i}", encoder)
            other.clear()
        cache.get("a", "text", encoder)
        assert cache.matrix("fake")[1].tolist() == encoder.vectors(["text"]).tolist()
        assert cache.verify() == []


def test_what_was_acknowledged_outlives_crashes_of_the_server() -> None:
    try:
        programs()
    except NoServerError as error:
        pytest.skip(str(error))
    with own_server(durable=True) as server:
        stop = threading.Event()
        acknowledged: list[int] = []

        def write() -> None:
            with EmbeddingCache(server.url) as cache:
                for i in itertools.count():
                    if stop.is_set():
                        return
                    try:
                        cache.put_many([f"doc {i}"], [f"text {i}"], np.full((1, 3), float(i)), model_name="m")
                    except (
                        ServerUnreachableError,
                        UnconfirmedWriteError,
                    ):  # it was written or it was not; nobody was told that it was
                        continue
                    acknowledged.append(i)

        with ThreadPoolExecutor(1) as threads:
            writing = threads.submit(write)
            try:
                for n in (10, 40):
                    while not writing.done() and len(acknowledged) < n:
                        stop.wait(0.05)
                    server.restart("immediate")
            finally:
                stop.set()
            writing.result()
        with EmbeddingCache(server.url) as cache:
            ids, vectors = cache.matrix("m")
            there = dict(zip(ids, vectors[:, 0].tolist(), strict=True))
            assert {f"doc {i}": there.get(f"doc {i}") for i in acknowledged} == {f"doc {i}": i for i in acknowledged}
            assert cache.verify() == []
