"""OpenAICompatibleEncoder against a local server that misbehaves in every way it can."""

from __future__ import annotations

import base64
import logging
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    EncoderError,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    MissingExtraError,
    ModelIdentity,
)
from embstore.canary import CANARY_TEXT
from embstore.encoders import as_encoder
from tests.embeddings_server import EmbeddingsServer, as_json, running_server

pytest.importorskip("httpx", reason="needs the extra openai")
from embstore.integrations import _embeddings_api
from embstore.integrations.openai_compatible import OpenAICompatibleEncoder

KEY = "sk-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingsServer]:
    monkeypatch.setattr(_embeddings_api, "BACKOFF_S", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running_server() as server:
        yield server


@pytest.fixture
def make(server: EmbeddingsServer) -> Iterator[Callable[..., OpenAICompatibleEncoder]]:
    made: list[OpenAICompatibleEncoder] = []

    def make(model: str = "small", **options: Any) -> OpenAICompatibleEncoder:
        made.append(OpenAICompatibleEncoder(model, base_url=server.url, **options))
        return made[-1]

    yield make
    for encoder in made:
        encoder.close()


Make = Callable[..., OpenAICompatibleEncoder]


# --- what it asks and gives -----------------------------------------------------------------


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_each_text_is_asked_for_once_and_comes_back_bit_for_bit(
    cache: EmbeddingCache, server: EmbeddingsServer, make: Make, encoding_format: Any
) -> None:
    texts = ["one", "two", "one", "lone \ud800"]
    encoder = make(encoding_format=encoding_format)
    expected = server.fake.vectors(["one", "two", "one", "lone \ufffd"])
    for _ in range(2):
        assert np.array_equal(cache.embed(texts, encoder), expected)
    asked = [text for texts in server.inputs for text in texts]
    assert sorted(asked) == sorted([CANARY_TEXT, "one", "two", "lone \ufffd"])
    first = server.requests[0]
    assert {key: first[key] for key in first if key != "input"} == {
        "path": "/v1/embeddings",
        "model": "small",
        "encoding_format": encoding_format,
    }


def test_base64_and_lists_are_understood_whatever_was_asked_for(server: EmbeddingsServer, make: Make) -> None:
    def in_base64(good: dict[str, Any]) -> dict[str, Any]:
        for item in good["data"]:
            item["embedding"] = base64.b64encode(np.array(item["embedding"], "<f4").tobytes()).decode()
        return good

    server.misbehaving = [in_base64]
    assert np.array_equal(make().encode(["a", "b"]), server.fake.vectors(["a", "b"]))


def test_vectors_go_to_their_texts_by_index_whatever_order_they_come_in(server: EmbeddingsServer, make: Make) -> None:
    server.misbehaving = [lambda good: {"data": good["data"][::-1]}]
    assert np.array_equal(make().encode(["a", "b", "c"]), server.fake.vectors(["a", "b", "c"]))


def test_a_request_carries_no_more_texts_and_characters_than_it_may(server: EmbeddingsServer, make: Make) -> None:
    texts = ["a" * 6, "b" * 4, "c", "d" * 50, "e", "f", "g"]
    assert np.array_equal(make(max_texts=2, max_chars=10).encode(texts), server.fake.vectors(texts))
    assert server.inputs == [texts[:2], texts[2:3], texts[3:4], texts[4:6], texts[6:]]


def test_dimensions_are_asked_for_and_part_of_the_identity(
    cache: EmbeddingCache, server: EmbeddingsServer, make: Make
) -> None:
    whole, short = cache.embed(["text"], make()), cache.embed(["text"], make(dimensions=2))
    assert (whole.shape, short.shape) == ((1, 4), (1, 2))
    assert [request.get("dimensions") for request in server.requests] == [None, None, 2, 2]


def test_the_server_is_part_of_the_identity_and_can_be_named(server: EmbeddingsServer, make: Make) -> None:
    assert as_encoder(make(dimensions=2)).identity("query") == ModelIdentity.of(
        "small", {"server": server.url, "dimensions": 2}
    )
    assert as_encoder(make(server="ours")).identity("document") == ModelIdentity.of("small", {"server": "ours"})


def test_a_url_is_the_same_with_and_without_a_slash_at_its_end(server: EmbeddingsServer) -> None:
    assert OpenAICompatibleEncoder("small", base_url=f"{server.url}/").model_settings == {"server": server.url}


# --- answers that are wrong -----------------------------------------------------------------


def with_first(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(good: dict[str, Any]) -> dict[str, Any]:
        good["data"][0].update(changes)
        return good

    return change


def without_key(key: str) -> Callable[[dict[str, Any]], Any]:
    def change(good: dict[str, Any]) -> dict[str, Any]:
        del good["data"][0][key]
        return good

    return change


NAN = base64.b64encode(np.array([np.nan, 0, 0, 1], "<f4").tobytes()).decode()
WRONG: dict[str, Any] = {
    "one vector too few": lambda good: {"data": good["data"][:-1]},
    "one vector too many": lambda good: {"data": [*good["data"], {**good["data"][0], "index": 2}]},
    "one vector twice": lambda good: {"data": [*good["data"], good["data"][0]]},
    "no vectors": lambda good: {"data": []},
    "an index twice": with_first(index=1),
    "an index that no text has": with_first(index=7),
    "a negative index": with_first(index=-1),
    "a boolean index": with_first(index=False),
    "no index": without_key("index"),
    "an index that is a list": with_first(index=[0]),
    "no vector": without_key("embedding"),
    "null for a vector": with_first(embedding=None),
    "an object for a vector": with_first(embedding={"0": 0.5}),
    "an empty vector": with_first(embedding=[]),
    "a longer vector": with_first(embedding=[0.5] * 5),
    "a vector of strings": with_first(embedding=["0.5"] * 4),
    "a vector of vectors": with_first(embedding=[[0.5] * 4]),
    "a vector of booleans": with_first(embedding=[True] * 4),
    "a number that is too large": with_first(embedding=[1e300, 0.5, 0.5, 0.5]),
    "NaN": with_first(embedding=[float("nan"), 0.5, 0.5, 0.5]),
    "infinity": with_first(embedding=[float("inf"), 0.5, 0.5, 0.5]),
    "NaN in base64": with_first(embedding=NAN),
    "no base64": with_first(embedding="?" * 8),
    "base64 with something else in it": with_first(embedding="????" + base64.b64encode(b"\0" * 16).decode()),
    "base64 of a broken number": with_first(embedding=base64.b64encode(b"12345").decode()),
    "integers: quantised vectors": lambda good: {"data": [{"index": i, "embedding": [1, 2, 3, 4]} for i in (0, 1)]},
    "an error page that says 200": (200, {"Content-Type": "text/html"}, b"<html>Down for maintenance</html>"),
    "an error that says 200": as_json({"error": {"message": "overloaded"}}),
    "JSON that ends early": (200, {"Content-Type": "application/json"}, b'{"data": [{"index": 0, "embedd'),
    "no JSON object": as_json([1, 2]),
    "null": as_json(None),
    "nothing": (200, {}, b""),
    "JSON that is deep": (200, {"Content-Type": "application/json"}, b"[" * 100_000),
    "bytes that are no text": (200, {"Content-Type": "application/json"}, b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("how", WRONG)
def test_an_answer_that_is_wrong_is_an_error_and_nothing_is_stored(
    cache_path: Any, server: EmbeddingsServer, make: Make, how: str
) -> None:
    with EmbeddingCache(cache_path, check_canary=False) as cache:
        server.misbehaving = [WRONG[how]]
        with pytest.raises(EncoderOutputError, match=r"127\.0\.0\.1|'small'"):
            cache.embed(["first", "second"], make())
        assert (cache.stats().n_vectors, len(server.requests)) == (0, 1)
        assert np.array_equal(cache.embed(["first", "second"], make()), server.fake.vectors(["first", "second"]))
        assert cache.verify() == []


def test_vectors_of_another_dimension_than_was_asked_for_are_refused(server: EmbeddingsServer, make: Make) -> None:
    server.misbehaving = [lambda good: {"data": [{"index": 0, "embedding": [0.5] * 4}]}]
    with pytest.raises(EncoderOutputError, match=r"\[2, 4\] values; 2 were asked for"):
        make(dimensions=2).encode(["text"])


def test_an_error_page_is_shown_by_its_beginning(server: EmbeddingsServer, make: Make) -> None:
    server.misbehaving = [WRONG["an error page that says 200"]]
    with pytest.raises(EncoderOutputError, match=r"text/html that holds no embeddings.*Down for maintenance"):
        make().encode(["text"])


# --- texts that are refused -----------------------------------------------------------------


@pytest.mark.parametrize("bad", ["x" * 10_001, ""])
def test_a_text_that_the_server_refuses_is_named(
    cache_path: Any, server: EmbeddingsServer, make: Make, bad: str
) -> None:
    texts = ["a", "b", bad, "c", "d"]
    with EmbeddingCache(cache_path, check_canary=False) as cache:
        with pytest.raises(EncoderError, match="maximum context length") as caught:
            cache.embed(texts, make())
        assert (caught.value.facts["text"], caught.value.facts["status"]) == (bad, 400)
        assert f"{len(bad)} characters long" in str(caught.value)
        assert cache.stats().n_vectors == 0


def test_a_request_that_is_too_large_as_a_whole_is_made_in_halves(server: EmbeddingsServer, make: Make) -> None:
    server.max_total_chars = 3
    texts = ["aa", "b", "cc", "d", "e"]
    assert np.array_equal(make().encode(texts), server.fake.vectors(texts))


# --- asking again ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(server: EmbeddingsServer, make: Make, status: int) -> None:
    server.misbehaving = [as_json({"error": "busy"}, status), (status, {}, b""), None]
    assert np.array_equal(make().encode(["text"]), server.fake.vectors(["text"]))
    assert server.inputs == [["text"]] * 4


@pytest.mark.parametrize("status", [301, 401, 403, 404, 501])
def test_what_will_not_change_is_an_error_at_once(server: EmbeddingsServer, make: Make, status: int) -> None:
    server.misbehaving = [as_json({"error": "no"}, status, Location=f"{server.url}/embeddings")]
    with pytest.raises(EncoderError, match=rf"answered {status}: .*no") as caught:
        make().encode(["text"])
    assert (caught.value.facts["status"], len(server.requests)) == (status, 1)


def test_an_empty_purse_is_an_error_at_once(server: EmbeddingsServer, make: Make) -> None:
    server.misbehaving = [as_json({"error": {"code": "insufficient_quota"}}, 429)]
    with pytest.raises(EncoderError, match="insufficient_quota"):
        make().encode(["text"])
    assert len(server.requests) == 1


def test_after_the_last_retry_the_last_failure_is_raised(server: EmbeddingsServer, make: Make) -> None:
    server.misbehaving = [as_json("busy", 503)] * 9
    with pytest.raises(EncoderError, match="answered 503"):
        make(max_retries=2).encode(["text"])
    assert len(server.requests) == 3


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait was to be; none is waited."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def test_retry_after_is_kept_to_in_seconds_and_as_a_date(
    server: EmbeddingsServer, make: Make, waits: list[float]
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    server.misbehaving = [
        as_json("busy", 429, **{"Retry-After": value}) for value in ("7", "0.5", date, past, "soon", "-3")
    ]
    make(max_retries=6).encode(["text"])
    seconds, fraction, until, over, unknown, negative = waits
    assert (seconds, fraction, over, negative) == (7, 0.5, 0, 0)
    assert 20 < until <= 30
    assert 0 < unknown < 1  # the wait that is its own


def test_a_server_that_asks_for_too_long_a_wait_is_an_error_at_once(
    server: EmbeddingsServer, make: Make, waits: list[float]
) -> None:
    server.misbehaving = [as_json("come back tomorrow", 429, **{"Retry-After": "86400"})]
    with pytest.raises(EncoderError, match="come back tomorrow"):
        make().encode(["text"])
    assert (len(server.requests), waits) == (1, [])


def test_waits_double_vary_and_have_an_end(
    server: EmbeddingsServer, make: Make, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_embeddings_api, "BACKOFF_S", 1.0)
    server.misbehaving = [as_json("busy", 503)] * 5
    make(max_wait_s=4).encode(["text"])
    for wait_s, most_s in zip(waits, [1, 2, 4, 4, 4], strict=True):
        assert most_s / 2 <= wait_s <= most_s
    assert len(set(waits)) == 5


def test_a_server_that_says_nothing_is_given_up_after_its_time(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        encoder = OpenAICompatibleEncoder("small", base_url=url, timeout_s=0.05, max_retries=0)
        with pytest.raises(EncoderError, match="gave no answer: ReadTimeout"):
            encoder.encode(["text"])
        encoder.close()


def test_a_server_that_is_not_there_is_an_error_that_names_it(server: EmbeddingsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    encoder = OpenAICompatibleEncoder("small", base_url=f"http://127.0.0.1:{port}/v1", max_retries=1)
    with pytest.raises(EncoderError, match=rf"127\.0\.0\.1:{port}/v1/embeddings gave no answer: ConnectError"):
        encoder.encode(["text"])
    encoder.close()


def test_batches_before_one_that_fails_stay_stored(cache: EmbeddingCache, server: EmbeddingsServer, make: Make) -> None:
    encoder = make(max_retries=0)
    cache.embed(["stored"], encoder)
    server.misbehaving = [lambda good: good, (500, {}, b"")]
    with pytest.raises(EncoderError, match="answered 500"):
        cache.embed(["a", "bb"], encoder, batch_size=1)  # the longest first
    server.requests.clear()
    cache.embed(["stored", "a", "bb"], encoder)
    assert server.inputs == [["a"]]


# --- the key --------------------------------------------------------------------------------


def test_the_key_is_read_for_each_request_and_only_where_it_is_named(
    server: EmbeddingsServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for OpenAI alone")
    make().encode(["text"])
    encoder = make(api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", f"  {KEY}\n")
    encoder.encode(["text"])
    monkeypatch.setenv("MY_KEY", "another")
    encoder.encode(["text"])
    assert server.keys == [None, f"Bearer {KEY}", "Bearer another"]
    assert OpenAICompatibleEncoder("small").api_key_env == "OPENAI_API_KEY"


@pytest.mark.parametrize("value", [None, "", "  ", "a\nb", "schlüssel"])
def test_a_variable_without_a_usable_key_is_named_and_its_value_is_not(
    server: EmbeddingsServer, make: Make, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(InvalidInputError, match="the environment variable MY_KEY holds no key") as caught:
        as_encoder(make(api_key_env="MY_KEY")).encode(["text"], role="document", batch_size=1)
    assert value is None or not value.strip() or value not in str(caught.value)
    assert server.requests == []


def test_the_key_is_in_no_error_log_repr_or_identity(
    cache: EmbeddingCache,
    server: EmbeddingsServer,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    encoder = make(api_key_env="MY_KEY", max_retries=1)
    echo = f"Incorrect API key provided: {KEY}"
    server.misbehaving = [as_json(echo, 503), as_json(echo, 401), (200, {}, echo.encode()), as_json(echo, 400)]
    said = []
    for _ in range(3):
        with pytest.raises(EncoderError, match="provided: ") as caught:
            cache.embed(["text"], encoder)
        error: BaseException | None = caught.value
        while error is not None:
            said += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__ or error.__context__
    said += [caplog.text, repr(encoder), repr(vars(encoder)), str(as_encoder(encoder).identity("document"))]
    assert server.keys == [f"Bearer {KEY}"] * 4
    assert KEY not in "".join(said)


# --- what it is made of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:80", "ftp://host/v1", "https://", "file:///v1", "http://[::1", "http://host:99999/v1"),
        *("http://host:x/v1", "http://two words/v1", "http://host/\nv1", "http://host\0/v1", None, 5),
    ],
)
def test_what_is_no_url_is_refused(url: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"no http\(s\) URL"):
        OpenAICompatibleEncoder("small", base_url=url)


def test_the_address_of_the_call_itself_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="give what comes before it"):
        OpenAICompatibleEncoder("small", base_url="http://host/v1/embeddings/")


def test_a_name_that_no_server_can_have_is_asked_once() -> None:
    encoder = OpenAICompatibleEncoder("small", base_url=f"http://{'a' * 300}/v1")
    with pytest.raises(EncoderError, match="gave no answer"):
        encoder.encode(["text"])
    encoder.close()


@pytest.mark.parametrize("name", ["timeout_s", "max_wait_s", "max_retries"])
@pytest.mark.parametrize(
    ("value", "error"), [(-1, InvalidInputError), ("1", InvalidTypeError), (None, InvalidTypeError)]
)
def test_how_long_and_how_often_are_numbers(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        OpenAICompatibleEncoder("small", **{name: value})


@pytest.mark.parametrize("url", [f"https://user:{KEY}@host/v1", f"https://host/v1?key={KEY}", f"https://host/#{KEY}"])
def test_a_url_that_may_hold_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInputError, match="api_key_env") as caught:
        OpenAICompatibleEncoder("small", base_url=url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["dimensions", "max_texts", "max_chars"])
def test_counts_are_counts(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        OpenAICompatibleEncoder("small", **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=name):
        OpenAICompatibleEncoder("small", **{name: "8"})  # type: ignore[arg-type]


def test_without_httpx_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[openai\]"'):
        OpenAICompatibleEncoder("small")


def test_it_can_be_used_again_after_it_was_closed(server: EmbeddingsServer, make: Make) -> None:
    encoder = make()
    for _ in range(2):
        assert np.array_equal(encoder.encode(["text"]), server.fake.vectors(["text"]))
        encoder.close()
    encoder.close()


def test_it_can_be_sent_to_another_process(server: EmbeddingsServer, make: Make) -> None:
    encoder = make(dimensions=2)
    encoder.encode(["text"])
    sent = pickle.loads(pickle.dumps(encoder))
    assert as_encoder(sent).identity("document") == as_encoder(encoder).identity("document")
    assert np.array_equal(sent.encode(["text"]), server.fake.vectors(["text"])[:, :2])
    sent.close()
