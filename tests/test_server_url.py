"""The URLs of servers: what libpq is told, and what nobody is shown."""

from __future__ import annotations

import pytest

from embstore import InvalidInputError

pytest.importorskip("psycopg", reason="needs the extra postgres")

from embstore.stores.postgres.strings import given, stored
from embstore.stores.postgres.url import CONNECTED_BY, read_url

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (f"postgresql://u:{SECRET}@h:5/d", "postgresql://u@h:5/d"),
        (f"postgres://u:{SECRET}%40%2F@h/d", "postgresql://u@h/d"),
        (f"postgresql://h/d?user=u&password={SECRET}&sslpassword={SECRET}", "postgresql://u@h/d"),
        (
            f"postgresql://u:{SECRET}?#@[::1]:5,h2:6/d%20b?sslmode=require",
            "postgresql://u@[::1]:5,h2:6/d%20b?sslmode=require",
        ),
        ("postgresql:///d?host=/tmp", "postgresql:///d?host=%2Ftmp"),
        ("postgresql://h", "postgresql://h/"),
        (
            f"postgresql://u:{SECRET}@h/d?options=-csearch_path%3Da&prepare_threshold=5&pool_size=3",
            "postgresql://u@h/d?options=-csearch_path%3Da&prepare_threshold=5&pool_size=3",
        ),
    ],
)
def test_a_location_opens_the_same_and_has_no_secret(url: str, location: str) -> None:
    read, again = read_url(url), read_url(location)
    assert (read.location, again.location) == (location, location)
    assert SECRET not in repr(read)
    secrets = {"password", "sslpassword"}
    assert {name: value for name, value in read.options.items() if name not in secrets} == again.options
    assert (read.pool_size, read.prepare_threshold) == (again.pool_size, again.prepare_threshold)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"postgresql://u:{SECRET}@{SECRET}@h/d", "two '@'"),
        (f"postgresql://u:{SECRET}/{SECRET}@h/d", "%2F"),
        (f"postgresql://u:{SECRET}%zz@h/d", "not understood"),
        (f"postgresql://u:{SECRET}@h/d?{SECRET}", "not understood"),
        (f"postgresql://u:{SECRET}", "no number"),
        (f"postgresql://u:{SECRET}@h/d?pool_size=0", "pool_size"),
        (f"postgresql://u:{SECRET}@h/d?prepare_threshold=-1", "prepare_threshold"),
    ],
)
def test_a_url_that_cannot_be_read_is_an_error_that_shows_nothing_of_it(url: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why) as caught:
        read_url(url)
    shown = [str(caught.value), repr(caught.value), str(caught.value.facts)]
    assert not any(SECRET in text for text in shown)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ is (why == "not understood")


def test_statements_are_prepared_only_where_that_is_asked_for() -> None:
    assert [read_url(f"postgresql://h/d?prepare_threshold={n}").prepare_threshold for n in ("none", "0", "5")] == [
        None,
        0,
        5,
    ]
    assert read_url("postgresql://h/d").prepare_threshold is None


def test_what_a_url_says_comes_before_our_defaults() -> None:
    assert read_url("postgresql://h/d").options == {**CONNECTED_BY, "host": "h", "dbname": "d"}
    assert read_url("postgresql://h/d?application_name=a").options["application_name"] == "a"


def test_every_text_can_be_stored_and_keeps_its_order() -> None:
    texts = sorted(
        ["", "\0", "\0\0", "\0\1", "\1", "\1\0", "\1\1", "\1\2", "\2", "a\0b", "a\1", "a", "é", "\U0001f600"]
    )
    assert [given(stored(text)) for text in texts] == texts
    assert sorted(map(stored, texts)) == list(map(stored, texts))
    assert "\0" not in "".join(map(stored, texts))
