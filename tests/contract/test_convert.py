"""Models that are stored in another format afterwards: all of them or none, without the model, whoever looks on."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embstore import (
    DamagedStoreError,
    EmbeddingCache,
    ModelChangedError,
    ModelIdentity,
    OutOfRangeError,
    StoreBusyError,
    UnknownModelError,
)
from embstore.identity import Dtype
from embstore.inputs import hash_texts
from tests.fakes import CountingEncoder, QueryEncoder, halved
from tests.tables import change, dump, rows, state

IDS = [f"doc {i}" for i in range(1200)]
TEXTS = [f"text {i}" for i in range(1200)]

PatchSome = Callable[[Callable[..., None]], None]

MODELS = "SELECT model_id, model_name, settings, dim, dtype, canary, created_at, checksum FROM models ORDER BY model_id"
VECTORS = "SELECT vector_id, model_id, content_hash, dim, standalone, vector FROM vectors ORDER BY vector_id"


@pytest.fixture
def filled(location: str, encoder: CountingEncoder) -> str:
    """Documents of one model in two collections, a text without an id, and another model; nobody has it open."""
    with EmbeddingCache(location) as cache:
        cache.get_many(IDS, TEXTS, encoder)
        cache.get_many(IDS[:3], TEXTS[1:4], encoder, collection="other")
        cache.embed(["standalone", "text 1"], encoder)
        cache.get("a", "text 1", CountingEncoder(model_name="another", dim=3))
    encoder.calls.clear()
    return location


@pytest.fixture
def patch_some(store_kind: str, monkeypatch: pytest.MonkeyPatch) -> PatchSome:
    """Have another function called in place of the one that converts some rows, with that one as its first argument."""
    where = "embstore.stores.tables.conversion" if store_kind == "sqlite" else "embstore.stores.postgres.conversion"
    module = importlib.import_module(where)
    some = module._convert_some

    def patch(other: Callable[..., None]) -> None:
        monkeypatch.setattr(module, "_convert_some", lambda *arguments: other(some, *arguments))

    return patch


def test_only_the_values_and_what_says_their_format_change(filled: str, encoder: CountingEncoder) -> None:
    before, models_before, vectors_before = dump(filled), rows(filled, MODELS), rows(filled, VECTORS)
    with EmbeddingCache(filled) as cache:
        assert cache.convert("fake", dtype="float16") == len(TEXTS) + 1
        assert cache.verify() == []
    after = dump(filled)
    assert {name for name in before if before[name] != after[name]} == {"models", "vectors"}
    (fake, another), (fake_before, another_before) = rows(filled, MODELS), models_before
    assert another == another_before
    model_id, name, settings, dim, dtype, *rest, checksum = fake
    assert (settings, dtype) == ('{"dtype":"float16"}', "float16")
    assert (model_id, name, "{}", dim, "float32", *rest) == fake_before[:-1]  # the canary among them
    assert checksum != fake_before[-1]
    for row, row_before in zip(rows(filled, VECTORS), vectors_before, strict=True):
        assert row[:-1] == row_before[:-1]
        expected = np.frombuffer(row_before[-1], "<f4")
        assert row[-1] == (expected.astype("<f2").tobytes() if row[1] == model_id else row_before[-1])
    with EmbeddingCache(filled) as cache:
        assert cache.get_many(IDS, TEXTS, encoder).tobytes() == halved(encoder.vectors(TEXTS)).tobytes()
        cache.embed(["standalone"], encoder)
        assert encoder.calls == []
        assert cache.prune(standalone=True, dry_run=True).n_vectors == 1
        assert cache.matrix("fake", collection="other", doc_ids=["doc 0"])[1].tobytes() == (
            halved(encoder.vectors(["text 1"])).tobytes()
        )


def test_there_and_back_keeps_the_rounded_values(filled: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(filled) as cache:
        before = dump(filled)["models"]
        cache.convert("fake", dtype="float16")
        rounded = cache.get_many(IDS, TEXTS, encoder)
        assert cache.convert("fake", dtype="float32") == len(TEXTS) + 1
        assert dump(filled)["models"] == before
        assert cache.get_many(IDS, TEXTS, encoder).tobytes() == rounded.tobytes()
        assert encoder.calls == []
        assert cache.verify() == []


def test_what_is_in_the_format_is_left_alone(filled: str) -> None:
    before = state(filled)
    with EmbeddingCache(filled) as cache:
        assert cache.convert("fake", dtype="float32") == 0
    assert state(filled) == before


def test_each_of_several_models_of_a_name_is_told_by_role_and_settings(cache: EmbeddingCache) -> None:
    encoder = QueryEncoder()
    cache.get("a", "text", encoder)
    cache.embed_query("text", encoder)
    cache.put_many(["a"], ["text"], np.ones((1, 2)), model_name="fake", settings={"a": 1})
    assert cache.convert("fake", dtype="float16", role="query") == 1
    assert cache.convert("fake", dtype="float16", settings={"a": 1}) == 1
    assert cache.convert("fake", dtype="float16", settings={"a": 1, "dtype": "float16"}) == 0
    assert [model.dtype for model in cache.models()] == ["float32", "float16", "float16"]
    assert cache.embed_query("text", encoder).tobytes() == halved(encoder.vector("query: text")).tobytes()
    assert cache.embed(["text"], encoder).tobytes() == encoder.vectors(["text"]).tobytes()
    assert encoder.n_texts == 2
    for settings in ({"a": 2}, {"a": 1, "dtype": "float32"}):
        with pytest.raises(UnknownModelError, match="with settings"):
            cache.convert("fake", dtype="float32", settings=settings)
    with pytest.raises(UnknownModelError):
        cache.convert("nobody", dtype="float16")


def test_it_goes_with_clear_rename_invalidate_and_prune(filled: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(filled) as cache:
        cache.convert("fake", dtype="float16")
        cache.rename_model("fake", "renamed")
        assert [model.dtype for model in cache.models()] == ["float16", "float32"]
        renamed: dict[str, Any] = {"model_name": "renamed"}
        assert cache.invalidate("doc 7", **renamed) == 1
        assert cache.missing(TEXTS, encoder, **renamed) == ["text 7"]
        cache.get("doc 8", "edited", encoder, **renamed)
        report = cache.prune()
        assert (report.n_vectors, report.vector_bytes) == (1, 2 * encoder.dim)
        assert cache.convert("renamed", dtype="float32") == len(TEXTS)
        cache.get("doc 7", "text 7", encoder, **renamed)
        assert cache.matrix("renamed", collection="", doc_ids=["doc 7"])[1].tobytes() == (
            encoder.vectors(["text 7"]).tobytes()
        )
        assert cache.clear(model_name="renamed") == len(IDS) + 3
        assert cache.verify() == []


def test_the_other_model_is_still_noticed_by_the_canary(filled: str) -> None:
    with EmbeddingCache(filled) as cache:
        cache.convert("fake", dtype="float16")
        with pytest.raises(ModelChangedError):
            cache.get("a", "new", CountingEncoder(seed=1))


def test_a_damaged_row_is_named_and_nothing_is_converted(filled: str) -> None:
    (vector_id,) = rows(filled, "SELECT vector_id FROM documents WHERE doc_id = 'doc 1100'")[0]
    change(filled, "UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = ?", vector_id)
    before = state(filled)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(DamagedStoreError, match=rf"doc_id 'doc 1100' \(vector_id {vector_id}\).*get_many"):
            cache.convert("fake", dtype="float16")
        assert state(filled) == before
        cache.get("doc 1100", "text 1100", CountingEncoder())
        assert cache.convert("fake", dtype="float16") == len(TEXTS) + 1


def test_a_value_that_is_too_large_is_named_and_nothing_is_converted(cache: EmbeddingCache, location: str) -> None:
    values = np.ones((1200, 3))
    values[1100, 1] = 1e5
    cache.put_many(IDS, TEXTS, values, model_name="m")
    before = state(location)
    with pytest.raises(OutOfRangeError, match=r"doc_id 'doc 1100'.*100000 is over 65504"):
        cache.convert("m", dtype="float16")
    assert state(location) == before


def test_an_error_in_the_middle_leaves_the_model_as_it_was(filled: str, patch_some: PatchSome) -> None:
    before, calls = state(filled), []

    def fails(some: Callable[..., None], *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        some(*arguments)

    patch_some(fails)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.convert("fake", dtype="float16")
        assert cache.verify() == []
    assert state(filled) == before


def test_a_model_that_was_found_before_is_read_and_written_in_its_present_format(location: str) -> None:
    encoder = CountingEncoder()
    keys = hash_texts(["a", "b", "new"])
    with EmbeddingCache(location) as cache:
        cache.get_many(["a", "b"], ["a", "b"], encoder)
        store = cache.store
        stale = store.find_model(ModelIdentity("fake"))
        assert stale is not None
        cache.convert("fake", dtype="float16")
        assert store.look_up(stale, keys).found.tolist() == [True, True, False]
        assert store.insert_vectors(stale, keys[2:], encoder.vectors(["new"]), standalone=False) == 1
        assert store.replace_vectors(stale, keys[:1], encoder.vectors(["a"]), standalone=False) == 0
        store.mark_standalone(stale, keys[1:2])
        store.put_documents(stale, "", ["new"], keys[2:])
        ids, vectors = store.matrix(stale, collection=None, doc_ids=["a", "b", "new"])
        assert vectors.tobytes() == halved(encoder.vectors(ids)).tobytes()
        pages = list(store.pages(stale, collection=None, batch_rows=2))
        assert [len(ids) for ids, _ in pages] == [2, 1]
        assert store.set_canary(stale, encoder.vector("anything")).dtype == "float16"
        assert cache.convert("fake", dtype="float32") == 3
        assert store.convert(stale, "float32") == 0
        cache.clear()
        with pytest.raises(UnknownModelError, match="removed"):
            store.convert(stale, "float16")
        assert cache.verify() == []


def test_pages_go_on_in_the_other_format(filled: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(filled) as cache:
        pages = cache.iter_matrix("fake", collection="", batch_rows=500)
        whole, page = next(pages)
        assert page.tobytes() == encoder.vectors([f"text {doc_id[4:]}" for doc_id in whole]).tobytes()
        cache.convert("fake", dtype="float16")
        for ids, page in pages:
            assert page.tobytes() == halved(encoder.vectors([f"text {doc_id[4:]}" for doc_id in ids])).tobytes()


class Converting(CountingEncoder):
    """Has another cache convert its model while it encodes, once something is stored."""

    def __init__(self, convert: Callable[[], object]) -> None:
        super().__init__()
        self.convert = convert

    def encode(self, texts: list[str]) -> np.ndarray:
        if "now" in texts:
            self.convert()
        return super().encode(texts)


def test_what_a_call_encodes_while_its_model_is_converted_is_stored_and_given_as_it_is_then(filled: str) -> None:
    with EmbeddingCache(filled) as other, EmbeddingCache(filled) as cache:
        encoder = Converting(lambda: other.convert("fake", dtype="float16"))
        given = cache.get_many(["x", "y"], ["now", "text 5"], encoder)
        assert given[0].tobytes() == halved(encoder.vectors(["now"])).tobytes()
        assert given[1].tobytes() in {
            encoder.vector("text 5").tobytes(),
            halved(encoder.vectors(["text 5"])).tobytes(),
        }
        assert [model.dtype for model in cache.models()] == ["float16", "float32"]
        assert cache.get("x", "now", encoder).tobytes() == given[0].tobytes()
        assert (encoder.calls, cache.verify()) == ([["now"]], [])


BESIDE = """
import sys
import numpy as np
from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

path, first, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
encoder = CountingEncoder()

def check(texts, vectors):
    whole = encoder.vectors(texts)
    half = whole.astype(np.float16).astype(np.float32)
    for text, vector, one, other in zip(texts, vectors, whole, half, strict=True):
        assert vector.tobytes() in (one.tobytes(), other.tobytes()), text

with EmbeddingCache(path, timeout_s=120) as cache:
    print("ready", flush=True)
    sys.stdin.readline()
    for k in range(n):
        texts = [f"text {i}" for i in range(first + 3 * k, first + 3 * k + 40)]
        check(texts, cache.get_many([f"doc of {text}" for text in texts], texts, encoder))
        if k % 5 == 0:
            cache.put_many(texts[:5], texts[:5], encoder.vectors(texts[:5]), model=encoder)
            check(texts[:5], cache.embed(texts[:5], encoder))
        ids, vectors = cache.matrix("fake", doc_ids=[f"doc of {text}" for text in texts])
        check(texts, vectors)
    assert len(encoder.texts) == len(set(encoder.texts)), "encoded twice"
"""


def test_processes_that_read_and_write_meanwhile_get_right_vectors(location: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(location, timeout_s=120) as cache:
        cache.get_many(IDS[:200], TEXTS[:200], encoder)
        command = [sys.executable, "-c", BESIDE, location]
        others = [
            subprocess.Popen([*command, str(first), "12"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for first in (100, 400)
        ]
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
        n_converted = 0
        while any(other.poll() is None for other in others):
            dtype: Dtype = "float32" if n_converted % 2 else "float16"
            assert cache.convert("fake", dtype=dtype) >= 200
            n_converted += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                next(other for other in others if other.returncode is None).wait(0.1)  # their turn
        for other in others:
            other.communicate()
        assert [other.returncode for other in others] == [0, 0]
        assert n_converted > 3
        assert len(cache.models()) == 1
        assert cache.verify() == []


def test_who_cannot_wait_for_it_is_told(filled: str, patch_some: PatchSome) -> None:
    converting, go_on = threading.Event(), threading.Event()

    def waits(some: Callable[..., None], *arguments: Any) -> None:
        converting.set()
        go_on.wait(60)
        some(*arguments)

    patch_some(waits)
    encoder = CountingEncoder()
    with EmbeddingCache(filled) as cache, EmbeddingCache(filled, timeout_s=0.1) as other:
        thread = threading.Thread(target=cache.convert, args=("fake",), kwargs={"dtype": "float16"})
        thread.start()
        try:
            assert converting.wait(60)
            assert other.get("doc 1", "text 1", encoder).tobytes() == encoder.vector("text 1").tobytes()
            with pytest.raises(StoreBusyError):
                other.get("new", "new", encoder)
        finally:
            go_on.set()
            thread.join(60)
        assert other.get("doc 1", "text 1", encoder).tobytes() == halved(encoder.vectors(["text 1"])).tobytes()
