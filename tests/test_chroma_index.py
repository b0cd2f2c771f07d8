"""The index on real Chroma collections."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embstore import ModelIdentity, content_hash
from embstore.codec import Vectors
from embstore.errors import CollectionMismatchError, DimensionError, SearchIndexError
from embstore.search import collection
from embstore.search.base import HASH_KEY, Document, Metadata, StoredDocument
from embstore.search.chroma import ChromaIndex
from embstore.search.collection import MODEL_NAME_KEY, SETTINGS_KEY, open_client
from tests.fakes import CountingEncoder

if TYPE_CHECKING:
    from chromadb.api.client import Client

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")

IDENTITY = ModelIdentity.of("fake", {"prompt": "p: "})
COSINE: Any = {"hnsw": {"space": "cosine"}}
SCIFACT = Path(os.environ.get("EMBSTORE_SCIFACT", Path(__file__).parents[2] / "shared" / "corpora" / "scifact"))
needs_scifact = pytest.mark.skipif(
    not (SCIFACT / "minilm_docs.npy").exists(),
    reason="needs the SciFact vectors; set EMBSTORE_SCIFACT to their folder",
)


@pytest.fixture(scope="module")
def folder_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = open_client(tmp_path_factory.mktemp("library"))
    yield client
    client.close()


@pytest.fixture
def client(folder_client: Client) -> Client:
    """One client for all tests, which costs less than one each; every test begins without a collection."""
    for left in folder_client.list_collections():
        # Its records first: chroma-core/chroma#7594 leaves their lists to records that come later.
        ids = left.get(include=[])["ids"]
        for start in range(0, len(ids), 5000):
            left.delete(ids=ids[start : start + 5000])
        folder_client.delete_collection(left.name)
    return folder_client


@pytest.fixture
def index(client: Client) -> ChromaIndex:
    return ChromaIndex(client, "documents", IDENTITY)


def document(doc_id: str, text: str = "text", metadata: Metadata | None = None) -> Document:
    return Document(doc_id, text, metadata or {})


def vectors(*texts: str) -> Vectors:
    return CountingEncoder().vectors(list(texts))


def records(index: ChromaIndex) -> dict[str, tuple[str, dict[str, Any], list[float]]]:
    """Every record of a collection, whole."""
    got: Any = index.collection.get(include=["documents", "metadatas", "embeddings"])
    columns = (got["documents"], got["metadatas"], got["embeddings"].tolist())
    return dict(zip(got["ids"], zip(*columns, strict=True), strict=True))


def approx(vector: Vectors) -> Any:
    return pytest.approx(vector.tolist(), abs=1e-6)


# --- records --------------------------------------------------------------------------------


def test_a_record_is_the_text_the_metadata_with_its_hash_and_the_vector(index: ChromaIndex) -> None:
    index.add([document("a", "text", {"year": 2026})], vectors("text"))
    metadata = {"year": 2026, HASH_KEY: content_hash("text").hex()}
    assert records(index) == {"a": ("text", metadata, approx(vectors("text")[0]))}


def test_stored_tells_hash_and_metadata_of_those_that_are_there(index: ChromaIndex) -> None:
    index.add([document("a", "A", {"year": 1}), document("b", "B")], vectors("A", "B"))
    assert index.stored(["b", "missing", "a"]) == {
        "a": StoredDocument(content_hash("A").hex(), {"year": 1}),
        "b": StoredDocument(content_hash("B").hex(), {}),
    }
    assert index.stored([]) == {}


def test_a_record_of_another_program_is_stored_without_a_hash(index: ChromaIndex) -> None:
    index.collection.add(ids=["a", "b"], embeddings=vectors("a", "b"), metadatas=[{"k": 1}, None])  # type: ignore[list-item]
    assert index.stored(["a", "b"]) == {"a": StoredDocument(None, {"k": 1}), "b": StoredDocument(None, {})}


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1.0, True, False, 2**63 - 1, -(2**63), 0.1, 5e-324, 1.7976931348623157e308, float(2**53 + 2)),
        *("", "a\0b", "é😀", [1, 2], [1.0, 0.1], [True, False], ["b", "a", "a", ""]),
    ],
    ids=repr,
)
def test_metadata_comes_back_in_value_and_type(index: ChromaIndex, value: Any) -> None:
    index.add([document("a", "A", {"kéy\0": value})], vectors("A"))
    index.add([document("b", "B", {"kéy\0": "before"})], vectors("B"))
    index.update_metadata({"b": {"kéy\0": value}})
    stored = index.stored(["a", "b"])
    assert repr(stored["a"].metadata) == repr(stored["b"].metadata) == repr({"kéy\0": value})


@pytest.mark.parametrize(
    "doc_id", ["a\0b", "😀", "x" * 100_000, " ", "a/b"], ids=["NUL", "emoji", "long", "space", "/"]
)
def test_any_id_and_any_text_can_be_added_and_found(index: ChromaIndex, doc_id: str) -> None:
    for text in ("", "a\0b", "\ud800 alone", "x" * 1_000_000):
        new = document(doc_id, text)
        write = index.replace if index.stored([doc_id]) else index.add
        write([new], vectors(text))
        assert index.stored([doc_id]) == {doc_id: StoredDocument(new.content_hash, {})}
        (hit,) = index.query(vectors(text)[0], 1)
        assert (hit.doc_id, hit.document) == (doc_id, text.replace("\ud800", "\ufffd"))


def test_a_patch_sets_and_removes_keys_and_leaves_the_rest(index: ChromaIndex) -> None:
    index.add([document("a", "A", {"year": 1, "old": "x", "kept": True})], vectors("A"))
    before = records(index)["a"]
    index.update_metadata({"a": {"year": 2, "old": None, "new": ["n"]}})
    text, metadata, vector = records(index)["a"]
    assert metadata == {HASH_KEY: content_hash("A").hex(), "year": 2, "kept": True, "new": ["n"]}
    assert (text, vector) == (before[0], before[2])


def test_replace_keeps_nothing_of_the_record_before(index: ChromaIndex) -> None:
    index.add([document("a", "A", {"old": 1}), document("b", "B")], vectors("A", "B"))
    index.replace([document("a", "new", {"year": 2})], vectors("new"))
    assert records(index)["a"] == (
        "new",
        {"year": 2, HASH_KEY: content_hash("new").hex()},
        approx(vectors("new")[0]),
    )
    assert index.collection.count() == 2


def test_delete_counts_what_was_there(index: ChromaIndex) -> None:
    index.add([document("a"), document("b")], vectors("A", "B"))
    assert index.delete(["a", "missing", "a"]) == 1
    assert index.delete(["a"]) == 0
    assert index.delete([]) == 0
    assert list(records(index)) == ["b"]


def test_more_documents_than_chroma_takes_at_once(index: ChromaIndex, client: Client) -> None:
    n = client.get_max_batch_size() + 1
    ids = [f"d{i}" for i in range(n)]
    rows = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    index.add([document(doc_id) for doc_id in ids], rows)
    assert index.collection.count() == n
    assert index.stored(ids).keys() == set(ids)
    index.update_metadata({doc_id: {"k": 1} for doc_id in ids})
    assert set(index.stored(ids)[ids[-1]].metadata) == {"k"}
    assert index.delete(ids) == n


def test_long_documents_are_written_a_few_at_a_time(index: ChromaIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server refuses requests of more than 40 MiB: for a replacement, after its records were deleted."""
    monkeypatch.setattr(collection, "PAGE_BYTES", 1000)
    texts = ["x" * n for n in (10, 100, 100, 100, 5000, 10)]
    index.add([document(f"d{i}", text) for i, text in enumerate(texts)], vectors(*texts))
    pages = []
    add = index.collection.add

    def noted(**page: Any) -> None:
        pages.append(page["ids"])
        add(**page)

    monkeypatch.setattr(index.collection, "add", noted)
    index.replace([document(f"d{i}", text) for i, text in enumerate(texts)], vectors(*texts))
    assert pages == [["d0", "d1", "d2"], ["d3"], ["d4"], ["d5"]]
    assert {doc_id: text for doc_id, (text, *_) in records(index).items()} == {f"d{i}": t for i, t in enumerate(texts)}


# --- searching ------------------------------------------------------------------------------


def test_hits_come_nearest_first_with_the_cosine_as_score(index: ChromaIndex) -> None:
    rows = np.array([[1, 0], [3, 3], [0, 0.5], [-1, 0]], dtype=np.float32)
    index.add([document(name, name, {"k": name}) for name in ("east", "northeast", "north", "west")], rows)
    hits = index.query(np.array([2, 0], dtype=np.float32), 3)
    assert [(hit.doc_id, hit.document, hit.metadata) for hit in hits] == [
        (name, name, {"k": name}) for name in ("east", "northeast", "north")
    ]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5, 0.0], abs=1e-6)


def test_a_search_of_nothing_finds_nothing(index: ChromaIndex) -> None:
    assert index.query(vectors("q")[0], 10) == []


def test_more_results_than_there_are_documents_gives_them_all(index: ChromaIndex) -> None:
    index.add([document("a"), document("b")], vectors("A", "B"))
    for n_results in (3, 2**40):
        assert {hit.doc_id for hit in index.query(vectors("A")[0], n_results)} == {"a", "b"}


def test_a_filter_tells_types_apart(index: ChromaIndex) -> None:
    kinds: dict[str, Any] = {"int": 1, "str": "1", "bool": True}
    index.add([document(name, name, {"k": value}) for name, value in kinds.items()], vectors(*kinds))
    for name, value in kinds.items():
        assert [hit.doc_id for hit in index.query(vectors("q")[0], 10, {"k": value})] == [name]


def test_the_reserved_key_is_in_no_hit(index: ChromaIndex) -> None:
    index.add([document("a")], vectors("A"))
    assert index.query(vectors("A")[0], 1)[0].metadata == {}


@needs_scifact
def test_search_finds_what_exact_search_finds_also_after_a_tenth_was_replaced(index: ChromaIndex) -> None:
    rows, queries = np.load(SCIFACT / "minilm_docs.npy")[:2000], np.load(SCIFACT / "minilm_queries.npy")[:100]
    documents = [document(str(i), f"text {i}") for i in range(len(rows))]
    index.add(documents, rows)
    index.replace([document(str(i), f"new {i}") for i in range(0, len(rows), 10)], rows[::10])
    found = [{int(hit.doc_id) for hit in index.query(query, 10)} for query in queries]
    exact = [set(np.argsort(-(rows @ query))[:10].tolist()) for query in queries]
    assert np.mean([len(a & b) / 10 for a, b in zip(found, exact, strict=True)]) > 0.98
    assert {hit.doc_id for hit in index.query(queries[0], len(rows))} == {str(i) for i in range(len(rows))}


# --- whose vectors they are -----------------------------------------------------------------


def test_the_collection_says_whose_vectors_it_holds(index: ChromaIndex, client: Client) -> None:
    collection = client.get_collection("documents", embedding_function=None)
    assert collection.metadata == {MODEL_NAME_KEY: "fake", SETTINGS_KEY: '{"prompt":"p: "}'}
    assert collection.configuration_json["hnsw"]["space"] == "cosine"
    assert ChromaIndex(client, "documents", IDENTITY).identity == IDENTITY


@pytest.mark.parametrize("other", [IDENTITY.renamed("other"), ModelIdentity("fake")], ids=["name", "settings"])
def test_a_collection_of_another_model_is_refused(index: ChromaIndex, client: Client, other: ModelIdentity) -> None:
    index.add([document("a")], vectors("A"))
    before = records(index)
    with pytest.raises(CollectionMismatchError) as refusal:
        ChromaIndex(client, "documents", other)
    assert repr(str(IDENTITY)) in str(refusal.value)
    assert repr(str(other)) in str(refusal.value)
    assert "another collection_name=" in str(refusal.value)
    assert ChromaIndex(client, "documents", IDENTITY).identity == IDENTITY
    assert records(index) == before


def test_an_empty_collection_is_adopted_with_its_other_metadata(client: Client) -> None:
    client.create_collection("documents", embedding_function=None, configuration=COSINE, metadata={"owner": "me"})
    index = ChromaIndex(client, "documents", IDENTITY)
    expected = {"owner": "me", MODEL_NAME_KEY: "fake", SETTINGS_KEY: IDENTITY.settings_json}
    assert index.collection.metadata == expected
    index.rename_model("new")
    assert index.collection.metadata == {**expected, MODEL_NAME_KEY: "new"}


def test_an_empty_collection_whose_space_is_in_its_metadata_is_adopted(client: Client) -> None:
    client.create_collection("documents", embedding_function=None, metadata={"hnsw:space": "cosine"})
    index = ChromaIndex(client, "documents", IDENTITY)
    index.rename_model("new")
    assert index.identity == IDENTITY.renamed("new")
    again = client.get_collection("documents", embedding_function=None)
    assert again.configuration_json["hnsw"]["space"] == "cosine"


def test_a_collection_with_records_of_unknown_models_is_refused_and_left_alone(client: Client) -> None:
    foreign = client.create_collection("documents", embedding_function=None, configuration=COSINE)
    foreign.add(ids=["a"], embeddings=vectors("a"), documents=["mine"])
    with pytest.raises(CollectionMismatchError, match="was not made by embstore"):
        ChromaIndex(client, "documents", IDENTITY)
    again = client.get_collection("documents", embedding_function=None)
    assert not again.metadata
    assert again.get() == foreign.get()


@pytest.mark.parametrize("space", ["l2", "ip"])
def test_a_collection_that_does_not_measure_by_cosine_is_refused(client: Client, space: Any) -> None:
    client.create_collection("documents", embedding_function=None, configuration={"hnsw": {"space": space}})
    with pytest.raises(CollectionMismatchError, match=f"measures by '{space}', not by 'cosine'"):
        ChromaIndex(client, "documents", IDENTITY)


def test_a_collection_with_an_embedding_function_is_judged_without_loading_it(client: Client) -> None:
    client.create_collection("documents")  # Chroma's default function, which downloads a model when it is used
    with pytest.raises(CollectionMismatchError, match="measures by 'l2'"):
        ChromaIndex(client, "documents", IDENTITY)


def test_an_index_in_memory_works_the_same() -> None:
    client = chromadb.EphemeralClient()
    name = f"documents-{uuid.uuid4()}"
    index = ChromaIndex(client, name, IDENTITY)
    index.add([document("a", "A", {"k": 1})], vectors("A"))
    assert index.query(vectors("A")[0], 1)[0].metadata == {"k": 1}
    with pytest.raises(CollectionMismatchError):
        ChromaIndex(client, name, IDENTITY.renamed("other"))
    client.delete_collection(name)


# --- failures -------------------------------------------------------------------------------


def test_vectors_of_another_dimension_remove_nothing(index: ChromaIndex, client: Client) -> None:
    index.add([document("a", "A")], vectors("A"))
    before = records(index)
    wrong = np.ones((1, 9), dtype=np.float32)
    refused = pytest.raises(DimensionError, match="holds vectors of 8 values, and model 'fake' gave 9")
    for opened in (index, ChromaIndex(client, "documents", IDENTITY)):
        with refused:
            opened.replace([document("a", "new")], wrong)
        with refused:
            opened.add([document("b")], wrong)
        with refused:
            opened.query(wrong[0], 1)
    assert records(index) == before


def test_what_chroma_raises_becomes_an_error_of_ours_with_its_cause(index: ChromaIndex, client: Client) -> None:
    index.add([document("a", "A")], vectors("A"))
    with pytest.raises(SearchIndexError, match="could not search the collection 'documents': ValueError") as raised:
        index.query(vectors("A")[0], 1, {"k": {"$near": 1}})
    assert isinstance(raised.value.__cause__, ValueError)
    client.delete_collection("documents")
    for fails in (
        lambda: index.stored(["a"]),
        lambda: index.add([document("b")], vectors("B")),
        lambda: index.replace([document("a", "new")], vectors("new")),
        lambda: index.update_metadata({"a": {"k": 1}}),
        lambda: index.delete(["a"]),
        lambda: index.query(vectors("A")[0], 1),
        lambda: index.rename_model("new"),
    ):
        with pytest.raises(SearchIndexError, match="the collection 'documents': NotFoundError"):
            fails()
