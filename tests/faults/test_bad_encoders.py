"""Encoders that return what they should not, raise, or are another model than before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    CachedSemanticSearchEngine,
    EmbeddingCache,
    EmbstoreError,
    EncoderError,
    ModelChangedError,
    SemanticSearchEngine,
    filling,
)
from embstore.canary import CANARY_TEXT
from embstore.codec import blob_to_vector
from embstore.identity import content_hash
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally
from tests.files import dump, rows

Spoil = Callable[[np.ndarray], Any]


def with_value(value: float) -> Spoil:
    def spoil(vectors: np.ndarray) -> np.ndarray:
        vectors[len(vectors) // 2, 3] = value
        return vectors

    return spoil


def raising(vectors: np.ndarray) -> np.ndarray:
    raise RuntimeError("out of memory")


BAD: dict[str, Spoil] = {
    "too few rows": lambda vectors: vectors[:-1],
    "too many rows": lambda vectors: np.concatenate([vectors, vectors[:1]]),
    "no rows": lambda vectors: vectors[:0],
    "NaN in one row": with_value(np.nan),
    "infinity in one row": with_value(-np.inf),
    "too large for float32": lambda vectors: vectors.astype(np.float64) * 1e300,
    "more values": lambda vectors: np.concatenate([vectors, vectors], axis=1),
    "fewer values": lambda vectors: vectors[:, :-1],
    "one vector for all": lambda vectors: vectors[0],
    "rows and columns swapped": lambda vectors: vectors.repeat(2, axis=0).T,
    "int8": lambda vectors: (vectors * 100).astype(np.int8),
    "strings": lambda vectors: vectors.astype(str),
    "objects": lambda vectors: vectors.astype(object),
    "complex": lambda vectors: vectors.astype(np.complex64),
    "ragged lists": lambda vectors: [*vectors[:-1].tolist(), vectors[-1, :-1].tolist()],
    "a generator": lambda vectors: (row for row in vectors),
    "nothing": lambda vectors: None,
    "an exception": raising,
}


class Tensor:
    """What torch gives, on a device."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return self

    def is_floating_point(self) -> bool:
        return True

    def numpy(self) -> np.ndarray:
        return self.values


STRANGE: dict[str, Spoil] = {
    "float64": lambda vectors: vectors.astype(np.float64),
    "big-endian": lambda vectors: vectors.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "every second row of a larger array": lambda vectors: vectors.repeat(2, axis=0)[::2],
    "lists": lambda vectors: vectors.tolist(),
    "a tensor": Tensor,
    "a list of tensors": lambda vectors: [Tensor(vector) for vector in vectors],
}


class SpoilingEncoder(CountingEncoder):
    """Spoils what it gives in its k-th call, and is well before and afterwards; canaries are always well."""

    def __init__(self, spoil: Spoil, k: int) -> None:
        super().__init__()
        self.spoil = spoil
        self.k = k

    def encode(self, texts: list[str]) -> Any:
        vectors = super().encode(texts)
        is_kth = texts != [CANARY_TEXT] and len(self.calls) == self.k + 1
        return self.spoil(vectors) if is_kth else vectors


class StrangeEncoder(CountingEncoder):
    """Gives everything in an unusual form, canaries too."""

    def __init__(self, form: Spoil) -> None:
        super().__init__()
        self.form = form

    def encode(self, texts: list[str]) -> Any:
        return self.form(super().encode(texts))


class ReusingEncoder(CountingEncoder):
    """Fills one array again and again, and changes the list that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.empty((64, self.dim), np.float32)

    def encode(self, texts: list[str]) -> np.ndarray:
        vectors = super().encode(texts)
        self.buffer[:] = np.nan
        self.buffer[: len(texts)] = vectors
        texts.reverse()
        return self.buffer[: len(texts)]


# --- the ways in which a text comes to the model ------------------------------------------------

Fill = Callable[[Path, CountingEncoder, list[str], int], np.ndarray | None]


def ids_of(texts: list[str]) -> list[str]:
    return [f"id of {text}" for text in texts]


def by_get(path: Path, encoder: CountingEncoder, texts: list[str], batch_size: int) -> np.ndarray:
    with EmbeddingCache(path) as cache:
        return np.stack([cache.get(f"id of {text}", text, encoder) for text in texts])


def by_get_many(path: Path, encoder: CountingEncoder, texts: list[str], batch_size: int) -> np.ndarray:
    with EmbeddingCache(path) as cache:
        return cache.get_many(ids_of(texts), texts, encoder, batch_size=batch_size)


def by_embed(path: Path, encoder: CountingEncoder, texts: list[str], batch_size: int) -> np.ndarray:
    with EmbeddingCache(path) as cache:
        return cache.embed(texts, encoder, batch_size=batch_size)


def by_exact_engine(path: Path, encoder: CountingEncoder, texts: list[str], batch_size: int) -> None:
    with CachedSemanticSearchEngine(encoder, path=path.parent, index="exact") as engine:
        distinct = list(dict.fromkeys(texts))
        engine.index_documents(distinct, ids_of(distinct))


def by_chroma_engine(path: Path, encoder: CountingEncoder, texts: list[str], batch_size: int) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with CachedSemanticSearchEngine(encoder, path=path.parent) as engine:
        distinct = list(dict.fromkeys(texts))
        engine.index_documents(distinct, ids_of(distinct))


WAYS: dict[str, Fill] = {
    "get": by_get,
    "get_many": by_get_many,
    "embed": by_embed,
    "an engine on the exact index": by_exact_engine,
    "an engine on Chroma": by_chroma_engine,
}


def is_quick(i: int, way: str) -> bool:
    return i < len(WAYS) or way != "an engine on Chroma"


def each_by(kinds: Iterable[str], n_short: int = 1) -> list[object]:
    """Every kind with every way; in the short form each with one or more of the ways in turn."""
    return [
        pytest.param(kind, way, marks=[] if (i + j) % len(WAYS) < n_short and is_quick(i, way) else [pytest.mark.slow])
        for i, kind in enumerate(kinds)
        for j, way in enumerate(WAYS)
    ]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose groups are so small that the background thread stores while the next batch is encoded."""
    monkeypatch.setattr(filling, "GROUP_ROWS", 20)
    return tmp_path / "embeddings.db"


def stored_vectors(path: Path) -> dict[bytes, bytes]:
    """The bytes of each content's vector, as another program sees them."""
    return dict(rows(path, "SELECT content_hash, vector FROM vectors"))


def expected_vectors(texts: list[str]) -> dict[bytes, bytes]:
    encoder = CountingEncoder()
    return {content_hash(text): encoder.vector(text).tobytes() for text in texts}


def n_differing(stored: dict[bytes, bytes], expected: dict[bytes, bytes]) -> int:
    """Count contents with another vector than they should have."""
    return sum(vector != expected.get(key, vector) for key, vector in stored.items())


def n_foreign(stored: dict[bytes, bytes], encoder: CountingEncoder, texts: list[str]) -> int:
    """Count contents with the vector of another text of the call: a position that was shifted."""
    text_of = {encoder.vector(text).tobytes(): content_hash(text) for text in texts}
    return sum(text_of.get(vector, key) != key for key, vector in stored.items())


@pytest.mark.parametrize(("fault", "way"), each_by(BAD))
def test_nothing_of_a_bad_batch_is_stored_and_batches_before_it_stay(
    fault: str, way: str, path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    n_rounds = rounds(1, 3) if way == "an engine on Chroma" else rounds(1, 20)
    for i in range(n_rounds):
        rng = random.Random(f"{fault} {way} {i}")
        file = path.parent / f"{i}" / path.name
        file.parent.mkdir()
        n_texts = rng.choice([1, 5, 10] if way == "get" else [1, 30, 100, 300])
        texts = [f"text {rng.randrange(n_texts)}" for _ in range(n_texts)]
        batch_size = 1 if way == "get" else rng.choice([2, 7, 32]) if way in ("get_many", "embed") else 32
        with EmbeddingCache(file) as cache:  # so that another number of values is seen to be another
            cache.get("before", "before", CountingEncoder())
        encoder = SpoilingEncoder(BAD[fault], rng.randrange(-(-len(set(texts)) // batch_size)))
        with pytest.raises(EncoderError if fault == "an exception" else EmbstoreError):
            WAYS[way](file, encoder, texts, batch_size)
        good = {text for call in encoder.calls[:-1] for text in call} | {"before"}
        stored, expected = stored_vectors(file), expected_vectors([*texts, "before"])
        bad_rows = stored.keys() & {content_hash(text) for text in encoder.calls[-1]}
        lost = {content_hash(text) for text in good} - stored.keys()

        before = encoder.n_texts
        vectors = WAYS[way](file, encoder, texts, batch_size)
        again = set(encoder.texts[before:]) & good
        after = stored_vectors(file)
        shifted = n_foreign(stored, encoder, texts) + n_foreign(after, encoder, texts)
        differing = n_differing(stored, expected) + n_differing(after, expected)
        given = 0 if vectors is None else int((vectors != encoder.vectors(texts)).any(axis=1).sum())
        with EmbeddingCache(file) as cache:
            assert cache.verify() == []
        tally.add(
            "bad batches",
            batches=1,
            rows_of_them_stored=len(bad_rows),
            earlier_rows_lost=len(lost),
            encoded_again=len(again),
            shifted_rows=shifted,
            wrong_rows_stored=differing,
            wrong_rows_given=given,
        )
        assert (bad_rows, lost, again, shifted, differing, given) == (set(), set(), set(), 0, 0, 0)
        assert after.keys() == expected.keys()


@pytest.mark.parametrize(("form", "way"), each_by([*STRANGE, "one array again and again"]))
def test_every_form_of_float_vectors_is_stored_as_the_same_bits(
    form: str, way: str, path: Path, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    for i in range(rounds(1, 3)):
        file = path.parent / f"{i}" / path.name
        file.parent.mkdir()
        encoder = StrangeEncoder(STRANGE[form]) if form in STRANGE else ReusingEncoder()
        texts = [f"text {k % 35}" for k in range(40)]
        given = WAYS[way](file, encoder, texts, 8)
        stored = stored_vectors(file)
        n_wrong = n_differing(stored, expected_vectors(texts))
        n_wrong += 0 if given is None else int((given != encoder.vectors(texts)).any(axis=1).sum())
        tally.add("float vectors of any form", calls=1, rows=len(stored), wrong_rows=n_wrong)
        assert n_wrong == 0
        ((canary,),) = rows(file, "SELECT canary FROM models")
        assert np.array_equal(blob_to_vector(canary), encoder.vector(CANARY_TEXT))
        again = CountingEncoder()  # the same model in another process
        WAYS[way](file, again, texts, 8)
        assert again.calls == []
        assert stored_vectors(file) == stored == expected_vectors(texts)


@pytest.mark.parametrize(
    ("swap", "way"), each_by(["another object", "the same object", "other vectors each time"], n_short=2)
)
def test_a_model_swapped_behind_its_name_reads_and_writes_nothing(
    swap: str, way: str, path: Path, tally: Tally
) -> None:
    class Changing(CountingEncoder):
        def vector(self, text: str) -> np.ndarray:
            self.seed += 1
            return super().vector(text)

    texts = [f"text {k}" for k in range(60)]
    encoder = Changing() if swap == "other vectors each time" else CountingEncoder()
    WAYS[way](path, encoder, texts[:40], 8)
    before, n_before = dump(path), encoder.n_texts
    swapped = CountingEncoder(seed=1) if swap == "another object" else encoder
    swapped.seed += 1
    for some in (texts[:40], texts[:1], texts, texts[40:]):  # hits, one hit, both, misses
        with pytest.raises(ModelChangedError):
            WAYS[way](path, swapped, some, 8)
    n_changed = int(dump(path) != before)
    n_encoded = swapped.n_texts - (n_before if swapped is encoder else 0)
    tally.add("a model swapped behind its name", swaps=4, files_changed=n_changed, texts_encoded=n_encoded)
    assert (n_changed, n_encoded) == (0, 0)


def test_an_encoder_without_a_cache_may_fill_one_array_again_and_again(tmp_path: Path, tally: Tally) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    encoder = ReusingEncoder()
    texts = [f"text {k}" for k in range(200)]
    with SemanticSearchEngine(encoder, path=tmp_path / "library") as engine:
        engine.index_documents(texts)
        vectors = {str(record.document): record.vector for page in engine._index.records() for record in page}
    n_wrong = sum(not np.allclose(vectors[text], encoder.vector(text), atol=1e-6) for text in texts)
    tally.add("float vectors of any form", calls=1, rows=len(vectors), wrong_rows=n_wrong)
    assert (n_wrong, len(vectors)) == (0, 200)


@pytest.mark.parametrize("index", ["exact", "chroma"])
def test_a_document_encoded_anew_has_its_own_vector_although_the_encoder_fills_one_array(
    index: Any, tmp_path: Path
) -> None:
    if index == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    encoder = ReusingEncoder()
    with CachedSemanticSearchEngine(encoder, path=tmp_path, index=index) as engine:
        engine.reindex_document("a", "text")
        assert np.array_equal(engine.cache.embed(["text"], encoder), encoder.vectors(["text"]))
