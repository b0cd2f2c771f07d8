"""Models that are stored in another format afterwards: all of them or none, without the model, whoever looks on."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    CachedSemanticSearchEngine,
    DamagedStoreError,
    EmbeddingCache,
    ModelIdentity,
    OutOfRangeError,
    SemanticSearchEngine,
    StoreBusyError,
    UnknownModelError,
    content_hash,
)
from embstore.errors import ReadOnlyError
from embstore.identity import Dtype
from embstore.inputs import hash_texts
from embstore.stores.tables import conversion
from tests.fakes import CountingEncoder, QueryEncoder, halved
from tests.files import change, connection, dump, rows

IDS = [f"doc {i}" for i in range(1200)]
TEXTS = [f"text {i}" for i in range(1200)]


@pytest.fixture
def filled(cache_path: Path, encoder: CountingEncoder) -> Path:
    """Documents of one model in two collections, a text without an id, and another model; the file is closed."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(IDS, TEXTS, encoder)
        cache.get_many(IDS[:3], TEXTS[1:4], encoder, collection="other")
        cache.embed(["standalone", "text 1"], encoder)
        cache.get("a", "text 1", CountingEncoder(model_name="another", dim=3))
    encoder.calls.clear()
    return cache_path


# --- what it does ---------------------------------------------------------------------------


def test_only_the_values_and_what_says_their_format_change(filled: Path, encoder: CountingEncoder) -> None:
    before = dump(filled)
    with EmbeddingCache(filled) as cache:
        assert cache.convert("fake", dtype="float16") == len(TEXTS) + 1
        assert cache.verify() == []
    after = dump(filled)
    assert {name for name in before if before[name] != after[name]} == {"models", "vectors"}
    (fake, another), (fake_before, another_before) = after["models"], before["models"]
    assert another == another_before
    model_id, name, settings, dim, dtype, *rest, checksum = fake
    assert (settings, dtype) == ('{"dtype":"float16"}', "float16")
    assert (model_id, name, "{}", dim, "float32", *rest) == fake_before[:-1]  # the canary among them
    assert checksum != fake_before[-1]
    for row, row_before in zip(after["vectors"], before["vectors"], strict=True):
        assert row[:5] == row_before[:5]
        expected = np.frombuffer(row_before[6], "<f4")
        assert row[6] == (expected.astype("<f2").tobytes() if row[1] == model_id else row_before[6])
    with EmbeddingCache(filled) as cache:
        assert cache.get_many(IDS, TEXTS, encoder).tobytes() == halved(encoder.vectors(TEXTS)).tobytes()
        cache.embed(["standalone"], encoder)
        assert encoder.calls == []
        assert cache.prune(standalone=True, dry_run=True).n_vectors == 1
        assert cache.matrix("fake", collection="other", doc_ids=["doc 0"])[1].tobytes() == (
            halved(encoder.vectors(["text 1"])).tobytes()
        )


def test_there_and_back_keeps_the_rounded_values(filled: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(filled) as cache:
        before = dump(filled)["models"]
        cache.convert("fake", dtype="float16")
        rounded = cache.get_many(IDS, TEXTS, encoder)
        assert cache.convert("fake", dtype="float32") == len(TEXTS) + 1
        assert dump(filled)["models"] == before
        assert cache.get_many(IDS, TEXTS, encoder).tobytes() == rounded.tobytes()
        assert encoder.calls == []
        assert cache.verify() == []


def test_what_is_in_the_format_is_left_alone(filled: Path) -> None:
    before = filled.read_bytes()
    with EmbeddingCache(filled) as cache:
        assert cache.convert("fake", dtype="float32") == 0
    assert filled.read_bytes() == before


def test_the_space_comes_back_with_compact(cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.put_many(IDS, TEXTS, np.random.default_rng(0).standard_normal((1200, 1024)), model_name="m")
        size = cache_path.stat().st_size
        cache.convert("m", dtype="float16")
        assert cache_path.stat().st_size <= size
        assert cache.compact() > 0.4 * size


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


def test_it_goes_with_clear_rename_invalidate_and_prune(filled: Path, encoder: CountingEncoder) -> None:
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


def test_the_other_model_is_still_noticed_by_the_canary(filled: Path) -> None:
    from embstore import ModelChangedError

    with EmbeddingCache(filled) as cache:
        cache.convert("fake", dtype="float16")
        with pytest.raises(ModelChangedError):
            cache.get("a", "new", CountingEncoder(seed=1))


# --- all or nothing -------------------------------------------------------------------------


def test_a_damaged_row_is_named_and_nothing_is_converted(filled: Path) -> None:
    (vector_id,) = rows(filled, "SELECT vector_id FROM documents WHERE doc_id = 'doc 1100'")[0]
    change(filled, "UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = ?", vector_id)
    before = filled.read_bytes()
    with EmbeddingCache(filled) as cache:
        with pytest.raises(DamagedStoreError, match=rf"doc_id 'doc 1100' \(vector_id {vector_id}\).*get_many"):
            cache.convert("fake", dtype="float16")
        assert filled.read_bytes() == before
        cache.get("doc 1100", "text 1100", CountingEncoder())
        assert cache.convert("fake", dtype="float16") == len(TEXTS) + 1


def test_a_row_of_another_model_is_not_converted_with_this_one(filled: Path) -> None:
    change(filled, "UPDATE vectors SET model_id = 2 WHERE vector_id = 5")
    before = filled.read_bytes()
    with EmbeddingCache(filled) as cache, pytest.raises(DamagedStoreError, match=r"no document \(vector_id 5\)"):
        cache.convert("another", dtype="float16")
    assert filled.read_bytes() == before


def test_a_row_that_its_index_has_lost_is_noticed(filled: Path) -> None:
    with connection(filled, "rw") as opened:  # as damage to a page of the index would
        opened.execute("PRAGMA writable_schema = ON")
        change_root = "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = ?)"
        opened.execute("CREATE TABLE few (m INTEGER, h BLOB)")
        opened.execute("CREATE UNIQUE INDEX few_index ON few (m, h)")
        opened.execute("INSERT INTO few SELECT model_id, content_hash FROM vectors WHERE vector_id < 9")
        opened.execute(f"{change_root} WHERE name = ?", ("few_index", "sqlite_autoindex_vectors_1"))
        opened.commit()
    with EmbeddingCache(filled) as cache, pytest.raises(DamagedStoreError, match=r"damaged keys: 1201 rows .* has 8"):
        cache.convert("fake", dtype="float16")


def test_a_value_that_is_too_large_is_named_and_nothing_is_converted(cache: EmbeddingCache, cache_path: Path) -> None:
    values = np.ones((1200, 3))
    values[1100, 1] = 1e5
    cache.put_many(IDS, TEXTS, values, model_name="m")
    before = cache_path.read_bytes()
    with pytest.raises(OutOfRangeError, match=r"doc_id 'doc 1100'.*100000 is over 65504"):
        cache.convert("m", dtype="float16")
    assert cache_path.read_bytes() == before


def test_a_file_that_can_only_be_read_is_not_converted(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(ReadOnlyError):
            cache.convert("fake", dtype="float16")
        assert cache.convert("fake", dtype="float32") == 0


def test_an_error_in_the_middle_leaves_the_model_as_it_was(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, some, calls = filled.read_bytes(), conversion._convert_some, []

    def fails(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        some(*arguments)

    monkeypatch.setattr(conversion, "_convert_some", fails)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.convert("fake", dtype="float16")
        assert cache.verify() == []
    assert filled.read_bytes() == before


CONVERT = """
import sys
from embstore import EmbeddingCache
from embstore.stores.tables import conversion

some = conversion._convert_some

def told(*arguments):
    some(*arguments)
    print("some", flush=True)

conversion._convert_some = told
with EmbeddingCache(sys.argv[1]) as cache:
    print("ready", flush=True)
    cache.convert("m", dtype=sys.argv[2])
    print("done", flush=True)
"""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_process_that_is_killed_while_it_converts_leaves_one_or_the_other(dtype: Dtype, cache_path: Path) -> None:
    """Also where the transaction is larger than SQLite's cache, so that much is written to the file before its end."""
    encoder, other = CountingEncoder(dim=768, model_name="m"), "float16" if dtype == "float32" else "float32"
    ids = [f"doc {i}" for i in range(20_000)]
    values = np.random.default_rng(0).standard_normal((len(ids), encoder.dim)).astype(np.float16).astype(np.float32)
    with EmbeddingCache(cache_path, dtype=other) as cache:  # type: ignore[arg-type]
        cache.put_many(ids, ids, values, model_name="m")
    rng, ends = random.Random(dtype), []
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", CONVERT, str(cache_path), dtype], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range((2, 39, 20, 38, 10, 40)[round_]):
            assert process.stdout.readline() == "some\n"
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with EmbeddingCache(cache_path) as cache:
            assert cache.verify() == []
            (model,) = cache.models()
            ends.append(model.dtype)
            assert model.n_vectors == len(ids)
            assert cache.matrix("m", doc_ids=ids[::97])[1].tobytes() == values[::97].tobytes()
            if model.dtype == dtype:
                cache.convert("m", dtype=other)  # type: ignore[arg-type]
    assert other in ends


# --- beside others --------------------------------------------------------------------------


def test_a_model_that_was_found_before_is_read_and_written_in_its_present_format(cache_path: Path) -> None:
    encoder = CountingEncoder()
    keys = hash_texts(["a", "b", "new"])
    with EmbeddingCache(cache_path) as cache:
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


def test_pages_go_on_in_the_other_format(filled: Path, encoder: CountingEncoder) -> None:
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


def test_what_a_call_encodes_while_its_model_is_converted_is_stored_and_given_as_it_is_then(filled: Path) -> None:
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


def test_processes_that_read_and_write_meanwhile_get_right_vectors(cache_path: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(cache_path, timeout_s=120) as cache:
        cache.get_many(IDS[:200], TEXTS[:200], encoder)
        command = [sys.executable, "-c", BESIDE, str(cache_path)]
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


def test_who_cannot_wait_for_it_is_told(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converting, go_on, some = threading.Event(), threading.Event(), conversion._convert_some

    def waits(*arguments: Any) -> None:
        converting.set()
        go_on.wait(60)
        some(*arguments)

    monkeypatch.setattr(conversion, "_convert_some", waits)
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


# --- indexes --------------------------------------------------------------------------------


def test_an_open_exact_index_goes_on_with_the_converted_vectors(library: Path, encoder: CountingEncoder) -> None:
    texts, ids = TEXTS[:30], IDS[:30]
    with (
        CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine,
        SemanticSearchEngine(encoder, path=library, index="exact", collection_name="empty") as empty,
    ):
        engine.index_documents(texts, ids)
        assert engine.search("text 5", 1)[0].score == 1
        with EmbeddingCache(library / "embeddings.db") as other:
            other.convert("fake", dtype="float16")
        hit = engine.search("text 5", 1)[0]
        assert (hit.doc_id, hit.score) == ("doc 5", 1)
        (loaded,) = (engine._index._collection._loaded.matrix,)  # type: ignore[attr-defined]
        expected = halved(encoder.vectors(texts)).astype(np.float64)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        row_of = {doc_id: row for row, doc_id in enumerate(loaded.doc_ids)}
        assert np.abs(loaded.vectors[[row_of[doc_id] for doc_id in ids]] - expected).max() < 1e-7
        report = engine.index_documents([*texts, "new"], [*ids, "new"])
        assert (report.unchanged, report.encoded) == (30, 1)
        empty.index_documents(["text 3"], ["doc 3"])
        assert empty.search("text 3", 1)[0].doc_id == "doc 3"
        assert engine.reconcile([*texts, "new"], [*ids, "new"]).ok
        engine.rename_model("fake", "renamed")
        assert [(model.model_name, model.dtype) for model in engine.cache.models()] == [("renamed", "float16")]
        assert engine.search("text 5", 1)[0].doc_id == "doc 5"
        assert engine.cache.verify() == []


def test_an_index_of_chroma_stays_as_it_is(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    texts, ids = TEXTS[:30], IDS[:30]
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(texts, ids)
        engine.cache.convert("fake", dtype="float16")
    for dtype in ("float16", "float32"):
        with CachedSemanticSearchEngine(encoder, path=library) as engine:
            encoder.calls.clear()
            report = engine.reconcile(texts, ids)
            assert (report.ok, report.not_cached) == (True, [])
            assert engine.index_documents(texts, ids).unchanged == 30
            assert engine.plan([*texts, "new"], [*ids, "new"]).to_encode == 1
            assert engine.search("text 5", 1)[0].doc_id == "doc 5"
            assert encoder.calls in ([], [["text 5"]])
            engine.cache.convert("fake", dtype="float32")
        assert dtype


def test_a_wrong_vector_of_an_index_is_found_all_the_same(library: Path, encoder: CountingEncoder) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with CachedSemanticSearchEngine(encoder, path=library, dtype="float16") as engine:
        engine.index_documents(TEXTS[:30], IDS[:30])
        wrong = encoder.vector("text 7") + np.float32(0.002)
        engine.collection.update(ids=["doc 7"], embeddings=wrong[None])
        assert engine.reconcile().wrong_vector == ["doc 7"]
        assert engine.reconcile(repair=True).ok
        assert engine.reconcile().ok
        found, _ = engine.cache.stored_vectors([content_hash("text 7")], encoder)
        assert found.all()
