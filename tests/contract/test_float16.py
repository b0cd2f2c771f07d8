"""Models whose vectors are stored as float16: half the space, and the same float32 from every call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    AmbiguousModelError,
    CachedSemanticSearchEngine,
    DamagedStoreError,
    EmbeddingCache,
    InvalidInputError,
    InvalidTypeError,
    ModelExistsError,
    ModelIdentity,
    OutOfRangeError,
    StoredEmbeddings,
    content_hash,
)
from embstore.canary import CANARY_TEXT
from embstore.checksums import vector_checksums
from tests.fakes import CountingEncoder, HookedEncoder, QueryEncoder, TooLarge, halved
from tests.tables import change, rows, state

IDS = [f"doc {i}" for i in range(20)]
TEXTS = [f"text {i}" for i in range(20)]


@pytest.fixture
def half(location: str) -> Iterator[EmbeddingCache]:
    """A cache that stores new models as float16, and that must be sound when the test is over."""
    with EmbeddingCache(location, dtype="float16") as cache:
        yield cache
        assert cache.verify() == []


# --- what is stored, and what is given back --------------------------------------------------


def test_rows_are_little_endian_float16_and_the_canary_is_float32(half: EmbeddingCache, location: str) -> None:
    encoder = CountingEncoder(dim=5)
    half.get("a", "text", encoder)
    expected = encoder.vector("text").astype("<f2").tobytes()
    ((model_id, dim, standalone, checksum, vector),) = rows(
        location, "SELECT model_id, dim, standalone, checksum, vector FROM vectors"
    )
    assert (dim, vector) == (5, expected)
    as_stored = np.frombuffer(expected, "<f2").reshape(1, 5)
    assert [checksum] == vector_checksums(model_id, [content_hash("text")], standalone, as_stored).tolist()
    assert rows(location, "SELECT settings, dtype, canary FROM models") == [
        ('{"dtype":"float16"}', "float16", encoder.vector(CANARY_TEXT).tobytes())
    ]


def test_every_call_gives_on_a_miss_what_it_gives_on_a_hit(half: EmbeddingCache) -> None:
    encoder = QueryEncoder(dim=7)
    queries = [f"query: {text}" for text in TEXTS]
    calls: dict[str, tuple[Any, Any]] = {
        "get_many": (lambda: half.get_many(IDS, TEXTS, encoder), TEXTS),
        "get": (lambda: half.get("a", "alone", encoder)[None], ["alone"]),
        "embed": (lambda: half.embed(["bare", "alone"], encoder), ["bare", "alone"]),
        "embed_query": (lambda: half.embed_query(TEXTS, encoder), queries),
        "fill": (lambda: half.fill(["b"], ["filled"], encoder).vectors, ["filled"]),
    }
    for name, (call, texts) in calls.items():
        expected = halved(encoder.vectors(texts)).tobytes()
        first = call()
        assert first.dtype == np.float32, name
        assert first.tobytes() == expected, name
        encoder.calls.clear()
        assert call().tobytes() == expected, name
        assert encoder.calls == [], name


def test_what_is_read_in_bulk_is_what_calls_gave(half: EmbeddingCache, encoder: CountingEncoder) -> None:
    given = half.get_many(IDS, TEXTS, encoder)
    assert half.matrix("fake", doc_ids=IDS)[1].tobytes() == given.tobytes()
    pages = list(half.iter_matrix("fake", batch_rows=7))
    assert [len(ids) for ids, _ in pages] == [7, 7, 6]
    assert {doc_id: vector.tobytes() for ids, page in pages for doc_id, vector in zip(ids, page, strict=True)} == {
        doc_id: vector.tobytes() for doc_id, vector in zip(IDS, given, strict=True)
    }
    found, stored = half.stored_vectors([content_hash(text) for text in TEXTS], encoder)
    assert found.all()
    assert (stored.dtype, stored.tobytes()) == (np.dtype(np.float32), given.tobytes())
    assert half.missing(["new", *TEXTS], encoder) == ["new"]


def test_vectors_that_are_put_are_rounded_too(half: EmbeddingCache, encoder: CountingEncoder) -> None:
    vectors = encoder.vectors(TEXTS)
    assert half.put_many(IDS, TEXTS, vectors, model=encoder) == 20
    assert half.get_many(IDS, TEXTS, encoder).tobytes() == halved(vectors).tobytes()
    assert encoder.calls == []
    assert half.put_many(IDS, TEXTS, vectors, model=encoder) == 0


def test_a_model_that_is_recognised_by_one_of_its_texts_is_recognised(half: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    half.put_many(IDS, TEXTS, encoder.vectors(TEXTS), model_name="fake")
    half.get_many(IDS, TEXTS, encoder)
    assert (len(encoder.texts), encoder.n_canaries) == (1, 1)


def test_what_another_process_stored_first_is_what_a_call_gives(half: EmbeddingCache, location: str) -> None:
    others = CountingEncoder()

    def interfere(_: list[str]) -> None:
        with EmbeddingCache(location, check_canary=False) as other:
            vectors = others.vectors(["text"]) * np.float32(1.001)
            other.put_many(["a"], ["text"], vectors, model=others)

    given = half.get("a", "text", HookedEncoder(interfere))
    expected = others.vector("text") * np.float32(1.001)
    assert half.models()[0].dtype == "float32"  # whoever stores a model first says its format
    assert given.tobytes() == expected.tobytes() == half.matrix("fake")[1][0].tobytes()


# --- which format ---------------------------------------------------------------------------


def test_a_model_that_is_stored_keeps_its_format_and_is_not_encoded_again(location: str) -> None:
    encoder = CountingEncoder()
    for first, second in (("float16", "float32"), ("float32", "float16")):
        name: dict[str, Any] = {"model_name": first}
        with EmbeddingCache(location, dtype=first) as cache:  # type: ignore[arg-type]
            given = cache.get_many(IDS, TEXTS, encoder, **name)
        encoder.calls.clear()
        with EmbeddingCache(location, dtype=second) as cache:  # type: ignore[arg-type]
            assert cache.dtype == second
            assert cache.get_many(IDS, TEXTS, encoder, **name).tobytes() == given.tobytes()
            assert encoder.calls == []
            cache.get("new", "new", encoder, **name)
            assert cache.put_many(["x"], ["x"], encoder.vectors(["x"]), model_name=first) == 1
            assert cache.put_many(["y"], ["y"], encoder.vectors(["y"]), model=ModelIdentity(first)) == 1
            assert [model.dtype for model in cache.models() if model.model_name == first] == [first]
            assert len(cache.matrix(first)[0]) == 23
            assert cache.verify() == []


def test_caches_of_both_formats_that_begin_at_once_encode_a_text_once(location: str) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def wait(_: list[str]) -> None:
        encoding.set()
        go_on.wait(60)

    encoder = HookedEncoder(wait)
    with EmbeddingCache(location, dtype="float16") as half, EmbeddingCache(location) as whole:
        given: list[np.ndarray] = []
        threads = [
            threading.Thread(target=lambda cache=cache: given.append(cache.get("a", "text", encoder)))
            for cache in (half, whole)
        ]
        threads[0].start()
        assert encoding.wait(60)
        threads[1].start()
        go_on.set()
        for thread in threads:
            thread.join(60)
        assert encoder.calls == [["text"]]
        assert given[0].tobytes() == given[1].tobytes() == halved(encoder.vectors(["text"])).tobytes()
        assert len(whole.models()) == 1


@pytest.fixture
def both(location: str) -> str:
    """One model that is stored in both formats, with other documents in each; the file is closed."""
    encoder = CountingEncoder()
    with EmbeddingCache(location) as cache:
        for dtype, doc_id in (("float32", "whole"), ("float16", "half")):
            put: dict[str, Any] = {"model_name": "fake", "settings": {"dtype": dtype}}
            cache.put_many([doc_id, "a"], [doc_id, "a"], encoder.vectors([doc_id, "a"]), **put)
        assert [model.settings for model in cache.models()] == [{}, {"dtype": "float16"}]
        assert cache.verify() == []
    return location


@pytest.mark.parametrize(("dtype", "doc_id"), [("float32", "whole"), ("float16", "half")])
def test_of_a_model_in_both_formats_that_of_the_cache_is_used(dtype: Any, doc_id: str, both: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(both, dtype=dtype) as cache:
        assert sorted(cache.matrix("fake")[0]) == sorted(cache.matrix("fake", settings={})[0]) == sorted([doc_id, "a"])
        cache.get("a", "a", encoder)
        assert cache.missing(["whole", "half"], encoder) == [{"whole": "half", "half": "whole"}[doc_id]]
        for named, there in (("float32", "whole"), ("float16", "half")):
            assert there in cache.matrix("fake", settings={"dtype": named})[0]
        with StoredEmbeddings(both, dtype=dtype) as stored:
            assert sorted(stored.matrix("fake")[0]) == sorted([doc_id, "a"])


def test_a_model_in_both_formats_is_converted_into_neither(both: str) -> None:
    for dtype in ("float32", "float16"):
        with EmbeddingCache(both, dtype=dtype) as cache:  # type: ignore[arg-type]
            before = state(both)
            for target in ("float32", "float16"):
                with pytest.raises(ModelExistsError, match="is stored already, beside"):
                    cache.convert("fake", dtype=target)  # type: ignore[arg-type]
            assert cache.convert("fake", dtype="float16", settings={"dtype": "float16"}) == 0
            assert state(both) == before


def test_a_model_in_both_formats_is_renamed_and_cleared_as_one(both: str) -> None:
    with EmbeddingCache(both) as cache:
        cache.rename_model("fake", "new")
        assert [model.model_name for model in cache.models()] == ["new", "new"]
        cache.put_many(["x"], ["x"], np.ones((1, 8)), model_name="fake")
        with pytest.raises(ModelExistsError):
            cache.rename_model("fake", "new")
        assert cache.clear(model_name="new") == 4
        assert [model.model_name for model in cache.models()] == ["fake"]


def test_a_name_is_not_taken_where_the_model_has_it_in_another_format(half: EmbeddingCache) -> None:
    half.put_many(["a"], ["a"], np.ones((1, 2)), model_name="one")
    half.put_many(["a"], ["a"], np.ones((1, 2)), model_name="two", settings={"dtype": "float32"})
    with pytest.raises(ModelExistsError, match="'two' is stored already"):
        half.rename_model("one", "two")
    assert sorted(model.dtype for model in half.models()) == ["float16", "float32"]


def test_settings_still_tell_models_apart(half: EmbeddingCache) -> None:
    for number in (1, 2):
        half.put_many(["a"], ["a"], np.full((1, 2), float(number)), model_name="m", settings={"number": number})
    with pytest.raises(AmbiguousModelError, match=r'"dtype":"float16","number":1'):
        half.matrix("m")
    assert half.matrix("m", settings={"number": 2})[1].tolist() == [[2, 2]]
    assert half.matrix("m", settings=half.models()[0].settings)[1].tolist() == [[1, 1]]


# --- what cannot be stored ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), None, 16])
def test_a_format_is_named_by_a_str(dtype: Any, tmp_path: Path, cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidTypeError, match="give 'float32' or 'float16'"):
        EmbeddingCache(tmp_path / "new.db", dtype=dtype)
    cache.put_many(["a"], ["a"], np.ones((1, 2)), model_name="m")
    with pytest.raises(InvalidTypeError):
        cache.convert("m", dtype=dtype)


def test_a_value_that_float16_cannot_hold_is_refused_with_its_batch(half: EmbeddingCache, location: str) -> None:
    encoder = TooLarge()
    texts = ["the longest comes first", "large", "one"]
    with pytest.raises(OutOfRangeError, match=r"text 'large'.*65505 is over 65504.*dtype='float32'.*convert") as caught:
        half.get_many(["x", "y", "z"], texts, encoder, batch_size=1)
    assert isinstance(caught.value, InvalidInputError)
    assert half.matrix("fake")[0] == ["x"]  # batches before are stored
    before = state(location)
    with pytest.raises(OutOfRangeError, match="doc_id 'y'"):
        half.put_many(["z", "y"], ["one", "large"], encoder.vectors(["one", "large"]), model=encoder)
    with pytest.raises(OutOfRangeError, match="text 'large'"):
        half.embed(["one", "large"], encoder)
    assert state(location) == before


def test_a_new_model_with_such_a_value_leaves_nothing(half: EmbeddingCache) -> None:
    with pytest.raises(OutOfRangeError):
        half.put_many(["y"], ["large"], TooLarge().vectors(["large"]), model_name="m")
    assert half.models() == []


def test_the_largest_value_and_the_smallest_are_kept(half: EmbeddingCache) -> None:
    values = np.array([[65504, -65504, 2.0**-24, -(2.0**-26), -0.0]], dtype=np.float32)
    half.put_many(["a"], ["a"], values, model_name="m")
    stored = half.matrix("m")[1]
    assert stored.tolist() == [[65504, -65504, 2.0**-24, -0.0, -0.0]]
    assert np.signbit(stored).tolist() == [[False, True, False, True, True]]


@pytest.mark.parametrize("dtype", ["bfloat16", None, 1, True, "float64", ""])
def test_dtype_is_no_setting_of_an_encoder(dtype: Any, cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    encoder.model_settings = {"dtype": dtype}  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match=r"model_settings of 'fake' has the key 'dtype'.*rename it"):
        cache.get("a", "text", encoder)
    for call in (
        lambda: ModelIdentity.of("m", {"dtype": dtype}),
        lambda: cache.put_many(["a"], ["a"], [[1.0]], model_name="m", settings={"dtype": dtype}),
        lambda: cache.matrix("m", settings={"dtype": dtype}),
        lambda: cache.convert("m", dtype="float16", settings={"dtype": dtype}),
    ):
        with pytest.raises(InvalidInputError, match=r"the setting 'dtype' is embstore's own.*rename yours"):
            call()
    assert cache.models() == []


def test_an_encoder_does_not_say_how_its_vectors_are_stored(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    encoder.model_settings = {"dtype": "float16"}  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match="which embstore sets itself"):
        cache.get("a", "text", encoder)


# --- damage ---------------------------------------------------------------------------------


def test_a_damaged_row_is_recomputed_and_mended(location: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(location, dtype="float16") as cache:
        given = cache.get_many(IDS, TEXTS, encoder)
        encoder.calls.clear()
        stored = encoder.vector("text 3").astype("<f2").tobytes()
        for value in (b"\xff" + stored[1:], stored + stored):  # as long as float32 is
            vector_id = "SELECT vector_id FROM documents WHERE doc_id = 'doc 3'"
            change(location, f"UPDATE vectors SET vector = ? WHERE vector_id = ({vector_id})", value)
            assert [problem.table for problem in cache.verify()] == ["vectors"]
            with pytest.raises(DamagedStoreError, match="'doc 3'"):
                cache.matrix("fake")
            assert cache.get_many(IDS, TEXTS, encoder).tobytes() == given.tobytes()
            assert encoder.calls.pop() == ["text 3"]
            assert cache.verify() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE models SET dtype = 'float32'",
        "UPDATE models SET settings = '{}'",
        "UPDATE models SET dtype = 'float32', settings = '{}'",
    ],
)
def test_a_model_whose_format_was_changed_is_not_read(statement: str, location: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(location, dtype="float16") as cache:
        cache.get("a", "text", encoder)
    change(location, statement)
    with EmbeddingCache(location) as cache:
        assert "models" in {problem.table for problem in cache.verify()}
        with pytest.raises(DamagedStoreError, match=r"clear\(model_name"):
            cache.models()


# --- searches -------------------------------------------------------------------------------


def test_a_cache_of_ones_own_says_the_format(half: EmbeddingCache, library: Path, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(tmp_path / "whole.db") as whole, pytest.raises(InvalidInputError, match="dtype is the cache's"):
        CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=whole, dtype="float16")
    with CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=half) as engine:
        engine.index_documents(TEXTS)
    assert [model.dtype for model in half.models()] == ["float16"]


def test_a_collection_follows_its_model_into_another_format_once_it_was_cleared(location: str, library: Path) -> None:
    encoder = CountingEncoder()
    with (
        EmbeddingCache(location) as whole,
        CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=whole) as engine,
    ):
        engine.index_documents(TEXTS, IDS)
        engine.search("q")
        with EmbeddingCache(location, dtype="float16") as cache:
            cache.clear(model_name="fake")
            cache.get_many(IDS, TEXTS, encoder, collection="documents")
        assert engine.search("text 5", 1)[0].doc_id == "doc 5"
        engine.index_documents([*TEXTS, "new"], [*IDS, "new"])
        assert [model.dtype for model in engine.cache.models()] == ["float16"]
