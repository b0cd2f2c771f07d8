"""Bytes by key, in the same store: what a `ByteStore` promises."""

from __future__ import annotations

import contextlib

import pytest

from embstore import EmbeddingCache, InvalidInputError, InvalidTypeError
from embstore.stores.byte_values import ByteStore
from embstore.stores.tables import LONGEST_VALUE_BYTES
from tests.tables import change, writers_held

VALUES = {"a": b"1", "größer 🙂": b"", "a\0b": bytes(range(256)), "": b"of an empty key", "ns/1": b"x", "ns/2": b"y"}


@pytest.fixture
def values(cache: EmbeddingCache) -> ByteStore:
    return cache.store.byte_values


def test_values_come_back_in_the_order_of_the_keys_that_are_asked_for(values: ByteStore) -> None:
    values.mset(VALUES)
    asked = [*reversed(VALUES), "not there", "a", "a"]
    assert values.mget(asked) == [*reversed(VALUES.values()), None, b"1", b"1"]


def test_a_value_is_replaced_and_removed(values: ByteStore) -> None:
    values.mset(VALUES)
    values.mset({"a": b"2"})
    assert values.mget(["a"]) == [b"2"]
    assert values.mdelete(["a", "a", "not there"]) == 1
    assert (values.mget(["a"]), values.mdelete(["a"])) == ([None], 0)


def test_more_keys_than_a_statement_takes(values: ByteStore) -> None:
    many = {f"key {i}": bytes([i % 256]) for i in range(2500)}
    values.mset(many)
    assert values.mget(list(many)) == list(many.values())
    assert list(values.keys()) == sorted(many)
    assert values.mdelete(list(many)) == 2500


def test_keys_are_listed_by_their_prefix(values: ByteStore) -> None:
    values.mset(VALUES)
    assert list(values.keys("ns/")) == ["ns/1", "ns/2"]
    assert list(values.keys("none")) == []
    assert sorted(values.keys()) == sorted(VALUES)


def test_what_is_written_while_keys_are_listed_holds_nobody_up(values: ByteStore) -> None:
    values.mset({f"{i:04}": b"" for i in range(1500)})
    listed = []
    for key in values.keys():  # noqa: SIM118
        listed.append(key)
        if key == "0000":
            assert values.mdelete(["0000", "1499"]) == 2
    assert listed == [f"{i:04}" for i in range(1499)]


def test_a_block_that_fails_leaves_what_was_there(cache: EmbeddingCache, values: ByteStore) -> None:
    values.mset({"a": b"1"})

    def fail() -> None:
        values.mset({"a": b"2", "b": b"2"})
        values.mdelete(["a"])
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        cache.store.write(fail)
    assert values.mget(["a", "b"]) == [b"1", None]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"\ud800": b""}, InvalidInputError),
        ({1: b""}, InvalidTypeError),
        ({"a": "text"}, InvalidTypeError),
        ({"a": bytes(LONGEST_VALUE_BYTES)}, InvalidInputError),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(
    bad: dict[str, bytes], error: type[Exception], values: ByteStore
) -> None:
    with pytest.raises(error, match="key"):
        values.mset({"good": b"1", **bad})
    assert list(values.keys()) == []


def test_the_longest_value_can_be_read_back(values: ByteStore) -> None:
    longest = bytes(LONGEST_VALUE_BYTES - 2**10 - 4)
    values.mset({"a": longest})
    assert values.mget(["a"]) == [longest]


def test_nothing_to_write_takes_no_lock(location: str, values: ByteStore) -> None:
    with writers_held(location):
        values.mset({})
        assert values.mdelete(["not there"]) == 0


@pytest.mark.parametrize("damage", ["value = ?", "checksum = checksum + 1", "key = 'b'"])
def test_a_damaged_value_is_none_and_verify_names_it(damage: str, location: str) -> None:
    with EmbeddingCache(location) as cache:
        values = cache.store.byte_values
        values.mset({"a": b"1", "c": b"3"})
        change(location, f"UPDATE byte_values SET {damage} WHERE key = 'a'", *[b"\0"] * damage.count("?"))
        assert values.mget(["a", "b", "c"]) == [None, None, b"3"]
        (problem,) = cache.verify()
        assert problem.table == "byte_values"
        values.mset({"a": b"1", "b": b"2"})
        assert values.mget(["a", "b", "c"]) == [b"1", b"2", b"3"]
        assert cache.verify() == []
