"""Each missing text is encoded by one of those that share a store: leases, in a store of each kind."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, EncoderError, InvalidInputError, InvalidTypeError, content_hash, grouping, leasing
from embstore.identity import ModelIdentity
from embstore.stores import open_store
from embstore.stores.base import Store
from embstore.stores.leases import MOST_LEASE_S
from tests.fakes import CountingEncoder, HookedEncoder
from tests.tables import change, rows
from tests.threads import n_background

MODEL, OTHER_MODEL = b"m" * 32, b"o" * 32
TEXTS = [f"text {i}" for i in range(40)]
KEYS = [content_hash(text) for text in TEXTS]
HELD = "SELECT content_hash FROM leases"

Claim = Callable[..., list[int]]


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    store = open_store(location)
    yield store
    assert store.verify() == []
    store.close()


def claim(
    store: Store, owner: str, keys: Sequence[bytes] = KEYS, *, most: int = 100, model: bytes = MODEL
) -> list[int]:
    return store.leases.claim(model, keys, owner=owner, lease_s=60, most=most)


def held(store: Store, owner: str, keys: Sequence[bytes] = KEYS, model: bytes = MODEL) -> list[int]:
    return store.leases.held(model, keys, owner=owner)


def let_pass(location: str, seconds: float) -> None:
    """Move all leases into the past, as time does, or into the future, as a clock does that is set back."""
    moved = "make_interval(secs => ?)" if "://" in location else "?"
    change(location, f"UPDATE leases SET since = since - {moved}, until = until - {moved}", seconds, seconds)


# --- the store ------------------------------------------------------------------------------


def test_who_claims_first_has_the_lease(store: Store) -> None:
    assert claim(store, "a", KEYS[:5]) == [0, 1, 2, 3, 4]
    assert claim(store, "b", KEYS[:5]) == []
    assert (held(store, "a", KEYS[:5]), held(store, "b", KEYS[:5])) == ([], [0, 1, 2, 3, 4])


def test_others_leases_are_passed_over_until_there_are_enough(store: Store) -> None:
    assert claim(store, "a", [KEYS[i] for i in (0, 3, 4)]) == [0, 1, 2]
    assert claim(store, "b", KEYS, most=3) == [1, 2, 5]
    assert claim(store, "c", KEYS[:8], most=3) == [6, 7]
    assert held(store, "b", KEYS[:10]) == [0, 3, 4, 6, 7]
    assert claim(store, "d", []) == held(store, "d", []) == []


def test_what_an_owner_has_already_is_its_own(store: Store) -> None:
    claim(store, "a", KEYS[:2])
    assert claim(store, "a", KEYS[:4]) == [0, 1, 2, 3]


def test_a_lease_is_on_a_text_of_one_model(store: Store) -> None:
    claim(store, "a", KEYS[:2])
    assert held(store, "b", KEYS[:2], OTHER_MODEL) == []
    assert claim(store, "b", KEYS[:2], model=OTHER_MODEL) == [0, 1]
    store.leases.release(MODEL, KEYS, owner="a")
    assert held(store, "c", KEYS[:2], OTHER_MODEL) == [0, 1]


def test_nobody_ends_or_renews_the_leases_of_others(store: Store, location: str) -> None:
    claim(store, "a", KEYS[:2])
    before = rows(location, "SELECT * FROM leases")
    store.leases.release(MODEL, KEYS, owner="b")
    store.leases.renew(MODEL, KEYS, owner="b", lease_s=60)
    assert rows(location, "SELECT * FROM leases") == before
    store.leases.release(MODEL, KEYS[:1], owner="a")
    assert (held(store, "b", KEYS[:2]), claim(store, "b", KEYS[:2])) == ([1], [0])


def test_a_lease_ends_by_itself(store: Store, location: str) -> None:
    claim(store, "a", KEYS[:2])
    let_pass(location, 50)
    assert claim(store, "b", KEYS[:2]) == []
    store.leases.renew(MODEL, KEYS[:1], owner="a", lease_s=60)
    let_pass(location, 20)
    assert held(store, "b", KEYS[:2]) == [0]
    assert claim(store, "b", KEYS[:3]) == [1, 2]


@pytest.mark.parametrize("seconds", [-2.0, -1e6])
def test_a_lease_of_a_clock_that_was_set_back_means_nothing(seconds: float, store: Store, location: str) -> None:
    claim(store, "a", KEYS[:2])
    let_pass(location, seconds)
    assert held(store, "b", KEYS[:2]) == []
    assert claim(store, "b", KEYS[:2]) == [0, 1]


def test_no_lease_lasts_longer_than_any_that_is_given(store: Store, location: str) -> None:
    claim(store, "a", KEYS[:2])
    longer = f"make_interval(secs => {MOST_LEASE_S + 2})" if "://" in location else f"{MOST_LEASE_S + 2}"
    change(location, f"UPDATE leases SET until = since + {longer}")
    assert held(store, "b", KEYS[:2]) == []
    assert claim(store, "b", KEYS[:2]) == [0, 1]


def test_what_has_ended_is_removed_when_somebody_claims(store: Store, location: str) -> None:
    claim(store, "a", KEYS[:20])
    claim(store, "a", KEYS[:20], model=OTHER_MODEL)
    let_pass(location, 61)
    other = open_store(location)
    claim(other, "b", KEYS[20:])
    other.close()
    assert sorted(rows(location, HELD)) == sorted((key,) for key in KEYS[20:])


def test_leases_end_with_the_transaction_that_ends_them_or_not_at_all(store: Store) -> None:
    claim(store, "a", KEYS[:2])

    def fail() -> None:
        store.leases.release(MODEL, KEYS[:2], owner="a")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(fail)
    assert held(store, "b", KEYS[:2]) == [0, 1]
    store.write(lambda: store.leases.release(MODEL, KEYS[:2], owner="a"))
    assert held(store, "b", KEYS[:2]) == []


def test_of_many_who_claim_at_once_each_text_goes_to_one(location: str) -> None:
    n_owners = 6
    barrier = threading.Barrier(n_owners)
    taken: dict[int, list[str]] = {}

    def take(owner: int) -> None:
        order = random.Random(owner).sample(range(len(KEYS)), len(KEYS))
        mine: list[bytes] = []
        store = open_store(location)
        barrier.wait(30)
        while True:
            keys = [KEYS[i] for i in order if KEYS[i] not in mine]
            claimed = claim(store, str(owner), keys, most=3)
            if not claimed:
                break
            mine += [keys[i] for i in claimed]
        taken[owner] = sorted(key.hex() for key in mine)
        store.close()

    threads = [threading.Thread(target=take, args=(owner,)) for owner in range(n_owners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for mine in taken.values() for key in mine) == sorted(key.hex() for key in KEYS)


# --- the cache ------------------------------------------------------------------------------


@pytest.fixture
def sharing(location: str) -> Iterator[EmbeddingCache]:
    """A cache that shares its work; nobody has a lease, and no thread runs, when the test is over."""
    with EmbeddingCache(location, lease_s=60) as cache:
        yield cache
        assert rows(location, HELD) == []
        assert n_background() == 0
        assert cache.verify() == []


class Other:
    """Another process, as it is seen from here: its leases, and what it stores."""

    def __init__(self, location: str) -> None:
        self.store = open_store(location)
        self.encoder = CountingEncoder()
        self.cache = EmbeddingCache(location)
        identity = ModelIdentity("fake")
        self.leases = leasing.Leases(self.store, identity, 60)
        self.leases._owner = "other"

    def claims(self, texts: Sequence[str]) -> None:
        assert self.leases.claim([content_hash(text) for text in texts], len(texts)) == list(range(len(texts)))

    def stores(self, texts: Sequence[str]) -> None:
        self.cache.put_many(texts, texts, self.encoder.vectors(list(texts)), model=self.encoder)
        self.gives_up(texts)

    def gives_up(self, texts: Sequence[str]) -> None:
        self.leases.release([content_hash(text) for text in texts])

    def close(self) -> None:
        self.store.close()
        self.cache.close()


@pytest.fixture
def other(location: str) -> Iterator[Other]:
    other = Other(location)
    yield other
    other.close()


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run something in a thread beside the block; what it gives is in the list afterwards."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(work())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield came
    finally:
        thread.join(60)
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_another_encodes_is_waited_for_and_all_else_is_encoded_and_stored(
    sharing: EmbeddingCache, other: Other
) -> None:
    other.claims(TEXTS[:10])
    encoder = CountingEncoder()
    with meanwhile(lambda: sharing.embed(TEXTS, encoder)) as came:
        wait_until(lambda: other.cache.stats().n_vectors == 30)
        assert not came
        other.stores(TEXTS[:4])
        other.stores(TEXTS[4:10])
    assert came[0].tolist() == encoder.vectors(TEXTS).tolist()
    assert sorted(encoder.texts) == sorted(TEXTS[10:])


def test_documents_that_another_encodes_are_recorded_and_counted_as_found(
    sharing: EmbeddingCache, other: Other
) -> None:
    other.claims(TEXTS[:10])
    ids = [f"doc {i}" for i in range(40)]
    encoder = CountingEncoder()
    with meanwhile(lambda: sharing.fill(ids, TEXTS, encoder)) as came:
        wait_until(lambda: other.cache.stats().n_vectors == 30)
        other.stores(TEXTS[:10])
    (report,) = came
    assert (report.n_encoded, report.n_hits) == (30, 10)
    assert sharing.matrix("fake", doc_ids=ids)[1].tolist() == encoder.vectors(TEXTS).tolist()


def test_what_another_gave_up_is_encoded_here(sharing: EmbeddingCache, other: Other) -> None:
    other.claims(TEXTS[:10])
    encoder = CountingEncoder()
    with meanwhile(lambda: sharing.embed(TEXTS, encoder)):
        wait_until(lambda: other.cache.stats().n_vectors == 30)
        other.gives_up(TEXTS[:10])
    assert sorted(encoder.texts) == sorted(TEXTS)


def test_an_ended_lease_is_taken_over(sharing: EmbeddingCache, other: Other, location: str) -> None:
    other.claims(TEXTS[:10])
    encoder = CountingEncoder()
    with meanwhile(lambda: sharing.embed(TEXTS, encoder)):
        wait_until(lambda: other.cache.stats().n_vectors == 30)
        let_pass(location, 61)
    assert sorted(encoder.texts) == sorted(TEXTS)


def test_what_another_stores_between_the_look_and_the_claim_is_not_encoded(
    sharing: EmbeddingCache, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = leasing.Leases.claim

    def claim_late(*args: Any) -> list[int]:
        if not other.cache.stats().n_vectors:
            monkeypatch.setattr(leasing.Leases, "claim", really)
            other.claims(TEXTS[:10])
            other.stores(TEXTS[:10])
        return really(*args)

    monkeypatch.setattr(leasing.Leases, "claim", claim_late)
    encoder = CountingEncoder()
    assert sharing.embed(TEXTS, encoder).tolist() == encoder.vectors(TEXTS).tolist()
    assert sorted(encoder.texts) == sorted(TEXTS[10:])


@pytest.mark.parametrize(
    ("call_s", "expected"), [(0.0, [4, 12, 12, 12]), (0.5, [4, 8, 8, 8, 8, 8]), (2.0, [4] * 10)], ids=str
)
def test_a_second_of_the_models_work_is_claimed_at_once_and_no_more_than_a_number(
    call_s: float, expected: list[int], sharing: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(perf_counter=count(step=call_s).__next__)
    monkeypatch.setattr(grouping, "time", clock)
    monkeypatch.setattr(leasing, "CLAIM_ROWS", 12)
    really, claimed = sharing.store.leases.claim, []

    def counting_claim(*args: Any, most: int, **kwargs: Any) -> list[int]:
        claimed.append(most)
        return really(*args, most=most, **kwargs)

    monkeypatch.setattr(sharing.store.leases, "claim", counting_claim)
    sharing.embed(TEXTS, CountingEncoder(), batch_size=4)
    assert claimed == expected


def test_an_encoder_that_fails_leaves_no_lease_and_what_was_encoded(sharing: EmbeddingCache, location: str) -> None:
    def fail(texts: list[str]) -> None:
        if TEXTS[0] in texts:
            assert rows(location, HELD)
            raise RuntimeError("no more")

    with pytest.raises(EncoderError, match="no more"):
        sharing.embed(TEXTS, HookedEncoder(fail), batch_size=4)
    n_stored = sharing.stats().n_vectors
    assert 0 < n_stored < 40
    encoder = CountingEncoder()
    sharing.embed(TEXTS, encoder)
    assert encoder.n_texts == 40 - n_stored


@pytest.mark.parametrize("where", ["the model", "the claim", "the wait"])
def test_ctrl_c_leaves_no_lease(
    where: str, sharing: EmbeddingCache, other: Other, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    encoder = CountingEncoder()
    if where == "the model":
        encoder = HookedEncoder(interrupt)
    elif where == "the claim":
        really = sharing.store.leases.claim

        def claim_and_stop(*args: Any, **kwargs: Any) -> list[int]:
            really(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(sharing.store.leases, "claim", claim_and_stop)
    else:
        other.claims(TEXTS[:10])
        monkeypatch.setattr(leasing.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sharing.embed(TEXTS, encoder)
    assert len(rows(location, HELD)) == (10 if where == "the wait" else 0)
    other.gives_up(TEXTS[:10])


def test_a_lease_is_renewed_while_the_model_works(location: str, other: Other) -> None:
    def work(texts: list[str]) -> None:
        begins = set()
        while len(begins) < 3:
            begins |= set(rows(location, "SELECT since FROM leases"))
            assert other.leases.held([content_hash(text) for text in texts]) == list(range(len(texts)))

    with EmbeddingCache(location, lease_s=1) as cache:
        cache.embed(TEXTS[:5], HookedEncoder(work))
    assert rows(location, HELD) == []
    assert n_background() == 0


def test_an_encoder_that_asks_the_cache_for_its_own_texts_does_not_wait_for_itself(sharing: EmbeddingCache) -> None:
    inner = CountingEncoder()
    outer = HookedEncoder(lambda texts: sharing.embed(texts, inner))
    assert sharing.embed(TEXTS[:5], outer).tolist() == outer.vectors(TEXTS[:5]).tolist()


def test_without_leases_nobody_asks_for_any(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddingCache(location) as cache:
        for name in ("claim", "held", "renew", "release"):
            monkeypatch.setattr(cache.store.leases, name, None)
        cache.embed(TEXTS, CountingEncoder())


def test_hits_ask_for_no_lease(sharing: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = CountingEncoder()
    sharing.get_many(TEXTS, TEXTS, encoder)
    for name in ("claim", "held", "renew", "release"):
        monkeypatch.setattr(sharing.store.leases, name, None)
    sharing.get_many(TEXTS, TEXTS, encoder)
    sharing.get_many(TEXTS[::-1], TEXTS, encoder)
    sharing.embed(TEXTS, encoder)
    assert encoder.n_texts == 40


@pytest.mark.parametrize("lease_s", [0, 0.5, -1, 3601, float("nan"), float("inf"), "60", True, b"60"])
def test_what_is_no_time_of_a_lease_is_refused(lease_s: Any, location: str) -> None:
    with pytest.raises((InvalidInputError, InvalidTypeError), match="lease_s is"):
        EmbeddingCache(location, lease_s=lease_s)


def test_leases_of_float16_and_of_queries_are_their_own(sharing: EmbeddingCache, other: Other) -> None:
    other.claims(TEXTS[:1])
    encoder = CountingEncoder(model_name="another")
    assert np.array_equal(sharing.embed(TEXTS[:1], encoder), encoder.vectors(TEXTS[:1]))
    other.gives_up(TEXTS[:1])
