"""A file of every released schema version is read, checked and filled further by this version."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, ModelChangedError, ModelInfo, PruneReport
from embstore.stores import schema
from embstore.stores.usage import DayUsage, ModelUsage
from tests.files import dump
from tests.golden import make_golden as golden
from tests.golden.make_golden import ASYMMETRIC, DOCUMENTS, PLAIN

VERSIONS = sorted(int(file.stem.removeprefix("schema_")) for file in golden.FOLDER.glob("schema_*.db"))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    of_file: int = request.param
    return of_file


@pytest.fixture
def path(version: int, tmp_path: Path) -> Path:
    """A copy of the golden file of a version."""
    return Path(shutil.copy(golden.FOLDER / f"schema_{version}.db", tmp_path))


@pytest.fixture
def cache(path: Path) -> Iterator[EmbeddingCache]:
    PLAIN.texts.clear()
    ASYMMETRIC.texts.clear()
    with EmbeddingCache(path) as cache:
        yield cache
        assert cache.verify() == []


def test_there_is_a_golden_file_of_every_version_before_this_one() -> None:
    assert set(VERSIONS) >= set(range(1, schema.SCHEMA_VERSION))
    assert 1 in VERSIONS


def test_every_document_is_read_from_it_bit_for_bit(cache: EmbeddingCache) -> None:
    for collection in dict.fromkeys(collection for collection, _ in DOCUMENTS):
        text_of = {doc_id: text for (where, doc_id), text in DOCUMENTS.items() if where == collection}
        ids, vectors = cache.matrix("plain", collection=collection)
        assert sorted(ids) == sorted(text_of)
        assert vectors.tolist() == PLAIN.vectors([text_of[doc_id] for doc_id in ids]).tolist()


def test_queries_and_documents_are_read_from_it(cache: EmbeddingCache) -> None:
    ids, vectors = cache.matrix("asymmetric", doc_ids=["b", "a"])
    assert (ids, vectors.tolist()) == (["b", "a"], ASYMMETRIC.vectors(["two", "one"]).tolist())
    query = cache.embed_query(golden.QUERY, ASYMMETRIC)
    assert query.tolist() == ASYMMETRIC.vector(f"query: {golden.QUERY}").tolist()


def test_vectors_that_are_float16_are_read_from_it(version: int, cache: EmbeddingCache) -> None:
    if version < 3:
        pytest.skip("the version has no float16")
    ids, vectors = cache.matrix("half", doc_ids=["b", "a"])
    assert (ids, vectors.tolist()) == (["b", "a"], golden.HALF.vectors(["two", "one"]).tolist())


def test_bytes_by_key_are_read_from_it(version: int, cache: EmbeddingCache) -> None:
    if version < 4:
        pytest.skip("the version has no bytes by key")
    values = cache.store.byte_values
    assert sorted(values.keys()) == sorted(golden.BYTE_VALUES)
    assert values.mget(list(golden.BYTE_VALUES)) == list(golden.BYTE_VALUES.values())


def test_counts_of_use_are_read_from_it(version: int, cache: EmbeddingCache) -> None:
    if version < 4:
        pytest.skip("the version counts none")
    days = {model.model_name: model.usage.days for model in cache.models()}
    assert days["half"] == (DayUsage(golden.DAY, 0, 0, n_encoded=2, n_stored=2, encode_s=0.25),)


def test_odd_bits_are_read_from_it(cache: EmbeddingCache) -> None:
    ids, vectors = cache.matrix("without canary", doc_ids=["bits", "more bits"])
    assert (ids, vectors.view(np.uint32).tolist()) == (["bits", "more bits"], golden.BITS.tolist())


def test_every_text_in_it_is_a_hit(cache: EmbeddingCache) -> None:
    for (collection, doc_id), text in DOCUMENTS.items():
        assert cache.get(doc_id, text, PLAIN, collection=collection).tolist() == PLAIN.vector(text).tolist()
    cache.embed([golden.STANDALONE, golden.FORMER], PLAIN)
    cache.get_many(["a", "b"], ["one", "two"], ASYMMETRIC)
    cache.embed_query(golden.QUERY, ASYMMETRIC)
    encoded = PLAIN.texts + ASYMMETRIC.texts
    assert set(encoded) <= {"query: " + golden_canary(), golden_canary()}, "something but the canary was encoded"


def golden_canary() -> str:
    from embstore.canary import CANARY_TEXT

    return CANARY_TEXT


def test_the_models_of_it_are_known_with_their_settings(version: int, cache: EmbeddingCache) -> None:
    at = golden.CREATED_AT
    half = ModelInfo("half", {"dtype": "float16"}, 7, "float16", at, n_vectors=2, n_documents=2, has_canary=True)
    assert [dataclasses.replace(model, created_at=at, usage=ModelUsage()) for model in cache.models()] == [
        ModelInfo("plain", {}, 7, "float32", at, n_vectors=8, n_documents=8, has_canary=True),
        ModelInfo("asymmetric", golden.SETTINGS, 32, "float32", at, n_vectors=2, n_documents=2, has_canary=True),
        ModelInfo(
            "asymmetric",
            {**golden.SETTINGS, "role": "query"},
            32,
            "float32",
            at,
            n_vectors=1,
            n_documents=0,
            has_canary=True,
        ),
        ModelInfo("without canary", {}, 4, "float32", at, n_vectors=2, n_documents=2, has_canary=False),
        *([half] if version >= 3 else []),
    ]


def test_another_model_under_a_name_of_it_is_noticed(cache: EmbeddingCache) -> None:
    class Swapped(golden.GoldenEncoder):
        def vector(self, text: str) -> np.ndarray:
            return -super().vector(text)

    with pytest.raises(ModelChangedError):
        cache.embed(["new"], Swapped("plain", dim=7))


def test_what_is_not_used_in_it_is_told_apart_from_what_is_standalone(cache: EmbeddingCache) -> None:
    assert cache.prune(dry_run=True) == PruneReport(1, 28, removed=False)
    assert cache.prune(standalone=True, dry_run=True) == PruneReport(3, 28 + 28 + 128, removed=False)


def test_it_can_be_filled_further(cache: EmbeddingCache) -> None:
    cache.get_many(["first", "new"], ["edited", "The weather is lovely today."], PLAIN)
    cache.invalidate("empty text")
    assert "edited" in PLAIN.texts
    assert len(cache.matrix("plain")[0]) == len(DOCUMENTS)


@pytest.mark.skipif(schema.SCHEMA_VERSION not in VERSIONS, reason="the golden file of this version is made at release")
def test_the_script_makes_the_rows_that_the_golden_file_of_this_version_has(tmp_path: Path) -> None:
    golden.make(tmp_path / "new.db")
    kept = Path(shutil.copy(golden.FOLDER / f"schema_{schema.SCHEMA_VERSION}.db", tmp_path / "kept.db"))
    found, expected = dump(tmp_path / "new.db"), dump(kept)
    for tables in (found, expected):
        del tables["_sqlite_migrations"]  # when they were applied
    assert found == expected
