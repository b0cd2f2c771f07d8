"""The store beneath a cache: what its protocol promises, on the one in SQLite."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embstore import DimensionError, ModelIdentity, StoreBusyError, content_hash
from embstore.stores import open_store, tables
from embstore.stores.base import Store, StoredModel
from embstore.stores.sqlite import SQLiteStore
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.tables import documents, vectors
from tests.fakes import CountingEncoder

IDENTITY = ModelIdentity.of("m", {"a": 1})
KEYS = [content_hash(f"text {i}") for i in range(50)]
VECTORS = CountingEncoder(dim=5).vectors([f"text {i}" for i in range(50)])


@pytest.fixture
def store(cache_path: Path) -> Iterator[Store]:
    store = open_store(cache_path)
    yield store
    assert store.verify() == []
    store.close()


@pytest.fixture
def model(store: Store) -> StoredModel:
    """A model with fifty vectors; those at even places were cached without an id."""
    with store.writing():
        model = store.ensure_model(IDENTITY, 5, None)
        assert store.insert_vectors(model, KEYS[::2], VECTORS[::2], standalone=True) == 25
        assert store.insert_vectors(model, KEYS, VECTORS, standalone=False) == 25
    return model


def test_the_store_has_every_method_of_the_protocol_with_its_parameters() -> None:
    for name, method in inspect.getmembers(Store, inspect.isfunction):
        if not name.startswith("_"):
            expected = [name.rstrip("_") for name in inspect.signature(method).parameters]
            found = [name.rstrip("_") for name in inspect.signature(getattr(SQLiteStore, name)).parameters]
            assert found == expected, name


def test_a_look_up_is_in_the_order_asked_whatever_is_missing(store: Store, model: StoredModel) -> None:
    order = np.random.default_rng(0).permutation(50)
    asked = [KEYS[i] for i in order]
    asked[3], asked[10] = content_hash("unknown"), content_hash("unknown too")
    there = store.look_up(model, asked)
    found = np.ones(50, dtype=bool)
    found[[3, 10]] = False
    assert there.found.tolist() == found.tolist()
    assert np.array_equal(there.vectors[found], VECTORS[order][found])
    assert there.standalone[found].tolist() == (order[found] % 2 == 0).tolist()
    assert (there.vector_ids > 0).tolist() == found.tolist()
    assert not there.damaged.any()


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_searching_key_by_key_and_scanning_the_index_find_the_same(
    scan: bool, chunk: int, store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (vectors, documents):
        monkeypatch.setattr(module, "SCAN_FROM_KEYS", 0 if scan else 10**9)
        monkeypatch.setattr(module, "SCAN_FROM_SHARE", 1e-9 if scan else 1.0)
    monkeypatch.setattr(tables.chunks, "__defaults__", (chunk,))
    monkeypatch.setattr(vectors, "KEYS_AT_ONCE", chunk)
    doc_ids = [f"doc {i}" for i in range(50)]
    store.put_documents(model, "c", doc_ids, KEYS)
    there = store.look_up(model, KEYS[::-3])
    assert np.array_equal(there.vectors, VECTORS[::-3])
    recorded = store.recorded(model, "c", doc_ids, [*KEYS[:49], KEYS[0]], store.look_up(model, KEYS).vector_ids)
    assert recorded.tolist() == [True] * 49 + [False]
    ids, matrix = store.matrix(model, collection=None, doc_ids=doc_ids[::-1])
    assert (ids, matrix.tolist()) == (doc_ids[::-1], VECTORS[::-1].tolist())


def test_a_look_up_of_nothing_is_empty(store: Store, model: StoredModel) -> None:
    there = store.look_up(model, [])
    assert (there.vectors.shape, there.found.shape, there.vector_ids.shape) == ((0, 5), (0,), (0,))


def test_inserting_keeps_what_is_there_and_replacing_does_not(store: Store, model: StoredModel) -> None:
    new = content_hash("new")
    assert store.insert_vectors(model, [KEYS[0], new], np.zeros((2, 5), np.float32), standalone=False) == 1
    assert np.array_equal(store.look_up(model, KEYS[:1]).vectors[0], VECTORS[0])
    newer = content_hash("newer")
    assert store.replace_vectors(model, [KEYS[0], newer], np.ones((2, 5), np.float32), standalone=False) == 1
    there = store.look_up(model, [KEYS[0], newer])
    assert np.array_equal(there.vectors, np.ones((2, 5)))
    assert there.standalone.tolist() == [True, False]


def test_replacing_keeps_the_row_that_documents_point_at(store: Store, model: StoredModel) -> None:
    before = store.look_up(model, KEYS).vector_ids
    store.put_documents(model, "", ["a"], KEYS[3:4])
    store.replace_vectors(model, KEYS, np.ones((50, 5), np.float32), standalone=False)
    assert store.look_up(model, KEYS).vector_ids.tolist() == before.tolist()
    assert store.matrix(model, collection=None, doc_ids=["a"])[1].tolist() == [[1.0] * 5]


def test_marking_changes_the_mark_alone(store: Store, model: StoredModel) -> None:
    before = store.look_up(model, KEYS)
    store.mark_standalone(model, [*KEYS, content_hash("unknown")])
    after = store.look_up(model, KEYS)
    assert after.standalone.all()
    assert np.array_equal(after.vectors, before.vectors)
    assert after.vector_ids.tolist() == before.vector_ids.tolist()


def test_a_document_is_recorded_where_it_points_at_that_content(store: Store, model: StoredModel) -> None:
    store.put_documents(model, "c", ["a", "b"], [KEYS[0], KEYS[1]])
    ids = store.look_up(model, KEYS[:3]).vector_ids
    asked = (["a", "b", "new"], [KEYS[0], KEYS[2], KEYS[2]], ids[[0, 2, 2]])
    assert store.recorded(model, "c", *asked).tolist() == [True, False, False]
    assert store.recorded(model, "", *asked).tolist() == [False, False, False]


def test_a_canary_is_stored_once(store: Store, model: StoredModel) -> None:
    first, second = np.ones(5, np.float32), np.zeros(5, np.float32)
    for canary in (first, second):
        kept = store.set_canary(model, canary)
        assert kept.canary is not None
        assert kept.canary.tolist() == first.tolist()
    found = store.find_model(IDENTITY)
    assert found is not None
    assert found.canary is not None
    assert (found.canary.tolist(), found.created_at) == (first.tolist(), model.created_at)


def test_a_model_is_stored_once_and_keeps_its_dimension(store: Store, model: StoredModel) -> None:
    assert store.ensure_model(IDENTITY, 5, np.ones(5, np.float32)).model_id == model.model_id
    with pytest.raises(DimensionError, match=r"6 values, those of model .* have 5"):
        store.ensure_model(IDENTITY, 6, None)
    assert [found.identity for found in store.find_models()] == [IDENTITY]
    assert store.find_model(ModelIdentity("m")) is None


def test_a_model_id_is_never_used_again(store: Store, model: StoredModel) -> None:
    store.forget_models("m")
    assert store.ensure_model(IDENTITY, 5, None).model_id > model.model_id


def test_several_writes_in_a_block_are_one_transaction(store: Store, model: StoredModel) -> None:
    def fail() -> None:
        with store.writing():
            store.put_documents(model, "", ["a"], KEYS[:1])
            store.replace_vectors(model, KEYS[:1], np.zeros((1, 5), np.float32), standalone=True)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.count_documents() == 0
    assert np.array_equal(store.look_up(model, KEYS[:1]).vectors[0], VECTORS[0])


def test_a_lock_met_while_reading_is_no_damage(
    store: Store, model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: object) -> list[object]:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(vectors, "_fetch", locked)
        with pytest.raises(StoreBusyError):
            store.look_up(model, KEYS)
    assert store.look_up(model, KEYS).found.all()
