"""Merging cache files: all that one holds comes into the other as it is, and nothing that is there changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, DamagedStoreError, EmbeddingCache, SourceError
from embstore.transfer import Conflict, TransferReport, merge, merging
from tests.fakes import CountingEncoder, QueryEncoder
from tests.files import change, connection, dump, rows

MODELS = "SELECT model_name, settings, dim, dtype, hex(canary) FROM models ORDER BY 1, 2"
VECTORS = """
SELECT models.model_name, models.settings, hex(content_hash), standalone, hex(vector)
FROM vectors JOIN models USING (model_id) ORDER BY 1, 2, 3
"""
DOCUMENTS = (
    "SELECT model_name, settings, collection, doc_id, content_hash, hex(vector) FROM embeddings ORDER BY 1, 2, 3, 4"
)
TEXTS = "SELECT collection, doc_id, hex(content_hash), metadata, text FROM texts ORDER BY 1, 2"


def holdings(path: Path) -> list[list[tuple]]:
    """All that a file holds, whatever numbers its rows have."""
    return [rows(path, sql) for sql in (MODELS, VECTORS, DOCUMENTS, TEXTS)]


@pytest.fixture
def other(tmp_path: Path, encoder: CountingEncoder) -> Path:
    """A file with some of everything: models, roles, formats, collections, texts without ids, exact indexes."""
    path = tmp_path / "other" / "embeddings.db"
    with EmbeddingCache(path) as cache:
        cache.get_many(["a", "b", "c"], ["one", "two", "one"], encoder)
        cache.get_many(["a"], ["three"], encoder, collection="second")
        cache.embed(["alone", "two"], encoder)
        cache.embed_query("who?", QueryEncoder(model_name="asymmetric"))
        cache.put_many(["x"], ["put"], [[0.1, -0.0]], model_name="put", settings={"revision": "1"})
    with EmbeddingCache(path, dtype="float16") as cache:
        cache.get_many(["h"], ["half"], CountingEncoder(model_name="halved", dim=3))
    with CachedSemanticSearchEngine(encoder, path=path.parent, collection_name="exact", index="exact") as engine:
        engine.index_documents(["four", "five"], ["d", "e"], [{"year": 1}, {"year": 2}])
    return path


def test_all_comes_as_it_is(cache: EmbeddingCache, cache_path: Path, other: Path) -> None:
    report = merge(cache, other)
    assert holdings(cache_path) == holdings(other)
    assert report == TransferReport(str(other), 9, 0, 8, 2, (), ())
    assert report.ok


def test_a_second_merge_writes_nothing(cache: EmbeddingCache, cache_path: Path, other: Path) -> None:
    merge(cache, other)
    before = dump(cache_path)
    assert merge(cache, other) == TransferReport(str(other), 0, 9, 0, 0, (), ())
    assert dump(cache_path) == before


def test_a_merge_that_brings_nothing_new_waits_for_no_writer(cache_path: Path, other: Path) -> None:
    with EmbeddingCache(cache_path, timeout_s=0) as cache:
        merge(cache, other)
        with connection(cache_path, "rw") as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert merge(cache, other).n_present == 9


def test_what_was_merged_is_not_encoded_again(cache: EmbeddingCache, other: Path) -> None:
    merge(cache, other)
    encoder, query_encoder = CountingEncoder(), QueryEncoder(model_name="asymmetric")
    cache.get_many(["a", "b"], ["one", "two"], encoder)
    cache.embed_query("who?", query_encoder)
    assert (encoder.n_texts, query_encoder.n_texts) == (0, 0)


def test_an_exact_index_is_searched_where_it_was_merged_to(tmp_path: Path, other: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(tmp_path / "mine" / "embeddings.db") as cache:
        merge(cache, other)
    with CachedSemanticSearchEngine(encoder, path=tmp_path / "mine", collection_name="exact", index="exact") as engine:
        (hit,) = engine.search("five", n_results=1)
        assert (hit.doc_id, hit.metadata, encoder.n_texts) == ("e", {"year": 2}, 0)


def test_pages_that_cut_documents_of_one_text_apart_lose_none(
    cache: EmbeddingCache, cache_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "ROWS_AT_ONCE", 1)
    merge(cache, other)
    assert holdings(cache_path) == holdings(other)


def test_what_both_have_otherwise_stays_and_is_named(cache: EmbeddingCache, cache_path: Path, tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "other.db") as theirs:
        theirs.put_many(["a", "b"], ["one", "two"], [[0.0, 1.0], [0.5, 0.5]], model_name="m")
    cache.put_many(["a", "b"], ["one", "else"], [[-0.0, 1.0], [3.0, 4.0]], model_name="m")
    before = rows(cache_path, DOCUMENTS)
    report = merge(cache, tmp_path / "other.db")
    one, two = [
        row[0].lower()
        for row in rows(tmp_path / "other.db", "SELECT hex(content_hash) FROM vectors ORDER BY vector_id")
    ]
    assert report.conflicts == (
        Conflict("vector", "m", one, difference=0.0),  # another zero is another vector
        Conflict("document", "m", two, "", "b"),
    )
    assert (report.n_stored, report.n_present, report.n_documents, report.ok) == (1, 1, 0, False)
    assert rows(cache_path, DOCUMENTS) == before


def test_a_vector_that_is_damaged_here_is_healed(cache: EmbeddingCache, cache_path: Path, other: Path) -> None:
    merge(cache, other)
    change(cache_path, "UPDATE vectors SET vector = zeroblob(length(vector)) WHERE vector_id = 2")
    report = merge(cache, other)
    assert (report.n_stored, report.n_present, report.conflicts) == (1, 8, ())
    assert holdings(cache_path) == holdings(other)


def test_a_model_that_became_another_is_not_mixed_with_the_former(
    cache: EmbeddingCache, cache_path: Path, tmp_path: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(tmp_path / "other.db") as theirs:
        theirs.get_many(["a"], ["one"], CountingEncoder(seed=1))
        theirs.get_many(["a"], ["one"], CountingEncoder(model_name="shorter", dim=3))
    cache.get_many(["b"], ["two"], encoder)
    cache.get_many(["b"], ["two"], CountingEncoder(model_name="shorter"))
    before = dump(cache_path)
    report = merge(cache, tmp_path / "other.db")
    assert report.conflicts == (Conflict("model", "fake"), Conflict("model", "shorter"))
    assert dump(cache_path) == before


def test_a_canary_is_not_put_beside_vectors_that_it_was_never_compared_with(
    cache: EmbeddingCache, cache_path: Path, other: Path
) -> None:
    cache.put_many(["mine"], ["mine"], np.ones((1, 8)), model_name="fake")
    merge(cache, other)
    assert rows(cache_path, "SELECT canary FROM models WHERE model_name = 'fake'") == [(None,)]


def test_texts_and_collections_that_differ_stay_and_are_named(tmp_path: Path) -> None:
    for folder, text, model in (("mine", "four", "one"), ("theirs", "other", "two")):
        for name, encoder in (("shared", CountingEncoder()), ("own", CountingEncoder(model_name=model))):
            with CachedSemanticSearchEngine(
                encoder, path=tmp_path / folder, collection_name=name, index="exact"
            ) as engine:
                engine.index_documents([text, f"only {folder}"], ["d", folder])
    with EmbeddingCache(tmp_path / "mine" / "embeddings.db") as cache:
        report = merge(cache, tmp_path / "theirs" / "embeddings.db")
        assert cache.verify() == []
    assert [(c.what, c.collection, c.doc_id) for c in report.conflicts] == [
        ("document", "shared", "d"),
        ("collection", "own", None),
        ("text", "shared", "d"),
    ]
    assert report.n_texts == 1
    texts = [(collection, doc_id, text) for collection, doc_id, _, _, text in rows(cache.path, TEXTS)]
    assert texts == [
        ("own", "d", "four"),
        ("own", "mine", "only mine"),
        ("shared", "d", "four"),
        ("shared", "mine", "only mine"),
        ("shared", "theirs", "only theirs"),
    ]


DAMAGES = [
    ("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE vector_id = 2", "vector_id 2"),
    ("UPDATE vectors SET standalone = 1 - standalone WHERE vector_id = 2", "vector_id 2"),
    ("UPDATE documents SET vector_id = 1 WHERE doc_id = 'b'", "doc_id 'b'"),
    ("DELETE FROM vectors WHERE vector_id = 2", "vectors are not there"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGES)
def test_a_damaged_source_is_refused_as_a_whole(
    cache: EmbeddingCache, cache_path: Path, other: Path, damage: str, named: str
) -> None:
    change(other, damage)
    before = dump(cache_path)
    with pytest.raises(DamagedStoreError, match=r"embstore repair .*; nothing was stored$"):
        merge(cache, other)
    assert dump(cache_path) == before


@pytest.mark.parametrize(("damage", "named"), DAMAGES)
def test_no_damaged_row_is_given_to_another_store(other: Path, damage: str, named: str) -> None:
    change(other, damage)
    with EmbeddingCache(other) as cache:
        (model,) = cache.store.find_models("fake")
        with pytest.raises(DamagedStoreError, match=named):
            list(cache.store.contents(model, batch_rows=1))


def test_what_is_removed_while_it_is_read_is_left_out(other: Path) -> None:
    with EmbeddingCache(other) as cache:
        (model,) = cache.store.find_models("fake")
        pages = cache.store.contents(model, batch_rows=1)
        first = next(pages)
        cache.invalidate(["b", "d"])
        rest = list(pages)
    assert first.documents == [("", "a", 0), ("", "c", 0)]
    assert [doc_id for page in rest for _, doc_id, _ in page.documents] == ["a", "e"]
    assert [len(page.content_hashes) for page in rest] == [0, 1, 1, 0, 1]


def test_values_that_are_kept_by_key_come_along(
    cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "VALUES_AT_ONCE", 2)
    theirs = {"a": b"1", "b": b"", "c": b"3", "d": b"4", "": b"5"}
    with EmbeddingCache(tmp_path / "other.db") as other:
        other.store.byte_values.mset(theirs)
    cache.store.byte_values.mset({"a": b"mine", "c": b"3", "e": b"6"})
    for n_new in (3, 0):
        report = merge(cache, tmp_path / "other.db")
        assert (report.n_values, report.conflicts) == (n_new, (Conflict("value", key="a"),))
    values = cache.store.byte_values
    assert dict(zip(values.keys(), values.mget(list(values.keys())), strict=True)) == {
        **theirs,
        "a": b"mine",
        "e": b"6",
    }


def test_what_is_no_other_cache_is_refused(cache: EmbeddingCache, cache_path: Path, tmp_path: Path) -> None:
    for source in (cache_path, tmp_path / "nothing.db", tmp_path):
        with pytest.raises(SourceError):
            merge(cache, source)
    assert not (tmp_path / "nothing.db").exists()
