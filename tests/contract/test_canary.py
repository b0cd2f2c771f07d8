"""A model that changed behind its name is noticed before anything is read or written."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, EncoderError, EncoderOutputError, ModelChangedError, StoreFullError
from embstore.canary import CANARY_TEXT, ModelGuard, encode_canary
from embstore.encoders import as_encoder
from embstore.stores.base import StoredModel
from tests.fakes import CountingEncoder, QueryEncoder
from tests.tables import dump, rows

USES: dict[str, Callable[[EmbeddingCache, CountingEncoder], Any]] = {
    "a hit": lambda cache, encoder: cache.get("a", "text", encoder),
    "a miss": lambda cache, encoder: cache.get("b", "other", encoder),
    "hits and misses": lambda cache, encoder: cache.get_many(["b", "a"], ["other", "text"], encoder),
    "a text without an id": lambda cache, encoder: cache.embed(["text"], encoder),
    "a query": lambda cache, encoder: cache.embed_query("text", encoder),
    "vectors from elsewhere": lambda cache, encoder: cache.put_many(
        ["b"], ["other"], encoder.vectors(["other"]), model=encoder
    ),
}


class Scaled(CountingEncoder):
    """The same directions, another length: what a lost normalisation looks like."""

    def vector(self, text: str) -> np.ndarray:
        return np.float32(1.1) * super().vector(text)


class Slots:
    """An object that can be neither hashed nor referenced weakly."""

    __slots__ = ("inner",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, seed: int = 0) -> None:
        self.inner = CountingEncoder(seed=seed)

    def __eq__(self, other: object) -> bool:
        return True

    @property
    def model_name(self) -> str:
        return "fake"

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.inner.encode(texts)


class CannotEncodeTheCanary(CountingEncoder):
    def encode(self, texts: list[str]) -> np.ndarray:
        if texts == [CANARY_TEXT]:
            raise UnicodeError("ASCII only")
        return super().encode(texts)


def test_a_model_whose_transaction_failed_is_compared_with_the_one_that_has_its_number_now(
    cache: EmbeddingCache, encoder: CountingEncoder, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise StoreFullError("no room")

    for store in (
        lambda: cache.get("a", "text", encoder),
        lambda: cache.put_many(["a"], ["text"], encoder.vectors(["text"]), model=encoder),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(cache.store, "put_documents", fail)
            with pytest.raises(StoreFullError):
                store()
    with EmbeddingCache(location) as other:
        other.get("a", "text", CountingEncoder(seed=1))
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", encoder)


def test_the_canary_is_encoded_once_per_encoder_object(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    for use in USES.values():
        use(cache, encoder)
    assert encoder.n_canaries == 1


def test_the_canary_is_encoded_also_where_every_text_is_a_hit(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    second = CountingEncoder()
    for _ in range(2):
        assert np.array_equal(cache.get("a", "text", second), encoder.vector("text"))
    assert (second.n_canaries, second.calls) == (1, [])


def test_the_canary_is_encoded_once_per_identity(cache: EmbeddingCache) -> None:
    encoder = QueryEncoder()
    for _ in range(2):
        cache.embed(["text"], encoder)
        cache.embed_query("text", encoder)
        cache.embed(["text"], encoder, model_name="other")
    assert encoder.n_canaries == 3


def test_another_cache_on_the_same_file_checks_for_itself(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    with EmbeddingCache(cache.location) as second:
        second.get("a", "text", encoder)
    assert encoder.n_canaries == 2


@pytest.mark.parametrize("use", USES)
def test_a_model_swapped_behind_its_name_is_refused_and_nothing_is_read_or_written(
    use: str, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    before = dump(cache.location)
    swapped = CountingEncoder(seed=1)
    for _ in range(2):
        with pytest.raises(ModelChangedError, match=r"'fake' is not the model.*clear\(model_name='fake'\)"):
            USES[use](cache, swapped)
    assert dump(cache.location) == before
    assert (swapped.calls, swapped.n_canaries) == ([], 2)


def test_the_same_directions_in_another_scale_are_another_model(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    with pytest.raises(ModelChangedError, match=r"distance 0\.1"):
        cache.get("a", "text", Scaled())


def test_another_number_of_values_is_another_model(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    with pytest.raises(ModelChangedError, match="gives 6 values a text, stored are 8"):
        cache.get("a", "text", CountingEncoder(dim=6))


def test_rounding_of_other_hardware_is_the_same_model(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    class OtherHardware(CountingEncoder):
        def vector(self, text: str) -> np.ndarray:
            return super().vector(text) + np.float32(1e-6)

    stored = cache.get("a", "text", encoder)
    assert np.array_equal(cache.get("a", "text", OtherHardware()), stored)


def test_a_canary_of_zeros_is_equal_to_itself(cache: EmbeddingCache) -> None:
    class Zeros(CountingEncoder):
        def vector(self, text: str) -> np.ndarray:
            return np.zeros(self.dim, np.float32)

    cache.get("a", "text", Zeros())
    assert cache.get("a", "text", Zeros()).tolist() == [0.0] * 8


def test_a_cache_can_do_without_canaries(location: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(location, check_canary=False) as cache:
        stored = cache.get("a", "text", encoder)
        swapped = CountingEncoder(seed=1)
        assert np.array_equal(cache.get("a", "text", swapped), stored)
        assert (encoder.n_canaries, swapped.n_canaries, swapped.calls) == (0, 0, [])
        assert [model.has_canary for model in cache.models()] == [False]
        assert cache.verify() == []


def test_an_encoder_that_cannot_take_the_canary_is_told_how_to_do_without(cache: EmbeddingCache) -> None:
    with pytest.raises(EncoderError, match=r"ASCII only.*check_canary=False") as caught:
        cache.get("a", "text", CannotEncodeTheCanary())
    assert caught.value.__cause__ is not None
    assert cache.models() == []


def test_a_bad_vector_of_the_canary_is_told_as_such(cache: EmbeddingCache) -> None:
    class Bad(CountingEncoder):
        def encode(self, texts: list[str]) -> Any:
            return super().encode(texts) * np.nan

    with pytest.raises(EncoderOutputError, match=r"NaN.*check_canary=False"):
        cache.get("a", "text", Bad())


def test_canaries_are_not_counted(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    report = cache.fill(["a", "b", "c"], ["text", "text", "other"], encoder)
    assert (report.n_encoded, report.n_hits) == (2, 0)
    assert (cache.stats().n_vectors, len(cache)) == (2, 3)


def test_the_canarys_own_text_can_be_cached_too(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert np.array_equal(cache.get("a", CANARY_TEXT, encoder), encoder.vector(CANARY_TEXT))
    assert cache.stats().n_vectors == 1


# --- models that came without a live encoder ------------------------------------------------


def put_by_name(cache: EmbeddingCache, *texts: str) -> None:
    cache.put_many(texts, texts, CountingEncoder().vectors(list(texts)), model_name="fake")


def test_vectors_put_by_name_have_no_canary(cache: EmbeddingCache) -> None:
    put_by_name(cache, "text")
    assert [(model.model_name, model.has_canary) for model in cache.models()] == [("fake", False)]


def test_the_first_live_encoder_encodes_one_hit_again_and_leaves_its_canary(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    put_by_name(cache, "text", "other")
    for _ in range(2):
        cache.embed(["text", "other"], encoder)
    assert (encoder.calls, encoder.n_canaries) == ([["text"]], 1)
    assert [model.has_canary for model in cache.models()] == [True]
    with pytest.raises(ModelChangedError):
        cache.embed(["text"], CountingEncoder(seed=1))


def test_a_wrong_first_encoder_is_refused_and_leaves_nothing(cache: EmbeddingCache) -> None:
    put_by_name(cache, "text")
    before = dump(cache.location)
    with pytest.raises(ModelChangedError):
        cache.embed(["text", "new"], CountingEncoder(seed=1))
    assert dump(cache.location) == before


def test_vectors_put_with_an_encoder_are_checked_by_its_canary(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.put_many(["a"], ["text"], encoder.vectors(["text"]), model=encoder)
    assert [model.has_canary for model in cache.models()] == [True]
    assert (encoder.calls, encoder.n_canaries) == ([], 1)


# --- objects --------------------------------------------------------------------------------


def test_an_object_that_takes_the_id_of_a_dead_one_is_checked_again(cache: EmbeddingCache) -> None:
    first = CountingEncoder()
    cache.get("a", "text", first)
    address = id(first)
    del first
    others = [CountingEncoder(seed=1)]
    while id(others[-1]) != address and len(others) < 50_000:
        others.append(CountingEncoder(seed=1))
    swapped = others[-1]
    if id(swapped) != address:
        pytest.skip("the interpreter gave no object the id of a dead one")
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", swapped)


def test_the_guard_knows_an_object_and_not_its_id() -> None:
    guard = ModelGuard(enabled=True)
    first, other = CountingEncoder(), CountingEncoder()
    named = as_encoder(first)
    identity = named.identity("document")
    model = StoredModel(1, identity, 8, encode_canary(named, "document"), "")
    for _ in range(2):
        guard.check(named, "document", identity, model, None)
    assert (first.n_canaries, other.n_canaries) == (2, 0)
    guard._encoders[os.getpid(), id(other)] = guard._encoders[os.getpid(), id(first)]  # as if it had the first one's id
    guard.check(as_encoder(other), "document", identity, model, None)
    assert other.n_canaries == 1


def test_what_a_model_stores_after_another_took_its_name_is_refused(cache: EmbeddingCache) -> None:
    """The old model is checked, then the name is cleared and filled by a new one while the old one encodes."""
    new = CountingEncoder(seed=1)

    class Overtaken(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            if texts == ["second"]:
                with EmbeddingCache(cache.location) as other:
                    other.clear(model_name="fake")
                    other.get("c", "third", new)
            return super().encode(texts)

    old = Overtaken()
    cache.get("a", "first", old)
    with pytest.raises(ModelChangedError):
        cache.get("b", "second", old)
    assert cache.matrix("fake")[0] == ["c"]
    assert np.array_equal(cache.get("b", "second", new), new.vector("second"))


def test_a_bound_method_is_known_again_by_its_object(cache: EmbeddingCache) -> None:
    class Service:
        def __init__(self) -> None:
            self.fake = CountingEncoder()
            self.other = CountingEncoder(seed=1)

        def embed(self, texts: list[str]) -> np.ndarray:
            return self.fake.encode(texts)

        def embed_otherwise(self, texts: list[str]) -> np.ndarray:
            return self.other.encode(texts)

    service = Service()
    for _ in range(3):
        cache.get("a", "text", service.embed, model_name="service")
    assert (service.fake.n_texts, service.fake.n_canaries) == (1, 1)
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", service.embed_otherwise, model_name="service")
    del service
    gc.collect()
    assert cache._guard._encoders == {}


def test_dead_encoders_are_forgotten(cache: EmbeddingCache) -> None:
    for _ in range(3):
        cache.get("a", "text", CountingEncoder())
    gc.collect()
    assert cache._guard._encoders == {}


def test_objects_with_slots_and_without_a_hash_work_and_are_checked(cache: EmbeddingCache) -> None:
    encoder = Slots()
    for _ in range(2):
        assert np.array_equal(cache.get("a", "text", encoder), encoder.inner.vector("text"))
    assert (encoder.inner.calls, encoder.inner.n_canaries) == ([["text"]], 1)
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", Slots(seed=1))  # equal to the first, says its __eq__


# --- the cures ------------------------------------------------------------------------------


def test_clearing_the_model_lets_the_new_one_in(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    swapped = CountingEncoder(seed=1)
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", swapped)
    assert cache.clear(model_name="fake") == 1
    assert np.array_equal(cache.get("a", "text", swapped), swapped.vector("text"))
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", encoder)


def test_another_name_lets_the_new_one_in_beside_the_old(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    swapped = CountingEncoder(seed=1)
    cache.get("a", "text", swapped, model_name="new")
    for kept, name in ((encoder, "fake"), (swapped, "new")):
        assert cache.matrix(name)[1].tolist() == kept.vectors(["text"]).tolist()


def test_a_model_cleared_and_filled_by_another_process_is_checked_again(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    with EmbeddingCache(cache.location) as other:
        other.clear(model_name="fake")
        other.get("a", "text", CountingEncoder(seed=1))
    with pytest.raises(ModelChangedError):
        cache.get("a", "text", encoder)


def test_where_two_processes_begin_with_different_models_the_second_is_refused(cache: EmbeddingCache) -> None:
    class BeatenToIt(CountingEncoder):
        """Finds, when its first vectors are to be stored, that another process came first."""

        def encode(self, texts: list[str]) -> np.ndarray:
            if texts != [CANARY_TEXT]:
                with EmbeddingCache(cache.location) as other:
                    other.get("b", "other", CountingEncoder(seed=1))
            return super().encode(texts)

    with pytest.raises(ModelChangedError):
        cache.get("a", "text", BeatenToIt())
    assert [(row.doc_id, row.model_name) for row in cache.documents()] == [("b", "fake")]


def test_the_role_decides_which_vectors_the_canary_is_compared_with(cache: EmbeddingCache) -> None:
    encoder = QueryEncoder()
    cache.embed_query("text", encoder)
    cache.embed(["text"], encoder)
    assert sorted(row[0] for row in canaries(cache.location)) == sorted(
        vector.tobytes() for vector in encoder.vectors([CANARY_TEXT, f"query: {CANARY_TEXT}"])
    )


def canaries(location: str) -> list[tuple[bytes]]:
    return rows(location, "SELECT canary FROM models")
