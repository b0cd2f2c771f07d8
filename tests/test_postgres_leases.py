"""Leases on a server: what has no like in a file."""

from __future__ import annotations

import pytest

from embstore import content_hash
from embstore.stores import open_store
from embstore.stores.base import Store
from tests.tables import rows

pytest.importorskip("psycopg", reason="needs the extra postgres")

MODEL, KEYS = b"m" * 32, [content_hash("a"), content_hash("b")]


def claim(store: Store, owner: str) -> list[int]:
    return store.leases.claim(MODEL, KEYS, owner=owner, lease_s=60, most=2)


def test_work_that_began_before_a_lease_was_given_does_not_take_it_for_one_of_a_clock_set_back(
    postgres_url: str,
) -> None:
    from embstore.stores.postgres.store import PostgresStore

    early, other = PostgresStore(postgres_url), open_store(postgres_url)

    def work() -> list[int]:
        is_later = "SELECT clock_timestamp() > now() + make_interval(secs => 1.2)"
        while not early._server.fetch(is_later)[0][0]:
            pass
        assert claim(other, "b") == [0, 1]
        return claim(early, "a")

    assert early.write(work) == []
    assert rows(postgres_url, "SELECT DISTINCT owner FROM leases") == [("b",)]
    early.close()
    other.close()
