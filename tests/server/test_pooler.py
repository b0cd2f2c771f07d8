"""Servers behind a pooler, and servers that are no PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

pytest.importorskip("psycopg", reason="needs the extra postgres")

from tests.server.proxy import Pooler, Proxy, standing_before, statement_of, with_statement

N_TEXTS = 60

# What outlives a transaction: on a connection that a pooler lends to others it would be theirs.
LEFT_BEHIND = """
SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
    (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), (SELECT count(*) FROM pg_cursors),
    (SELECT count(*) FROM pg_listening_channels()), current_setting('lock_timeout'),
    current_setting('default_transaction_isolation')
"""


def test_each_transaction_may_have_another_connection(postgres_url: str) -> None:
    def work(thread: int) -> list[list[float]]:
        encoder = CountingEncoder()
        doc_ids = [f"{thread}/{i}" for i in range(N_TEXTS)]
        texts = [f"text {i}" for i in range(N_TEXTS)]
        vectors = cache.get_many(doc_ids, texts, encoder, collection=str(thread))
        ids, read = cache.matrix(encoder.model_name, collection=str(thread))
        assert sorted(ids) == sorted(doc_ids)
        assert np.array_equal(read[np.argsort(ids)], vectors[np.argsort(doc_ids)])
        cache.invalidate(doc_ids[:3], collection=str(thread))
        return vectors.tolist()

    with standing_before(Pooler(postgres_url, 3)) as pooler:
        with EmbeddingCache(pooler.url) as cache, ThreadPoolExecutor(6) as threads:
            given = list(threads.map(work, range(6)))
            assert all(vectors == given[0] for vectors in given)
            assert cache.verify() == []
        assert pooler.n_transactions > 40
        left = [backend.execute(LEFT_BEHIND).fetchone() for backend in pooler.backends]
    assert left == [(0, 0, 0, 0, 0, "0", "read committed")] * 3


def test_statements_that_are_prepared_are_so_where_that_is_asked_for(postgres_url: str) -> None:
    with standing_before(Proxy(postgres_url)) as proxy:
        names: list[bytes] = []

        def listen(kind: bytes, contents: bytes) -> bytes:
            if kind == b"P":
                names.append(contents.split(b"\0")[0])
            return contents

        proxy.on_message = listen
        for option, is_prepared in (("", False), ("&prepare_threshold=1", True), ("&prepare_threshold=none", False)):
            with EmbeddingCache(proxy.url + option) as cache:
                for _ in range(8):
                    cache.get("a", "text", CountingEncoder())
            assert any(names) is is_prepared, option
            names.clear()


def test_a_server_that_refuses_copy_is_read_by_select(postgres_url: str) -> None:
    """As CockroachDB does, with the same SQLSTATE: here by a statement that PostgreSQL does not know either."""
    n_refused = 0

    def refuse(kind: bytes, contents: bytes) -> bytes:
        nonlocal n_refused
        if statement_of(kind, contents).startswith("COPY"):
            n_refused += 1
            return with_statement(kind, contents, "CREATE ASSERTION never CHECK (true)")
        return contents

    encoder = CountingEncoder()
    doc_ids, texts = [f"d{i}" for i in range(N_TEXTS)], [f"text {i % 50}" for i in range(N_TEXTS)]
    with standing_before(Proxy(postgres_url)) as proxy:
        proxy.on_message = refuse
        with EmbeddingCache(proxy.url) as cache:
            vectors = cache.get_many(doc_ids, texts, encoder)
            with cache.store.reading():  # goes on after the refusal
                ids, read = cache.matrix(encoder.model_name)
                assert len(cache) == N_TEXTS
            some, of_some = cache.matrix(encoder.model_name, doc_ids=doc_ids[::-7])
            pages = list(cache.iter_matrix(encoder.model_name, batch_rows=7))
            assert cache.verify() == []
    assert n_refused == 1
    row_of = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    assert np.array_equal(read, vectors[[row_of[doc_id] for doc_id in ids]])
    assert (some, of_some.tolist()) == (doc_ids[::-7], vectors[::-7].tolist())
    assert [doc_id for page, _ in pages for doc_id in page] == ids
    assert np.array_equal(np.concatenate([rows for _, rows in pages]), read)
