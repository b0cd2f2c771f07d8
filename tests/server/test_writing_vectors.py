"""Writing the same vectors at once: in one order, and nothing that another has written is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embstore import content_hash
from embstore.identity import ModelIdentity

pytest.importorskip("psycopg", reason="needs the extra postgres")

import psycopg

from embstore.stores.base import StoredModel
from embstore.stores.postgres import models, vectors
from embstore.stores.postgres.store import PostgresStore

KEYS = [content_hash(f"text {i}") for i in range(100)]
VECTORS = np.arange(400, dtype=np.float32).reshape(100, 4)


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    with contextlib.closing(PostgresStore(postgres_url)) as store:
        yield store
        assert store.verify() == []


@pytest.fixture
def model(store: PostgresStore) -> StoredModel:
    return store.ensure_model(ModelIdentity("m"), 4, None)


@pytest.mark.parametrize("bytes_at_once", [2**21, 160, 16])
def test_rows_are_written_in_one_order_and_their_ids_ascend_as_they_were_given(
    store: PostgresStore, model: StoredModel, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or two writers of the same rows would wait for each other."""
    monkeypatch.setattr(vectors, "BYTES_WRITTEN_AT_ONCE", bytes_at_once)
    assert store.insert_vectors(model, KEYS[:3], VECTORS[:3], standalone=True) == 3
    assert store.insert_vectors(model, KEYS, VECTORS, standalone=False) == 97
    rows = store._server.fetch("SELECT content_hash FROM vectors WHERE standalone = FALSE ORDER BY ctid")
    assert [key for (key,) in rows] == sorted(KEYS[3:])
    there = store.look_up(model, KEYS)
    assert there.vectors.tolist() == VECTORS.tolist()
    assert (np.diff(there.vector_ids) > 0).all()


def test_what_is_marked_keeps_the_vector_that_another_has_just_put(
    store: PostgresStore, model: StoredModel, postgres_url: str
) -> None:
    store.insert_vectors(model, KEYS[:1], VECTORS[:1], standalone=False)
    marking = threading.Thread(target=store.mark_standalone, args=(model, KEYS[:1]))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"

    def replace() -> None:
        store.replace_vectors(model, KEYS[:1], VECTORS[1:2], standalone=False)
        marking.start()
        while watching.execute(waiting).fetchone() == (0,):
            assert marking.is_alive()

    with psycopg.connect(postgres_url, autocommit=True) as watching:
        store.write(replace)
    marking.join()
    there = store.look_up(model, KEYS[:1])
    assert (there.vectors.tolist(), there.standalone.tolist()) == (VECTORS[1:2].tolist(), [True])


def test_all_is_replaced_where_another_is_first_with_some_of_it(
    store: PostgresStore, model: StoredModel, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert_vectors(model, KEYS[:2], VECTORS[:2], standalone=False)
    look_up = vectors._look_up
    is_first = True

    def look_up_and_be_late(*arguments: Any) -> Any:
        nonlocal is_first
        found = look_up(*arguments)
        if is_first:
            is_first = False
            with contextlib.closing(PostgresStore(postgres_url)) as other:
                other.insert_vectors(model, KEYS[2:4], VECTORS[2:4], standalone=True)
        return found

    monkeypatch.setattr(vectors, "_look_up", look_up_and_be_late)
    assert store.replace_vectors(model, KEYS[:5], VECTORS[50:55], standalone=False) == 1
    there = store.look_up(model, KEYS[:5])
    assert there.vectors.tolist() == VECTORS[50:55].tolist()
    assert there.standalone.tolist() == [False, False, True, True, False]


def test_a_model_that_was_converted_since_it_was_found_is_read_as_it_is_now(
    store: PostgresStore, model: StoredModel
) -> None:
    store.insert_vectors(model, KEYS, VECTORS, standalone=False)
    store.put_documents(model, "", ["a", "b"], KEYS[:2])
    store.convert(model, "float16")
    assert store.look_up(model, KEYS).vectors.tolist() == VECTORS.tolist()
    read = store.read_documents(model, "", ["a", "b"], KEYS[:2])
    assert read is not None
    assert read.tolist() == VECTORS[:2].tolist()


@pytest.mark.parametrize("is_exact", [False, True])
def test_a_model_that_is_converted_once_it_was_found_is_the_same_one(
    store: PostgresStore, model: StoredModel, postgres_url: str, monkeypatch: pytest.MonkeyPatch, is_exact: bool
) -> None:
    store.insert_vectors(model, KEYS[:1], VECTORS[:1], standalone=False)
    name = "find" if is_exact else "find_variant"
    find = getattr(models, name)
    is_first = True

    def find_and_be_late(*arguments: Any) -> Any:
        nonlocal is_first
        found = find(*arguments)
        if is_first:
            is_first = False
            monkeypatch.undo()
            with contextlib.closing(PostgresStore(postgres_url)) as other:
                other.convert(model, "float16")
        return found

    monkeypatch.setattr(models, name, find_and_be_late)
    given = (store.ensure_model if is_exact else store.ensure_variant)(model.identity, 4, None)
    # Who asks for a format by name gets that, though the other is stored.
    assert [each.dtype for each in store.find_models()] == (["float16", "float32"] if is_exact else ["float16"])
    assert given.dtype == ("float32" if is_exact else "float16")
    assert given.model_id == store.find_models()[-1].model_id


def test_a_model_that_two_store_at_once_in_two_formats_is_one(store: PostgresStore, postgres_url: str) -> None:
    identity = ModelIdentity("new")
    with contextlib.closing(PostgresStore(postgres_url, dtype="float16")) as other:
        late = threading.Thread(target=other.ensure_variant, args=(identity, 4, None))

        def ensure() -> StoredModel:
            ensured = store.ensure_variant(identity, 4, None)
            late.start()
            while watching.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
                assert late.is_alive()
            return ensured

        with psycopg.connect(postgres_url, autocommit=True) as watching:
            assert store.write(ensure).dtype == "float32"
        late.join()
    assert [each.dtype for each in store.find_models("new")] == ["float32"]
