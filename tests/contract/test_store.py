"""The store beneath a cache: what its protocol promises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from embstore import (
    DimensionError,
    EmbeddingCache,
    ModelIdentity,
    content_hash,
)
from embstore.stores import open_store
from embstore.stores.base import Store, StoredModel
from embstore.stores.texts import StoredText
from tests.fakes import CountingEncoder
from tests.tables import change, rows

IDENTITY = ModelIdentity.of("m", {"a": 1})
KEYS = [content_hash(f"text {i}") for i in range(50)]
VECTORS = CountingEncoder(dim=5).vectors([f"text {i}" for i in range(50)])


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    store = open_store(location)
    yield store
    assert store.verify() == []
    store.close()


@pytest.fixture
def model(store: Store) -> StoredModel:
    """A model with fifty vectors; those at even places were cached without an id."""

    def insert() -> StoredModel:
        model = store.ensure_model(IDENTITY, 5, None)
        assert store.insert_vectors(model, KEYS[::2], VECTORS[::2], standalone=True) == 25
        assert store.insert_vectors(model, KEYS, VECTORS, standalone=False) == 25
        return model

    return store.write(insert)


def test_the_store_has_every_method_of_the_protocol_with_its_parameters(store: Store) -> None:
    for name, method in inspect.getmembers(Store, inspect.isfunction):
        if not name.startswith("_"):
            expected = [name.rstrip("_") for name in inspect.signature(method).parameters]
            found = [name.rstrip("_") for name in inspect.signature(getattr(type(store), name)).parameters]
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


def test_one_document_is_read_once_its_model_was_found(store: Store, model: StoredModel) -> None:
    store.put_documents(model, "c", ["a"], KEYS[7:8])
    assert store.read_document(IDENTITY, "c", "a", KEYS[7]) is None
    store.find_variant(IDENTITY)
    found = store.read_document(IDENTITY, "c", "a", KEYS[7])
    assert found is not None
    assert (found[0].model_id, found[1].tolist()) == (model.model_id, VECTORS[7].tolist())
    for collection, doc_id, key in (("", "a", KEYS[7]), ("c", "b", KEYS[7]), ("c", "a", KEYS[8])):
        assert store.read_document(IDENTITY, collection, doc_id, key) is None
    other = open_store(store.location)
    other.rename_model("m", "renamed")
    other.close()
    assert store.read_document(IDENTITY, "c", "a", KEYS[7]) is None


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


def test_replacing_new_changed_and_unchanged_vectors_at_once_leaves_each_as_it_was_given(
    store: Store, model: StoredModel
) -> None:
    before = store.look_up(model, KEYS)
    new = [content_hash("new"), content_hash("newer")]
    keys = [new[0], KEYS[0], KEYS[1], new[1], KEYS[2]]
    given = np.vstack([np.full((2, 5), 7, np.float32), VECTORS[1:2], np.full((2, 5), 8, np.float32)])
    assert store.replace_vectors(model, keys, given, standalone=False) == 2
    there = store.look_up(model, keys)
    assert there.found.all()
    assert np.array_equal(there.vectors, given)
    assert there.vector_ids[[1, 2, 4]].tolist() == before.vector_ids[:3].tolist()
    assert there.standalone.tolist() == [False, *before.standalone[:2], False, before.standalone[2]]
    others = store.look_up(model, KEYS[3:])
    assert np.array_equal(others.vectors, before.vectors[3:])
    assert others.vector_ids.tolist() == before.vector_ids[3:].tolist()
    assert store.replace_vectors(model, keys, given, standalone=True) == 0
    assert store.look_up(model, keys).standalone.all()


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
        store.put_documents(model, "", ["a"], KEYS[:1])
        store.replace_vectors(model, KEYS[:1], np.zeros((1, 5), np.float32), standalone=True)
        raise KeyError

    with pytest.raises(KeyError):
        store.write(fail)
    assert store.count_documents() == 0
    assert np.array_equal(store.look_up(model, KEYS[:1]).vectors[0], VECTORS[0])


# --- what is noted of collections -----------------------------------------------------------

OTHER = ModelIdentity("other")
ONE_MORE = np.full((1, 5), 2, np.float32)

# Which of the collections of the models m, m with other settings, and other, are to be read anew.
CHANGES: dict[str, tuple[Callable[[Store, StoredModel], object], set[str]]] = {
    "another vector": (lambda store, m: store.replace_vectors(m, KEYS[:1], ONE_MORE, standalone=False), {"m"}),
    "the same vector": (lambda store, m: store.replace_vectors(m, KEYS[:1], VECTORS[:1], standalone=True), set()),
    "a new vector": (lambda store, m: store.replace_vectors(m, [bytes(32)], ONE_MORE, standalone=True), set()),
    "a document that others share": (lambda store, m: forget(store, ["shared"]), set()),
    "a document": (lambda store, m: forget(store, ["mine"]), {"m"}),
    "an unknown document": (lambda store, m: forget(store, ["unknown"]), set()),
    "a model": (lambda store, m: store.forget_models("m"), {"m"}),
    "another model": (lambda store, m: store.forget_models("other"), {"other"}),
    "all models": (lambda store, m: store.forget_models(None), {"m", "other", "no vectors"}),
    "what is unused": (lambda store, m: store.prune(standalone=False, dry_run=False), {"other"}),
    "a dry run": (lambda store, m: store.prune(standalone=True, dry_run=True), set()),
    "a rename before": (lambda store, m: rename_and_replace(store, m), {"m"}),
}


def forget(store: Store, doc_ids: list[str]) -> int:
    return store.forget_documents(doc_ids, model_name=None, collection=None)


def rename_and_replace(store: Store, model: StoredModel) -> None:
    """Write with what was read of a model before it was renamed."""
    store.rename_model("m", "renamed")
    store.replace_vectors(model, KEYS[:1], ONE_MORE, standalone=False)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_vectors_is_noted_at_the_collections_of_their_model(change: str, location: str) -> None:
    write, expected = CHANGES[change]
    store = open_store(location)
    model, other = store.ensure_model(IDENTITY, 5, None), store.ensure_model(OTHER, 5, None)
    store.insert_vectors(model, KEYS[:3], VECTORS[:3], standalone=False)
    store.insert_vectors(other, KEYS[:3], VECTORS[:3], standalone=False)
    store.put_documents(model, "", ["mine", "shared", "last"], KEYS[:3])
    store.put_documents(model, "x", ["sharing"], KEYS[1:2])
    for name, identity in (("m", IDENTITY), ("other", OTHER), ("no vectors", ModelIdentity("m"))):
        store.texts.ensure_collection(name, identity)
    before = dict(rows(location, "SELECT collection, vectors_version FROM collections"))
    write(store, model)
    after = dict(rows(location, "SELECT collection, vectors_version FROM collections"))
    assert {name for name in after if after[name] > before[name]} == expected
    store.close()


def test_where_the_row_of_a_model_is_damaged_every_collection_is_noted(location: str) -> None:
    with EmbeddingCache(location) as cache:
        cache.put_many(["a"], ["A"], np.ones((1, 3)), model_name="m")
        cache.store.texts.ensure_collection("c", OTHER)
        change(location, "UPDATE models SET checksum = checksum + 1")
        cache.clear(model_name="m")
    assert rows(location, "SELECT vectors_version FROM collections") == [(1,)]


def test_a_collection_with_texts_keeps_its_model_and_an_empty_one_takes_another(store: Store) -> None:
    def ensured(identity: ModelIdentity) -> ModelIdentity:
        return store.texts.ensure_collection("c", identity).identity

    assert [ensured(IDENTITY), ensured(OTHER)] == [IDENTITY, OTHER]
    store.texts.put("c", [StoredText("a", KEYS[0], "{}", "text 0")])
    assert [ensured(IDENTITY), ensured(OTHER)] == [OTHER, OTHER]
    store.texts.delete("c", ["a"])
    assert ensured(IDENTITY) == IDENTITY


# --- how long models take -------------------------------------------------------------------


# --- files that became newer ----------------------------------------------------------------
