"""What every `VectorIndex` does: the same calls to each of them, the same results, the same errors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embstore import ModelIdentity, content_hash
from embstore.codec import Vectors
from embstore.errors import CollectionMismatchError, DimensionError, InvalidInputError, SearchIndexError
from embstore.search.base import Document, IndexRecord, Metadata, SearchHit, StoredDocument, VectorIndex
from embstore.search.chroma import ChromaIndex
from embstore.search.collection import open_client
from embstore.search.exact import ExactIndex
from embstore.search.filters import compile_filter
from embstore.stores import open_store
from embstore.stores.base import Store
from embstore.stores.locations import is_url
from tests.fakes import CountingEncoder
from tests.postgres import Schemas
from tests.scifact import SCIFACT, needs_scifact

if TYPE_CHECKING:
    from chromadb.api.client import Client

IDENTITY = ModelIdentity.of("fake", {"prompt": "p: "})
OpenIndex = Callable[..., VectorIndex]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One client for all tests, which costs less than one each; each has a collection of its own."""
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    client = open_client(tmp_path_factory.mktemp("chroma"))
    yield client
    client.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A file that must be sound when the test is over."""
    store = open_store(tmp_path / "embeddings.db")
    yield store
    assert store.verify() == []
    store.close()


@pytest.fixture
def half_store(tmp_path: Path) -> Iterator[Store]:
    """The same, for vectors that are stored as float16."""
    store = open_store(tmp_path / "half.db", dtype="float16")
    yield store
    assert store.verify() == []
    store.close()


@pytest.fixture
def server_store(schemas: Schemas) -> Iterator[Store]:
    """The same on a server."""
    with schemas.one() as url:
        store = open_store(url)
        yield store
        assert store.verify() == []
        store.close()


STORES = {"exact": "store", "exact, float16": "half_store", "exact, server": "server_store"}


@pytest.fixture
def make_index(request: pytest.FixtureRequest) -> OpenIndex:
    """Open a collection of the index that `kind` names."""

    def make_index(kind: str, name: str, identity: ModelIdentity = IDENTITY) -> VectorIndex:
        if kind == "chroma":
            return ChromaIndex(request.getfixturevalue("client"), name, identity)
        return ExactIndex(request.getfixturevalue(STORES[kind]), name, identity)

    return make_index


@pytest.fixture(params=["chroma", *STORES])
def open_index(request: pytest.FixtureRequest, make_index: OpenIndex) -> OpenIndex:
    """Open a collection that only this test has; by another name, another one."""
    unique = uuid.uuid4().hex

    def open_index(name: str = "documents", identity: ModelIdentity = IDENTITY) -> VectorIndex:
        return make_index(request.param, f"{name}-{unique}", identity)

    return open_index


@pytest.fixture
def index(open_index: OpenIndex) -> VectorIndex:
    return open_index()


def document(doc_id: str, text: str = "text", metadata: Metadata | None = None) -> Document:
    return Document(doc_id, text, metadata or {})


def vectors(*texts: str) -> Vectors:
    """Of values that float16 has too, so that every index gives them back."""
    return CountingEncoder().vectors(list(texts)).astype(np.float16).astype(np.float32)


def put(index: VectorIndex, *documents: Document) -> None:
    index.add(documents, vectors(*(document.text for document in documents)))


def records(index: VectorIndex) -> dict[str, IndexRecord]:
    """All that an index holds."""
    return {record.doc_id: record for page in index.records() for record in page}


def record(doc_id: str, text: str, metadata: Metadata | None = None) -> Any:
    """What the record of a document is to be."""
    vector = pytest.approx(vectors(text)[0].tolist(), abs=1e-6)
    return (doc_id, text, content_hash(text).hex(), metadata or {}, vector)


def tuples(index: VectorIndex) -> dict[str, Any]:
    """All that an index holds, as values that can be compared."""
    return {doc_id: astuple(record) for doc_id, record in records(index).items()}


def ids(index: VectorIndex, where: dict[str, Any] | None = None) -> list[str]:
    return sorted(doc_id for page in index.doc_ids(where) for doc_id in page)


def approx(score: float) -> Any:
    return pytest.approx(score, abs=1e-6)


# --- documents ------------------------------------------------------------------------------


def test_a_record_is_the_document_with_its_hash_and_its_vector(index: VectorIndex) -> None:
    put(index, document("a", "A", {"year": 2026}), document("b", "B"))
    assert tuples(index) == {"a": record("a", "A", {"year": 2026}), "b": record("b", "B")}
    assert index.count() == 2


def test_records_of_some_ids_are_those_that_are_there(index: VectorIndex) -> None:
    put(index, document("a", "A"), document("b", "B"))
    (some,) = [astuple(each) for page in index.records(["b", "missing"]) for each in page]
    assert some == record("b", "B")
    assert [each for page in index.records([]) for each in page] == []


def test_a_new_index_holds_nothing(index: VectorIndex) -> None:
    assert (index.count(), ids(index), records(index), index.stored(["a"])) == (0, [], {}, {})
    assert (index.unreachable(), index.query(vectors("q")[0], 10, None), index.delete(["a"])) == ([], [], 0)


def test_stored_tells_hash_and_metadata_of_those_that_are_there(index: VectorIndex) -> None:
    put(index, document("a", "A", {"year": 1}), document("b", "B"))
    assert index.stored(["b", "missing", "a"]) == {
        "a": StoredDocument(content_hash("A").hex(), {"year": 1}),
        "b": StoredDocument(content_hash("B").hex(), {}),
    }
    assert index.stored([]) == {}


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1.0, True, False, 2**63 - 1, -(2**63), 0.1, 5e-324, 1.7976931348623157e308, float(2**53 + 2)),
        *("", "a\0b", "é😀", '"\\', [1, 2], [1.0, 0.1], [True, False], ["b", "a", "a", ""]),
    ],
    ids=repr,
)
def test_metadata_comes_back_in_value_and_type(index: VectorIndex, value: Any) -> None:
    put(index, document("a", "A", {"kéy\0": value}), document("b", "B", {"kéy\0": "before"}))
    index.update_metadata({"b": {"kéy\0": value}})
    stored = index.stored(["a", "b"])
    assert repr(stored["a"].metadata) == repr(stored["b"].metadata) == repr({"kéy\0": value})
    hits = index.query(vectors("A")[0], 2, None)
    assert [repr(hit.metadata) for hit in hits] == [repr({"kéy\0": value})] * 2


@pytest.mark.parametrize(
    "doc_id", ["a\0b", "\0", "😀", "x" * 2000, " ", "a/b", "a'b"], ids=["in", "NUL", "emoji", "long", " ", "/", "'"]
)
def test_any_id_and_any_text_can_be_held_and_found(index: VectorIndex, doc_id: str) -> None:
    for text in ("", "a\0b", "\ud800 alone", "x" * 1_000_000):
        new = document(doc_id, text)
        write = index.replace if index.stored([doc_id]) else index.add
        write([new], vectors(text))
        assert index.stored([doc_id]) == {doc_id: StoredDocument(new.content_hash, {})}
        (hit,) = index.query(vectors(text)[0], 1, None)
        assert hit == SearchHit(doc_id, text.replace("\ud800", "\ufffd"), {}, approx(1.0))


def test_an_id_of_a_hundred_thousand_characters_is_held_where_it_can_be_found_again(index: VectorIndex) -> None:
    long, short = document("x" * 100_000, "text"), document("x", "other")
    if isinstance(index, ExactIndex) and is_url(index._store.location):  # an index of a server takes no such key
        with pytest.raises(InvalidInputError, match=r"doc_id 'xxx.* has 100000 bytes"):
            put(index, short, long)
        assert ids(index) == []
    else:
        put(index, short, long)
        assert ids(index) == ["x", "x" * 100_000]


def test_ids_are_told_apart_to_the_letter(index: VectorIndex) -> None:
    names = ["a", "A", "a ", "a\0", "á", "a\u0301"]
    put(index, *(document(name, name) for name in names))
    assert ids(index) == sorted(names)
    assert index.delete(["a\0"]) == 1
    assert ids(index) == sorted(set(names) - {"a\0"})


def test_documents_with_one_text_are_two(index: VectorIndex) -> None:
    put(index, document("a", "same", {"k": 1}), document("b", "same", {"k": 2}))
    assert {hit.doc_id for hit in index.query(vectors("same")[0], 5, None)} == {"a", "b"}
    index.delete(["a"])
    assert [hit.metadata for hit in index.query(vectors("same")[0], 5, None)] == [{"k": 2}]


def test_a_patch_sets_and_removes_keys_and_leaves_the_rest(index: VectorIndex) -> None:
    put(index, document("a", "A", {"year": 1, "old": "x", "kept": True}), document("b", "B", {"k": 1}))
    index.update_metadata({"a": {"year": 2, "old": None, "new": ["n"]}})
    assert tuples(index) == {
        "a": record("a", "A", {"year": 2, "kept": True, "new": ["n"]}),
        "b": record("b", "B", {"k": 1}),
    }


def test_patches_of_nothing_and_of_unknown_ids_change_nothing(index: VectorIndex) -> None:
    put(index, document("a", "A", {"year": 1}))
    index.update_metadata({})
    index.update_metadata({"missing": {"k": 1}})
    assert tuples(index) == {"a": record("a", "A", {"year": 1})}


def test_all_metadata_can_be_removed(index: VectorIndex) -> None:
    put(index, document("a", "A", {"year": 1, "tags": ["x"]}))
    index.update_metadata({"a": {"year": None, "tags": None}})
    assert tuples(index) == {"a": record("a", "A")}


def test_replace_keeps_nothing_of_the_document_before(index: VectorIndex) -> None:
    put(index, document("a", "A", {"old": 1, "tags": ["x"]}), document("b", "B"))
    index.replace([document("a", "new", {"year": 2})], vectors("new"))
    assert tuples(index) == {"a": record("a", "new", {"year": 2}), "b": record("b", "B")}
    assert index.query(vectors("A")[0], 5, {"old": 1}) == []


def test_delete_counts_what_was_there(index: VectorIndex) -> None:
    put(index, document("a", "A"), document("b", "B"))
    assert index.delete(["a", "missing", "a"]) == 1
    assert index.delete(["a"]) == 0
    assert index.delete([]) == 0
    assert ids(index) == ["b"]


def test_no_documents_are_no_work(index: VectorIndex) -> None:
    nothing = np.empty((0, 8), dtype=np.float32)
    index.add([], nothing)
    index.replace([], nothing)
    index.put([])
    assert index.count() == 0


def test_records_can_be_put_into_another_index(open_index: OpenIndex) -> None:
    first, second = open_index("first"), open_index("second")
    put(first, document("a", "A", {"year": 1}), document("b", "B"))
    put(second, document("a", "other", {"old": 1}))
    second.put(list(records(first).values()))
    for index in (first, second):
        assert tuples(index) == {"a": record("a", "A", {"year": 1}), "b": record("b", "B")}


def test_many_documents_come_in_pages(index: VectorIndex) -> None:
    n = 5500  # more than Chroma takes at once
    rows = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    names = [f"d{i:04}" for i in range(n)]
    index.add([document(name, name) for name in names], rows)
    assert (index.count(), ids(index), len(index.stored(names))) == (n, names, n)
    index.update_metadata({name: {"k": int(name[1:]) % 2} for name in names})
    assert ids(index, {"k": 1}) == names[1::2]
    assert index.delete(names[1::2]) == n // 2
    assert ids(index) == sorted(records(index)) == names[::2]


# --- searching ------------------------------------------------------------------------------


def test_hits_come_nearest_first_with_the_cosine_as_score(index: VectorIndex) -> None:
    rows = np.array([[1, 0], [3, 3], [0, 0.5], [-1, 0]], dtype=np.float32)
    index.add([document(name, name, {"k": name}) for name in ("east", "northeast", "north", "west")], rows)
    for length in (2, 1e-3, 1e3):
        assert index.query(np.array([length, 0], dtype=np.float32), 3, None) == [
            SearchHit("east", "east", {"k": "east"}, approx(1.0)),
            SearchHit("northeast", "northeast", {"k": "northeast"}, approx(0.5**0.5)),
            SearchHit("north", "north", {"k": "north"}, approx(0.0)),
        ]


def test_zeros_are_as_near_as_what_is_orthogonal(index: VectorIndex) -> None:
    rows = np.array([[0, 0], [1, 0], [-1, 0]], dtype=np.float32)
    index.add([document(name, name) for name in ("zeros", "east", "west")], rows)
    hits = index.query(rows[1], 3, None)
    assert [(hit.doc_id, hit.score) for hit in hits] == [
        ("east", approx(1.0)),
        ("zeros", approx(0.0)),
        ("west", approx(-1.0)),
    ]
    assert [hit.score for hit in index.query(rows[0], 3, None)] == [approx(0.0)] * 3


def test_more_results_than_there_are_documents_gives_them_all(index: VectorIndex) -> None:
    put(index, document("a", "A"), document("b", "B"))
    for n_results in (3, 2**40):
        assert {hit.doc_id for hit in index.query(vectors("A")[0], n_results, None)} == {"a", "b"}


FILTERED: dict[str, Any] = {"int": 1, "float": 1.0, "str": "1", "bool": True, "list": [1]}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"k": 1}, ["float", "int"]),
        ({"k": "1"}, ["str"]),
        ({"k": {"$ne": 1}}, ["bool", "list", "none", "str"]),
        ({"k": {"$in": [1]}}, ["float", "int"]),
        ({"k": {"$contains": 1}}, ["list"]),
        ({"$or": [{"k": True}, {"k": {"$gte": 0.5}}]}, ["bool", "float", "int"]),
        ({"$and": [{"k": {"$ne": "1"}}, {"k": {"$nin": [1]}}]}, ["bool", "list", "none"]),
        ({"missing": 1}, []),
    ],
    ids=repr,
)
def test_a_filter_means_the_same_in_a_search_and_in_a_list(
    index: VectorIndex, where: dict[str, Any], expected: list[str]
) -> None:
    put(index, *(document(name, name, {"k": value}) for name, value in FILTERED.items()), document("none", "none"))
    assert ids(index, where) == expected
    assert sorted(hit.doc_id for hit in index.query(vectors("q")[0], 10, where)) == expected
    assert len(index.query(vectors("q")[0], 1, where)) == min(1, len(expected))


@pytest.mark.parametrize("where", [{"k": {"$near": 1}}, {"a": 1, "b": 2}, {"k": None}, {"$and": [{"k": 1}]}], ids=repr)
def test_what_is_no_filter_is_refused(index: VectorIndex, where: dict[str, Any]) -> None:
    put(index, document("a", "A"))
    for use in (lambda: index.query(vectors("q")[0], 1, where), lambda: list(index.doc_ids(where))):
        with pytest.raises((InvalidInputError, SearchIndexError)):
            use()


def test_searches_find_all_that_it_holds(index: VectorIndex) -> None:
    put(index, *(document(f"d{i}", f"text {i}") for i in range(50)))
    index.delete(["d7"])
    assert index.unreachable() == []
    assert index.not_found(list(records(index).values())) == []


# --- dimensions and models ------------------------------------------------------------------


def test_vectors_of_another_dimension_change_nothing(open_index: OpenIndex) -> None:
    put(open_index(), document("a", "A"))
    wrong = np.ones((1, 9), dtype=np.float32)
    for index in (open_index(), open_index()):
        uses: list[Callable[[], object]] = [
            lambda index=index: index.replace([document("a", "new")], wrong),  # type: ignore[misc]
            lambda index=index: index.add([document("b")], wrong),  # type: ignore[misc]
            lambda index=index: index.query(wrong[0], 1, None),  # type: ignore[misc]
        ]
        for use in uses:
            with pytest.raises(DimensionError):
                use()
    assert tuples(open_index()) == {"a": record("a", "A")}


def test_what_was_written_is_there_when_it_is_opened_again(open_index: OpenIndex) -> None:
    put(open_index(), document("a", "A", {"k": 1}))
    again = open_index()
    assert again.identity == IDENTITY
    assert tuples(again) == {"a": record("a", "A", {"k": 1})}
    assert [hit.doc_id for hit in again.query(vectors("A")[0], 1, None)] == ["a"]


@pytest.mark.parametrize("other", [IDENTITY.renamed("other"), ModelIdentity("fake")], ids=["name", "settings"])
def test_a_collection_of_another_model_is_refused(open_index: OpenIndex, other: ModelIdentity) -> None:
    index = open_index()
    put(index, document("a", "A"))
    with pytest.raises(CollectionMismatchError) as refusal:
        open_index(identity=other)
    with pytest.raises(CollectionMismatchError) as same:
        index.check_identity(other)
    assert str(same.value) == str(refusal.value)
    assert repr(str(IDENTITY)) in str(refusal.value)
    assert repr(str(other)) in str(refusal.value)
    assert "another collection_name=" in str(refusal.value)
    assert tuples(open_index()) == {"a": record("a", "A")}


def test_a_renamed_model_keeps_every_document_and_vector(open_index: OpenIndex) -> None:
    index = open_index(identity=IDENTITY.renamed("one"))
    put(index, document("a", "A", {"k": 1}))
    for _ in range(2):
        index.rename_model("two")
        assert index.identity == IDENTITY.renamed("two")
    for opened in (index, open_index(identity=IDENTITY.renamed("two"))):
        assert tuples(opened) == {"a": record("a", "A", {"k": 1})}
        assert [hit.doc_id for hit in opened.query(vectors("A")[0], 1, None)] == ["a"]
    with pytest.raises(CollectionMismatchError):
        open_index(identity=IDENTITY.renamed("one"))


def test_the_model_of_an_empty_collection_can_be_renamed(open_index: OpenIndex) -> None:
    index = open_index()
    index.rename_model("new")
    assert index.identity == IDENTITY.renamed("new")
    put(index, document("a", "A"))
    assert tuples(open_index(identity=IDENTITY.renamed("new"))) == {"a": record("a", "A")}


def test_collections_with_the_same_ids_do_not_meet(open_index: OpenIndex) -> None:
    first, second = open_index("first"), open_index("second", IDENTITY.renamed("other"))
    put(first, document("a", "A", {"k": 1}), document("b", "B"))
    second.add([document("a", "other")], np.ones((1, 3), dtype=np.float32))
    second.update_metadata({"a": {"k": 2}, "b": {"k": 2}})
    assert second.delete(["b"]) == 0
    assert tuples(first) == {"a": record("a", "A", {"k": 1}), "b": record("b", "B")}
    assert (second.count(), second.stored(["a"])["a"].metadata) == (1, {"k": 2})
    assert {hit.doc_id for hit in first.query(vectors("B")[0], 9, None)} == {"a", "b"}


# --- all of it together ---------------------------------------------------------------------


@needs_scifact
def test_both_answer_the_same_whatever_is_done_to_them(make_index: OpenIndex) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    random = np.random.default_rng(7)
    rows, queries = np.load(SCIFACT / "minilm_docs.npy"), np.load(SCIFACT / "minilm_queries.npy")[:20]
    name = f"documents-{uuid.uuid4().hex}"
    both = [make_index(kind, name, ModelIdentity("minilm")) for kind in ("chroma", "exact")]
    held: dict[str, tuple[int, Metadata]] = {}

    def write(numbers: list[int], *, replace: bool) -> None:
        documents, at = [], [int(random.integers(len(rows))) for _ in numbers]
        for number, row in zip(numbers, at, strict=True):
            metadata: Metadata = {"n": number, "even": number % 2 == 0, "tags": [str(number % 3)]}
            held[str(number)] = (row, metadata)
            documents.append(document(str(number), f"text {row}", metadata))
        for index in both:
            (index.replace if replace else index.add)(documents, rows[at])

    write(list(range(400)), replace=False)
    for round_ in range(4):
        write(random.permutation(400)[:40].tolist(), replace=True)
        gone = [str(number) for number in random.permutation(400)[:30]]
        write([400 + 10 * round_ + i for i in range(10)], replace=False)
        patched = [str(number) for number in random.permutation(400)[:20] if str(number) in held]
        for doc_id in patched:
            held[doc_id][1]["n"] = -1
        assert len({index.delete(gone) for index in both}) == 1
        for doc_id in gone:
            held.pop(doc_id, None)
        for index in both:
            index.update_metadata({doc_id: {"n": -1} for doc_id in patched})
            expected = {doc_id: ("", metadata) for doc_id, (_, metadata) in held.items()}
            assert {key: ("", stored.metadata) for key, stored in index.stored(ids(index)).items()} == expected
        for where in (None, {"even": True}, {"$and": [{"n": {"$gte": 0}}, {"tags": {"$contains": "1"}}]}):
            check_same_hits(both, rows, queries, held, where)


def check_same_hits(
    both: list[VectorIndex], rows: Vectors, queries: Vectors, held: dict[str, Any], where: dict[str, Any] | None
) -> None:
    """Both find the same, and the exact one what there is to find."""
    wanted = {doc_id for doc_id, (_, metadata) in held.items() if where is None or compile_filter(where)(metadata)}
    n_same = 0
    for query in queries:
        chromas, exact = (index.query(query, 10, where) for index in both)
        scores = {doc_id: float(rows[held[doc_id][0]] @ query) for doc_id in wanted}
        assert [hit.score for hit in exact] == pytest.approx(sorted(scores.values(), reverse=True)[:10], abs=1e-5)
        for hit in (*exact, *chromas):
            assert hit.score == pytest.approx(scores[hit.doc_id], abs=1e-5)
            assert hit.metadata == held[hit.doc_id][1]
        n_same += len({hit.doc_id for hit in exact} & {hit.doc_id for hit in chromas})
    assert n_same >= 0.98 * 10 * len(queries)
