"""What can be asked of a cache file without a model: reading, listing, forgetting, counting."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embstore import (
    AmbiguousModelError,
    DocumentInfo,
    EmbeddingCache,
    InvalidInputError,
    InvalidTypeError,
    ModelChangedError,
    ModelExistsError,
    ModelIdentity,
    ModelInfo,
    ModelUsage,
    PruneReport,
    Stats,
    StoredEmbeddings,
    UnknownDocumentError,
    UnknownModelError,
    content_hash,
)
from tests.fakes import CountingEncoder, QueryEncoder
from tests.tables import dump

IDS = [f"doc {i}" for i in range(10)]
TEXTS = [f"text {i}" for i in range(10)]


@pytest.fixture
def filled(cache: EmbeddingCache, encoder: CountingEncoder) -> EmbeddingCache:
    """Ten documents of one model."""
    cache.get_many(IDS, TEXTS, encoder, batch_size=1)
    return cache


def pairs(found: tuple[list[str], np.ndarray]) -> dict[str, list[float]]:
    ids, vectors = found
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, vectors.tolist(), strict=True))


def expected_pairs(encoder: CountingEncoder, text_of: dict[str, str]) -> dict[str, list[float]]:
    return {doc_id: encoder.vector(text).tolist() for doc_id, text in text_of.items()}


def with_settings(**settings: Any) -> CountingEncoder:
    encoder = CountingEncoder(seed=len(settings))
    encoder.model_settings = settings  # type: ignore[attr-defined]
    return encoder


# --- matrix ---------------------------------------------------------------------------------


def test_matrix_gives_every_document_with_its_vector(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    ids, vectors = filled.matrix("fake")
    assert vectors.dtype == np.float32
    assert pairs((ids, vectors)) == expected_pairs(encoder, dict(zip(IDS, TEXTS, strict=True)))


def test_matrix_is_in_the_order_in_which_vectors_were_stored(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    for doc_id in ("c", "a", "b"):
        cache.get(doc_id, doc_id, encoder)
    assert cache.matrix("fake")[0] == ["c", "a", "b"]


def test_matrix_gives_the_asked_documents_in_the_asked_order_with_repeats(
    filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    asked = ["doc 7", "doc 2", "doc 7", "doc 9", "doc 2"]
    ids, vectors = filled.matrix("fake", doc_ids=iter(asked))
    assert ids == asked
    assert np.array_equal(vectors, encoder.vectors([doc_id.replace("doc", "text") for doc_id in asked]))


def test_matrix_of_no_documents_is_empty_and_has_the_models_dim(filled: EmbeddingCache) -> None:
    for found in (filled.matrix("fake", doc_ids=[]), filled.matrix("fake", collection="none")):
        assert (found[0], found[1].shape, found[1].dtype) == ([], (0, 8), np.float32)


def test_matrix_of_many_documents_of_one_text_repeats_its_vector(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    texts = ["b", "a", "a", "b", "a", "c"]
    cache.get_many(IDS[:6], texts, encoder)
    assert pairs(cache.matrix("fake")) == expected_pairs(encoder, dict(zip(IDS, texts, strict=False)))


def test_matrix_names_the_document_that_is_not_stored(filled: EmbeddingCache) -> None:
    with pytest.raises(UnknownDocumentError, match=r"'nope' and 1 more of 3.*'fake'.*get_many") as caught:
        filled.matrix("fake", doc_ids=["doc 1", "nope", "neither"])
    assert caught.value.facts == {"doc_ids": ["nope", "neither"]}


def test_matrix_names_the_collection_that_lacks_the_document(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    filled.get("x", "x", encoder, collection="b")
    with pytest.raises(UnknownDocumentError, match="in collection 'b'"):
        filled.matrix("fake", doc_ids=["doc 1"], collection="b")


def test_matrix_asks_which_of_two_texts_one_id_stands_for(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder, collection="x")
    cache.get("a", "two", encoder, collection="y")
    with pytest.raises(InvalidInputError, match=r"'a' has different texts in the collections 'x' and 'y'"):
        cache.matrix("fake", doc_ids=["a"])
    assert cache.matrix("fake", doc_ids=["a"], collection="y")[1].tolist() == encoder.vectors(["two"]).tolist()
    assert cache.matrix("fake")[0] == ["a", "a"]


def test_matrix_gives_an_id_that_stands_for_one_text_in_two_collections(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    for name in ("x", "y"):
        cache.get("a", "one", encoder, collection=name)
    ids, vectors = cache.matrix("fake", doc_ids=["a"])
    assert (ids, vectors.tolist()) == (["a"], encoder.vectors(["one"]).tolist())


def test_matrix_reads_one_state_while_another_process_writes(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    def write() -> None:
        filled.get("new", "new", encoder)
        with EmbeddingCache(filled.location, timeout_s=0.1) as other:
            assert other.matrix("fake")[0] == IDS

    filled.store.write(write)
    assert len(filled.matrix("fake")[0]) == len(IDS) + 1


def test_texts_without_an_id_are_in_no_matrix(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.embed(["text"], encoder)
    assert cache.matrix("fake")[0] == []


# --- iter_matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_rows", [1, 3, 10, 11])
@pytest.mark.parametrize("collection", [None, "", "b"])
def test_pages_joined_are_the_matrix(
    batch_rows: int, collection: str | None, filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    filled.get_many(IDS, ["text 3"] * 7 + TEXTS[:3], encoder, collection="b")
    filled.get_many(IDS[:2], ["text 9", "text 3"], encoder)
    pages = list(filled.iter_matrix("fake", batch_rows=batch_rows, collection=collection))
    ids, vectors = filled.matrix("fake", collection=collection)
    assert [doc_id for page, _ in pages for doc_id in page] == ids
    assert np.array_equal(np.concatenate([page for _, page in pages]), vectors)
    assert all(0 < len(page) == len(found) <= batch_rows for page, found in pages)


def test_pages_of_many_documents_that_share_a_vector_stay_small(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder(dim=1024)
    ids = [f"doc {i}" for i in range(5000)]
    cache.get_many(ids, ["the same text"] * len(ids), encoder)
    whole_bytes = len(ids) * 4 * encoder.dim
    n_rows = 0
    tracemalloc.start()
    try:
        for page, vectors in cache.iter_matrix("fake", batch_rows=50):
            assert len(page) == len(vectors) <= 50
            n_rows += len(page)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_rows == len(ids)
    assert peak_bytes < whole_bytes / 4


def test_a_model_that_is_not_there_is_told_before_the_first_page(cache: EmbeddingCache) -> None:
    with pytest.raises(UnknownModelError):
        cache.iter_matrix("nope")


def test_a_reader_between_two_pages_holds_up_no_writer(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    pages = filled.iter_matrix("fake", batch_rows=4)
    first, _ = next(pages)
    with EmbeddingCache(filled.location, timeout_s=0) as other:
        other.get("new", "new", encoder)
        other.invalidate(IDS[4:8])
    rest = [doc_id for page, _ in pages for doc_id in page]
    assert (first, rest) == (IDS[:4], IDS[8:])


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["document", "query"])
def test_an_unknown_model_is_told_with_those_there_are(role: Any, filled: EmbeddingCache) -> None:
    with pytest.raises(UnknownModelError, match=r"'nope'.*stored are: fake$") as caught:
        filled.matrix("nope", role=role)
    assert isinstance(caught.value, KeyError)


def test_queries_of_a_model_that_has_none_of_its_own_are_found_among_documents(filled: EmbeddingCache) -> None:
    with pytest.raises(UnknownModelError, match="ask for role='document'"):
        filled.matrix("fake", role="query")


def test_a_name_with_several_identities_asks_which(cache: EmbeddingCache) -> None:
    encoders = [with_settings(a=1), with_settings(a=1, b=2)]
    for encoder in encoders:
        cache.get("x", "text", encoder)
    with pytest.raises(AmbiguousModelError, match=r'settings=.*\{"a":1\}; .*\{"a":1,"b":2\}') as caught:
        cache.matrix("fake")
    identities = (ModelIdentity.of("fake", {"a": 1}), ModelIdentity.of("fake", {"a": 1, "b": 2}))
    assert caught.value.identities == identities
    for encoder, identity in zip(encoders, identities, strict=True):
        assert cache.matrix("fake", settings=identity.settings)[1].tolist() == encoder.vectors(["text"]).tolist()
    with pytest.raises(AmbiguousModelError):
        cache.iter_matrix("fake")
    with pytest.raises(AmbiguousModelError):
        cache.put_many(["y"], ["text"], np.ones((1, 8)), model_name="fake")
    with pytest.raises(UnknownModelError, match="with settings"):
        cache.matrix("fake", settings={})


def test_a_role_is_not_what_makes_a_name_ambiguous(cache: EmbeddingCache) -> None:
    encoder = QueryEncoder()
    cache.get("a", "text", encoder)
    cache.get("a", "text", encoder, role="query")
    for role, text in (("document", "text"), ("query", "query: text")):
        assert cache.matrix("fake", role=role)[1].tolist() == encoder.vectors([text]).tolist()  # type: ignore[arg-type]
    shown = [model.settings for model in cache.models()]
    assert [cache.matrix("fake", settings=settings)[0] for settings in shown] == [["a"], ["a"]]


# --- listing and counting -------------------------------------------------------------------


def test_documents_are_listed_by_model_collection_and_id(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    other = CountingEncoder(model_name="other", dim=3)
    cache.get_many(["b", "a"], ["one", "two"], encoder, collection="y")
    cache.get("c", "one", encoder, collection="x")
    cache.get("a", "one", other)
    one, two = content_hash("one").hex(), content_hash("two").hex()
    listed = [
        DocumentInfo("c", "x", "fake", {}, 8, one),
        DocumentInfo("a", "y", "fake", {}, 8, two),
        DocumentInfo("b", "y", "fake", {}, 8, one),
        DocumentInfo("a", "", "other", {}, 3, one),
    ]
    assert list(cache.documents()) == listed
    assert list(cache.documents(model_name="fake")) == listed[:3]
    assert list(cache.documents(model_name="fake", collection="y")) == listed[1:3]
    assert list(cache.documents(collection="")) == listed[3:]
    assert list(cache.documents(model_name="nope")) == list(cache.documents(collection="nope")) == []


def test_more_documents_than_a_page_are_listed(cache: EmbeddingCache) -> None:
    ids = sorted(f"doc {i}" for i in range(2500))
    cache.put_many(ids, ids, np.ones((2500, 1)), model_name="m")
    assert [row.doc_id for row in cache.documents()] == ids


def test_a_document_is_contained_whatever_its_model_and_collection(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder, collection="x")
    cache.get("b", "text", encoder, model_name="other")
    asked: list[object] = ["a", "b", "c", "", "a\0", "a\ud800", None, 1, b"a", ["a"]]
    assert [one in cache for one in asked] == [True, True] + [False] * 8


def test_models_are_listed_oldest_first_with_what_is_stored_of_each(cache: EmbeddingCache) -> None:
    second = with_settings(a=1)
    cache.put_many(["a"], ["one"], np.ones((1, 3)), model_name="by name")
    cache.get_many(["a", "b", "c"], ["one", "one", "two"], second, collection="x")
    cache.embed(["bare"], second)
    created_at = [model.created_at for model in cache.models()]
    assert [replace(model, usage=ModelUsage()) for model in cache.models()] == [
        ModelInfo("by name", {}, 3, "float32", created_at[0], n_vectors=1, n_documents=1, has_canary=False),
        ModelInfo("fake", {"a": 1}, 8, "float32", created_at[1], n_vectors=3, n_documents=3, has_canary=True),
    ]


def test_stats_count_rows_ids_vectors_and_bytes(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    empty = cache.stats()
    assert empty == Stats(cache.location, empty.size_bytes, 0, 0, 0, 0, ())
    cache.get_many(["a", "b"], ["one", "one"], encoder)
    cache.get("a", "two", encoder, collection="x")
    cache.embed(["bare"], encoder)
    cache.get("b", "three", encoder)
    cache.get("b", "one", encoder)
    stats = cache.stats()
    assert stats.size_bytes >= empty.size_bytes > 0
    assert stats == Stats(
        cache.location,
        stats.size_bytes,
        n_documents=3,
        n_doc_ids=2,
        n_vectors=4,
        n_unused=2,
        models=tuple(cache.models()),
        n_duplicates=1,
    )


# --- forgetting -----------------------------------------------------------------------------


def test_an_invalidated_document_is_encoded_anew(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert filled.invalidate("doc 3") == 1
    assert ("doc 3" in filled, len(filled)) == (False, 9)
    encoder.calls.clear()
    filled.get_many(IDS, TEXTS, encoder)
    assert encoder.calls == [["text 3"]]


def test_an_invalidated_document_keeps_the_vector_that_another_one_uses(
    filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    filled.get("other", "text 3", encoder, collection="x")
    assert filled.invalidate(["doc 3"]) == 1
    assert filled.matrix("fake", doc_ids=["other"])[1].tolist() == encoder.vectors(["text 3"]).tolist()
    assert filled.invalidate(["other", "doc 4"]) == 2
    encoder.calls.clear()
    filled.embed(["text 3", "text 4"], encoder)
    assert sorted(encoder.texts) == ["text 3", "text 4"]


def test_documents_are_invalidated_everywhere_or_only_there(cache: EmbeddingCache) -> None:
    first, second = CountingEncoder(model_name="first"), CountingEncoder(model_name="second")

    def fill() -> None:
        for encoder in (first, second):
            for name in ("x", "y"):
                cache.get("a", name, encoder, collection=name)

    def left() -> list[tuple[str, str]]:
        return [(row.model_name, row.collection) for row in cache.documents()]

    fill()
    assert (cache.invalidate("a", model_name="first", collection="x"), len(left())) == (1, 3)
    assert left() == [("first", "y"), ("second", "x"), ("second", "y")]
    assert (cache.invalidate("a", collection="x"), left()) == (1, [("first", "y"), ("second", "y")])
    assert (cache.invalidate("a", model_name="second"), left()) == (1, [("first", "y")])
    fill()
    assert (cache.invalidate(["a", "a", "nope"]), left()) == (4, [])
    assert cache.stats().n_vectors == 0


def test_ids_that_are_not_stored_are_passed_over(filled: EmbeddingCache) -> None:
    before = dump(filled.location)
    assert filled.invalidate(["nope", "doc"]) == 0
    assert filled.invalidate([]) == 0
    assert filled.invalidate("doc 1", model_name="nope") == filled.invalidate("doc 1", collection="nope") == 0
    assert dump(filled.location) == before


def test_more_ids_than_a_statement_takes_are_invalidated(cache: EmbeddingCache) -> None:
    ids = [f"doc {i}" for i in range(1200)]
    cache.put_many(ids, ids, np.ones((1200, 1)), model_name="m")
    assert cache.invalidate(ids[:-1]) == 1199
    assert [row.doc_id for row in cache.documents()] == ["doc 1199"]
    assert cache.stats().n_vectors == 1


def test_clear_forgets_everything(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    filled.embed(["bare"], encoder)
    filled.get("a", "text", encoder, model_name="other", collection="x")
    assert filled.clear() == 11
    stats = filled.stats()
    assert (stats.n_documents, stats.n_vectors, stats.models) == (0, 0, ())
    assert filled.clear() == 0


def test_clear_of_a_model_forgets_its_vectors_canary_and_name_and_no_others(filled: EmbeddingCache) -> None:
    other = CountingEncoder(model_name="other", seed=1)
    filled.get("a", "text 1", other)
    filled.get("a", "text 1", CountingEncoder(), model_name="fake with settings")
    assert filled.clear(model_name="fake") == 10
    assert [model.model_name for model in filled.models()] == ["other", "fake with settings"]
    assert filled.matrix("other")[1].tolist() == other.vectors(["text 1"]).tolist()
    with pytest.raises(UnknownModelError):
        filled.matrix("fake")


def test_clear_of_a_model_forgets_all_identities_of_its_name(cache: EmbeddingCache) -> None:
    for encoder in (with_settings(a=1), with_settings(a=1, b=2)):
        cache.get("x", "text", encoder)
    assert cache.clear(model_name="fake") == 2
    assert cache.models() == []


def test_clear_of_a_collection_forgets_its_documents_and_what_only_they_use(
    filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    filled.get_many(["a", "b"], ["text 1", "only here"], encoder, collection="x")
    before = dump(filled.location)["documents"]
    assert filled.clear(collection="x") == 2
    assert [row for row in before if row[1] == ""] == dump(filled.location)["documents"]
    encoder.calls.clear()
    filled.embed(["text 1", "only here"], encoder)
    assert encoder.texts == ["only here"]


def test_clear_of_a_collection_of_one_model_leaves_the_others(cache: EmbeddingCache) -> None:
    for name in ("first", "second"):
        cache.get("a", "text", CountingEncoder(model_name=name), collection="x")
    assert cache.clear(model_name="first", collection="x") == 1
    assert [row.model_name for row in cache.documents()] == ["second"]


def test_prune_removes_what_no_document_uses_any_more(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    filled.get_many(IDS[:4], ["edited"] * 4, encoder)
    report = PruneReport(n_vectors=4, vector_bytes=4 * 32, removed=True)
    assert filled.prune(dry_run=True) == PruneReport(4, 4 * 32, removed=False)
    assert filled.prune() == report
    assert filled.prune() == PruneReport(0, 0, removed=True)
    encoder.calls.clear()
    filled.get_many(IDS, ["edited"] * 4 + TEXTS[4:], encoder)
    assert encoder.calls == []


def test_prune_keeps_texts_without_an_id_unless_asked(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    filled.embed(["bare", "text 0"], encoder)
    filled.get("doc 0", "edited", encoder)
    filled.get("doc 1", "edited", encoder)
    assert filled.prune(dry_run=True).n_vectors == 1
    assert filled.prune(standalone=True, dry_run=True).n_vectors == 3
    assert filled.prune().n_vectors == 1
    encoder.calls.clear()
    filled.embed(["bare", "text 0"], encoder)
    assert encoder.calls == []
    assert filled.prune(standalone=True).n_vectors == 2
    filled.embed(["bare", "text 0"], encoder)
    assert sorted(encoder.texts) == ["bare", "text 0"]


def test_a_dry_run_changes_nothing(filled: EmbeddingCache, encoder: CountingEncoder) -> None:
    filled.get("doc 0", "edited", encoder)
    before = dump(filled.location)
    filled.prune(standalone=True, dry_run=True)
    assert dump(filled.location) == before


# --- renaming -------------------------------------------------------------------------------


def test_renaming_a_model_keeps_every_vector_and_costs_no_encode(
    filled: EmbeddingCache, encoder: CountingEncoder
) -> None:
    before = dump(filled.location)
    filled.rename_model("fake", "renamed")
    after = dump(filled.location)
    assert (after["vectors"], after["documents"]) == (before["vectors"], before["documents"])
    encoder.calls.clear()
    encoder.model_name = "renamed"
    assert np.array_equal(filled.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
    assert encoder.calls == []
    with pytest.raises(UnknownModelError):
        filled.matrix("fake")


def test_renaming_takes_all_identities_of_the_name(cache: EmbeddingCache) -> None:
    for encoder in (with_settings(a=1), with_settings(a=1, b=2)):
        cache.get("x", "text", encoder)
    cache.rename_model("fake", "new")
    assert [(model.model_name, model.settings) for model in cache.models()] == [
        ("new", {"a": 1}),
        ("new", {"a": 1, "b": 2}),
    ]


def test_renaming_to_a_name_with_the_same_settings_is_refused_and_changes_nothing(cache: EmbeddingCache) -> None:
    free, clashing = with_settings(a=1), with_settings(a=1, b=2)
    for encoder in (free, clashing):
        cache.get("x", "text", encoder)
    cache.get("x", "text", clashing, model_name="taken")
    before = dump(cache.location)
    with pytest.raises(ModelExistsError, match=r"taken.*clear\(model_name=...\)"):
        cache.rename_model("fake", "taken")
    assert dump(cache.location) == before


def test_renaming_to_a_name_with_other_settings_is_fine(cache: EmbeddingCache) -> None:
    cache.get("x", "text", with_settings(a=1))
    cache.get("x", "text", with_settings(a=1, b=2), model_name="new")
    cache.rename_model("fake", "new")
    assert sorted(model.model_name for model in cache.models()) == ["new", "new"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("nope", "new", UnknownModelError),
        ("fake", "", InvalidInputError),
        ("fake", "a\ud800", InvalidInputError),
        ("fake", None, InvalidTypeError),
        ("", "new", InvalidInputError),
        (None, "new", InvalidTypeError),
    ],
)
def test_renaming_needs_a_stored_name_and_a_usable_one(
    old: Any, new: Any, error: type[Exception], filled: EmbeddingCache
) -> None:
    before = dump(filled.location)
    with pytest.raises(error):
        filled.rename_model(old, new)
    assert dump(filled.location) == before


def test_a_renamed_model_is_still_checked_by_its_canary(filled: EmbeddingCache) -> None:
    filled.rename_model("fake", "renamed")
    with pytest.raises(ModelChangedError):
        filled.get("a", "text", CountingEncoder(model_name="renamed", seed=1))


# --- the file -------------------------------------------------------------------------------


def test_stored_embeddings_can_be_read_without_what_encodes(filled: EmbeddingCache) -> None:
    with StoredEmbeddings(filled.location) as stored:
        assert stored.matrix("fake")[0] == IDS
        assert (len(stored), "doc 1" in stored, stored.verify()) == (10, True, [])
        assert not hasattr(stored, "get")


def test_a_collection_may_have_any_name(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    names = ["", "a", "a\0", "../x", "🙂", "x" * 1000]
    for name in names:
        cache.get("doc", f"text of {name}", encoder, collection=name)
    for name in names:
        expected = encoder.vectors([f"text of {name}"])
        assert cache.matrix("fake", collection=name)[1].tolist() == expected.tolist()


BAD_ARGUMENTS: dict[str, Callable[[EmbeddingCache], object]] = {
    "matrix: model_name None": lambda cache: cache.matrix(None),  # type: ignore[arg-type]
    "matrix: model_name empty": lambda cache: cache.matrix(""),
    "matrix: a str for doc_ids": lambda cache: cache.matrix("fake", doc_ids="doc 1"),
    "matrix: an id that is no str": lambda cache: cache.matrix("fake", doc_ids=[1]),  # type: ignore[list-item]
    "matrix: role": lambda cache: cache.matrix("fake", role="other"),  # type: ignore[arg-type]
    "matrix: collection": lambda cache: cache.matrix("fake", collection=1),  # type: ignore[arg-type]
    "matrix: settings": lambda cache: cache.matrix("fake", settings={"a": [1]}),  # type: ignore[dict-item]
    "iter_matrix: no rows": lambda cache: cache.iter_matrix("fake", batch_rows=0),
    "iter_matrix: half a row": lambda cache: cache.iter_matrix("fake", batch_rows=0.5),  # type: ignore[arg-type]
    "iter_matrix: no such share": lambda cache: cache.iter_matrix("fake", shard=(3, 3)),
    "documents: collection": lambda cache: cache.documents(collection=b"x"),  # type: ignore[arg-type]
    "documents: model_name": lambda cache: list(cache.documents(model_name="a\ud800")),
    "invalidate: empty id": lambda cache: cache.invalidate(["doc 1", ""]),
    "invalidate: None": lambda cache: cache.invalidate(None),  # type: ignore[arg-type]
    "invalidate: an id that is no str": lambda cache: cache.invalidate(["doc 1", 1]),  # type: ignore[list-item]
    "invalidate: a surrogate": lambda cache: cache.invalidate("\ud800"),
    "invalidate: model_name": lambda cache: cache.invalidate("doc 1", model_name=1),  # type: ignore[arg-type]
    "clear: model_name no str": lambda cache: cache.clear(model_name=1),  # type: ignore[arg-type]
    "clear: model_name surrogate": lambda cache: cache.clear(model_name="\ud800"),
    "clear: collection": lambda cache: cache.clear(collection=1),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_what_cannot_be_asked_is_refused_and_changes_nothing(case: str, filled: EmbeddingCache) -> None:
    before = dump(filled.location)
    with pytest.raises((InvalidInputError, InvalidTypeError)):
        BAD_ARGUMENTS[case](filled)
    assert dump(filled.location) == before
