"""Models whose vectors are stored as float16: half the space, and the same float32 from every call."""

from __future__ import annotations

import random
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
    SemanticSearchEngine,
    StoredEmbeddings,
    content_hash,
)
from embstore.canary import CANARY_TEXT
from embstore.checksums import vector_checksums
from embstore.search.inputs import IndexKind
from tests.fakes import CountingEncoder, HookedEncoder, QueryEncoder
from tests.files import change, flip_bit, rows

IDS = [f"doc {i}" for i in range(20)]
TEXTS = [f"text {i}" for i in range(20)]


def halved(vectors: np.ndarray) -> np.ndarray:
    """What float32 vectors are once they were stored as float16."""
    return vectors.astype(np.float16).astype(np.float32)


@pytest.fixture
def half(cache_path: Path) -> Iterator[EmbeddingCache]:
    """A cache that stores new models as float16, and that must be sound when the test is over."""
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        yield cache
        assert cache.verify() == []


# --- what is stored, and what is given back --------------------------------------------------


def test_rows_are_little_endian_float16_and_the_canary_is_float32(half: EmbeddingCache, cache_path: Path) -> None:
    encoder = CountingEncoder(dim=5)
    half.get("a", "text", encoder)
    expected = encoder.vector("text").astype("<f2").tobytes()
    ((model_id, dim, standalone, checksum, vector),) = rows(
        cache_path, "SELECT model_id, dim, standalone, checksum, vector FROM vectors"
    )
    assert (dim, vector) == (5, expected)
    as_stored = np.frombuffer(expected, "<f2").reshape(1, 5)
    assert [checksum] == vector_checksums(model_id, [content_hash("text")], standalone, as_stored).tolist()
    assert rows(cache_path, "SELECT settings, dtype, canary FROM models") == [
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


def test_what_another_process_stored_first_is_what_a_call_gives(half: EmbeddingCache, cache_path: Path) -> None:
    others = CountingEncoder()

    def interfere(_: list[str]) -> None:
        with EmbeddingCache(cache_path, check_canary=False) as other:
            vectors = others.vectors(["text"]) * np.float32(1.001)
            other.put_many(["a"], ["text"], vectors, model=others)

    given = half.get("a", "text", HookedEncoder(interfere))
    expected = others.vector("text") * np.float32(1.001)
    assert half.models()[0].dtype == "float32"  # whoever stores a model first says its format
    assert given.tobytes() == expected.tobytes() == half.matrix("fake")[1][0].tobytes()


@pytest.mark.parametrize("dim", [384, 768])
def test_a_file_has_little_more_than_the_halved_values(dim: int, cache_path: Path) -> None:
    """For a vector and its document there are keys and checksums of some 170 bytes, whatever the values take."""
    n = 20_000
    values = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)
    ids = [f"doc_{i}" for i in range(n)]
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        cache.put_many(ids, ids, values, model_name="m")
    size = cache_path.stat().st_size
    assert size < {384: 0.65, 768: 0.58}[dim] * values.nbytes


# --- which format ---------------------------------------------------------------------------


def test_a_model_that_is_stored_keeps_its_format_and_is_not_encoded_again(cache_path: Path) -> None:
    encoder = CountingEncoder()
    for first, second in (("float16", "float32"), ("float32", "float16")):
        name: dict[str, Any] = {"model_name": first}
        with EmbeddingCache(cache_path, dtype=first) as cache:  # type: ignore[arg-type]
            given = cache.get_many(IDS, TEXTS, encoder, **name)
        encoder.calls.clear()
        with EmbeddingCache(cache_path, dtype=second) as cache:  # type: ignore[arg-type]
            assert cache.dtype == second
            assert cache.get_many(IDS, TEXTS, encoder, **name).tobytes() == given.tobytes()
            assert encoder.calls == []
            cache.get("new", "new", encoder, **name)
            assert cache.put_many(["x"], ["x"], encoder.vectors(["x"]), model_name=first) == 1
            assert cache.put_many(["y"], ["y"], encoder.vectors(["y"]), model=ModelIdentity(first)) == 1
            assert [model.dtype for model in cache.models() if model.model_name == first] == [first]
            assert len(cache.matrix(first)[0]) == 23
            assert cache.verify() == []


def test_caches_of_both_formats_that_begin_at_once_encode_a_text_once(cache_path: Path) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def wait(_: list[str]) -> None:
        encoding.set()
        go_on.wait(60)

    encoder = HookedEncoder(wait)
    with EmbeddingCache(cache_path, dtype="float16") as half, EmbeddingCache(cache_path) as whole:
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
def both(cache_path: Path) -> Path:
    """One model that is stored in both formats, with other documents in each; the file is closed."""
    encoder = CountingEncoder()
    with EmbeddingCache(cache_path) as cache:
        for dtype, doc_id in (("float32", "whole"), ("float16", "half")):
            put: dict[str, Any] = {"model_name": "fake", "settings": {"dtype": dtype}}
            cache.put_many([doc_id, "a"], [doc_id, "a"], encoder.vectors([doc_id, "a"]), **put)
        assert [model.settings for model in cache.models()] == [{}, {"dtype": "float16"}]
        assert cache.verify() == []
    return cache_path


@pytest.mark.parametrize(("dtype", "doc_id"), [("float32", "whole"), ("float16", "half")])
def test_of_a_model_in_both_formats_that_of_the_cache_is_used(dtype: Any, doc_id: str, both: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(both, dtype=dtype) as cache:
        assert sorted(cache.matrix("fake")[0]) == sorted(cache.matrix("fake", settings={})[0]) == sorted([doc_id, "a"])
        cache.get("a", "a", encoder)
        assert cache.missing(["whole", "half"], encoder) == [{"whole": "half", "half": "whole"}[doc_id]]
        for named, there in (("float32", "whole"), ("float16", "half")):
            assert there in cache.matrix("fake", settings={"dtype": named})[0]
        with StoredEmbeddings(both, dtype=dtype) as stored:
            assert sorted(stored.matrix("fake")[0]) == sorted([doc_id, "a"])


def test_a_model_in_both_formats_is_converted_into_neither(both: Path) -> None:
    for dtype in ("float32", "float16"):
        with EmbeddingCache(both, dtype=dtype) as cache:  # type: ignore[arg-type]
            before = both.read_bytes()
            for target in ("float32", "float16"):
                with pytest.raises(ModelExistsError, match="is stored already, beside"):
                    cache.convert("fake", dtype=target)  # type: ignore[arg-type]
            assert cache.convert("fake", dtype="float16", settings={"dtype": "float16"}) == 0
            assert both.read_bytes() == before


def test_a_model_in_both_formats_is_renamed_and_cleared_as_one(both: Path) -> None:
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


@pytest.mark.parametrize("dtype", ["float64", "f2", "", "FLOAT16"])
def test_another_format_is_refused_and_creates_nothing(dtype: Any, tmp_path: Path) -> None:
    for make in (EmbeddingCache, StoredEmbeddings):
        with pytest.raises(InvalidInputError, match="is not one of 'float32', 'float16'"):
            make(tmp_path / "new.db", dtype=dtype)
    with pytest.raises(InvalidInputError):
        CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path / "library", index="exact", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), None, 16])
def test_a_format_is_named_by_a_str(dtype: Any, tmp_path: Path, cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidTypeError, match="give 'float32' or 'float16'"):
        EmbeddingCache(tmp_path / "new.db", dtype=dtype)
    cache.put_many(["a"], ["a"], np.ones((1, 2)), model_name="m")
    with pytest.raises(InvalidTypeError):
        cache.convert("m", dtype=dtype)


class TooLarge(CountingEncoder):
    """Gives the text "large" a value that float16 has no place for."""

    def vector(self, text: str) -> np.ndarray:
        vector = super().vector(text)
        if text == "large":
            vector[2] = -65505
        return vector


def test_a_value_that_float16_cannot_hold_is_refused_with_its_batch(half: EmbeddingCache, cache_path: Path) -> None:
    encoder = TooLarge()
    texts = ["the longest comes first", "large", "one"]
    with pytest.raises(OutOfRangeError, match=r"text 'large'.*65505 is over 65504.*dtype='float32'.*convert") as caught:
        half.get_many(["x", "y", "z"], texts, encoder, batch_size=1)
    assert isinstance(caught.value, InvalidInputError)
    assert half.matrix("fake")[0] == ["x"]  # batches before are stored
    before = cache_path.read_bytes()
    with pytest.raises(OutOfRangeError, match="doc_id 'y'"):
        half.put_many(["z", "y"], ["one", "large"], encoder.vectors(["one", "large"]), model=encoder)
    with pytest.raises(OutOfRangeError, match="text 'large'"):
        half.embed(["one", "large"], encoder)
    assert cache_path.read_bytes() == before


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


def test_a_damaged_row_is_recomputed_and_mended(cache_path: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        given = cache.get_many(IDS, TEXTS, encoder)
        encoder.calls.clear()
        for value in (
            "CAST(x'ff' || substr(vector, 2) AS BLOB)",
            "CAST(vector || vector AS BLOB)",
        ):  # as long as float32 is
            vector_id = "SELECT vector_id FROM documents WHERE doc_id = 'doc 3'"
            change(cache_path, f"UPDATE vectors SET vector = {value} WHERE vector_id = ({vector_id})")
            assert [problem.table for problem in cache.verify()] == ["vectors"]
            with pytest.raises(DamagedStoreError, match="'doc 3'"):
                cache.matrix("fake")
            assert cache.get_many(IDS, TEXTS, encoder).tobytes() == given.tobytes()
            assert encoder.calls.pop() == ["text 3"]
            assert cache.verify() == []


def test_every_flipped_bit_of_a_vector_is_noticed(tmp_path: Path) -> None:
    path, encoder = tmp_path / "embeddings.db", CountingEncoder(dim=3)
    with EmbeddingCache(path, dtype="float16") as cache:
        cache.get_many(IDS, TEXTS, encoder)
    start = path.read_bytes().index(encoder.vector("text 7").astype("<f2").tobytes())
    for bit in range(48):
        flip_bit(path, start + bit // 8, bit % 8)
        with EmbeddingCache(path) as cache:
            assert [problem.table for problem in cache.verify()] == ["vectors"]
            with pytest.raises(DamagedStoreError, match="'doc 7'"):
                cache.matrix("fake")
            assert cache.missing(TEXTS, encoder) == ["text 7"]
        flip_bit(path, start + bit // 8, bit % 8)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE models SET dtype = 'float32'",
        "UPDATE models SET settings = '{}'",
        "UPDATE models SET dtype = 'float32', settings = '{}'",
    ],
)
def test_a_model_whose_format_was_changed_is_not_read(statement: str, cache_path: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        cache.get("a", "text", encoder)
    change(cache_path, statement)
    with EmbeddingCache(cache_path) as cache:
        assert "models" in {problem.table for problem in cache.verify()}
        with pytest.raises(DamagedStoreError, match=r"clear\(model_name"):
            cache.models()


def test_random_damage_gives_no_wrong_vector(tmp_path: Path) -> None:
    encoder, rng = CountingEncoder(dim=16), random.Random(7)
    path = tmp_path / "embeddings.db"
    with EmbeddingCache(path, dtype="float16") as cache:
        cache.get_many(IDS, TEXTS, encoder)
    sound = path.read_bytes()
    expected = {doc_id: halved(encoder.vectors([text])).tobytes() for doc_id, text in zip(IDS, TEXTS, strict=True)}
    page = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = 'vectors'")[0][0]
    for _ in range(60):
        path.write_bytes(sound)
        flip_bit(path, rng.randrange((page - 1) * 65536, page * 65536), rng.randrange(8))
        with EmbeddingCache(path) as cache:
            try:
                ids, vectors = cache.matrix("fake")
            except DamagedStoreError:
                continue
            assert {doc_id: vector.tobytes() for doc_id, vector in zip(ids, vectors, strict=True)} == expected


# --- searches -------------------------------------------------------------------------------


@pytest.fixture(params=["chroma", "exact"])
def index(request: pytest.FixtureRequest) -> IndexKind:
    if request.param == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    return request.param


def test_an_index_has_the_rounded_vectors(index: IndexKind, library: Path, encoder: CountingEncoder) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index=index, dtype="float16") as engine:
        assert engine.index_documents(TEXTS, IDS).encoded == 20
        engine.reindex_document("doc 1", "another text", {"a": 1})
        texts = [TEXTS[0], "another text", *TEXTS[2:]]
        found = {record.doc_id: record.vector for page in engine._index.records() for record in page}
        for doc_id, vector in zip(IDS, halved(encoder.vectors(texts)), strict=True):
            # Chroma scales vectors to length 1 and back.
            assert found[doc_id] == pytest.approx(vector, abs=1e-6 if index == "chroma" else 0)
        assert engine.search("text 5", 1)[0].doc_id == "doc 5"
        assert engine.reconcile(texts, IDS, [{}, {"a": 1}, *[{}] * 18]).ok
        assert engine.index_documents(texts, IDS, [{}, {"a": 1}, *[{}] * 18]).unchanged == 20
        assert engine.cache.verify() == []
    with CachedSemanticSearchEngine(encoder, path=library, index=index) as engine:
        assert {model.dtype for model in engine.cache.models()} == {"float16"}
        assert engine.plan(texts, IDS).to_encode == 0


def test_an_engine_without_a_cache_writes_to_a_model_that_is_stored_as_float16(library: Path) -> None:
    encoder = CountingEncoder()
    with CachedSemanticSearchEngine(encoder, path=library, index="exact", dtype="float16") as engine:
        engine.index_documents(TEXTS[:10], IDS[:10])
    with SemanticSearchEngine(encoder, path=library, index="exact") as engine:
        engine.index_documents(TEXTS, IDS)
        version = engine._index._collection.current().vectors_version  # type: ignore[attr-defined]
        engine.reindex_document("doc 3", "text 3")
        assert engine._index._collection.current().vectors_version == version  # type: ignore[attr-defined]
        assert engine.search("text 15", 1)[0].doc_id == "doc 15"
    with EmbeddingCache(library / "embeddings.db") as cache:
        assert [model.dtype for model in cache.models()] == ["float16"]
        assert cache.matrix("fake", doc_ids=IDS)[1].tobytes() == halved(encoder.vectors(TEXTS)).tobytes()
        assert cache.verify() == []


def test_a_document_that_float16_has_no_place_for_is_named(library: Path) -> None:
    with CachedSemanticSearchEngine(TooLarge(), path=library, index="exact", dtype="float16") as engine:
        engine.index_documents(["one"], ["a"])
    with (
        SemanticSearchEngine(TooLarge(), path=library, index="exact") as engine,
        pytest.raises(OutOfRangeError, match="doc_id 'b'"),
    ):
        engine.index_documents(["large"], ["b"])


def test_a_collection_follows_its_model_into_another_format_once_it_was_cleared(library: Path) -> None:
    encoder = CountingEncoder()
    with CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine:
        engine.index_documents(TEXTS, IDS)
        engine.search("q")
        with EmbeddingCache(library / "embeddings.db", dtype="float16") as cache:
            cache.clear(model_name="fake")
            cache.get_many(IDS, TEXTS, encoder, collection="documents")
        assert engine.search("text 5", 1)[0].doc_id == "doc 5"
        engine.index_documents([*TEXTS, "new"], [*IDS, "new"])
        assert [model.dtype for model in engine.cache.models()] == ["float16"]


def test_a_cache_of_ones_own_says_the_format(half: EmbeddingCache, library: Path, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(tmp_path / "whole.db") as whole, pytest.raises(InvalidInputError, match="dtype is the cache's"):
        CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=whole, dtype="float16")
    with CachedSemanticSearchEngine(encoder, path=library, index="exact", cache=half) as engine:
        engine.index_documents(TEXTS)
    assert [model.dtype for model in half.models()] == ["float16"]
