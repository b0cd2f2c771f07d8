"""What an engine takes and what it refuses, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore.errors import EmbstoreError, InvalidInputError, InvalidTypeError
from embstore.search.base import HASH_KEY, Document
from embstore.search.given import GivenDocuments, Window
from embstore.search.inputs import (
    check_collection_name,
    check_document,
    check_folder,
    check_query,
)

REFUSED = (InvalidInputError, InvalidTypeError)


def doc_ids(given: GivenDocuments) -> list[str]:
    return [document.doc_id for window in given for document in window.documents]


def test_parallel_lists_become_documents() -> None:
    (window,) = GivenDocuments(("A", "B", "A"), iter(["a", "b", "a"]), [{"k": 1}, None, {"k": 1}])
    assert window == Window([Document("a", "A", {"k": 1}), Document("b", "B", {})], n_repeated=1)


def test_ids_count_up_where_none_are_given() -> None:
    assert doc_ids(GivenDocuments(["A", "B"])) == ["doc_0", "doc_1"]
    assert doc_ids(GivenDocuments(str(i) for i in range(3000))) == [f"doc_{i}" for i in range(3000)]


def test_metadata_is_copied() -> None:
    metadata = {"k": [1]}
    document = check_document("a", "A", metadata)
    metadata["k"].append(2)
    metadata["new"] = [3]
    assert document.metadata == {"k": [1]}


@pytest.mark.parametrize(
    "metadata",
    [
        *([("k", 1)], "k", 7, {1: "x"}, {"": "x"}, {"chroma:x": 1}, {"#x": 1}, {"$x": 1}, {HASH_KEY: "x"}),
        *({"\ud800": 1}, {"k": "\ud800"}, {"k": ["\ud800"]}, {"k": None}, {"k": float("nan")}, {"k": float("inf")}),
        *({"k": 2**63}, {"k": -(2**63) - 1}, {"k": b"x"}, {"k": {}}, {"k": []}, {"k": [1, "x"]}, {"k": [1, True]}),
        *({"k": [[1]]}, {"k": (1, 2)}, {"k": [None]}, {"k": [float("nan")]}, {"k": [2**63]}),
        *({"k": np.float64(1)}, {"k": np.int64(1)}, {"k": np.str_("x")}, {"k": np.array([1])}),
    ],
    ids=repr,
)
def test_metadata_that_would_not_come_back_as_it_is_is_refused_by_the_documents_name(metadata: Any) -> None:
    with pytest.raises(REFUSED, match="'b'"):
        GivenDocuments(["A", "B"], ["a", "b"], [{"fine": 1}, metadata])
    with pytest.raises(REFUSED, match="'b'"):
        check_document("b", "B", metadata)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("text",), InvalidTypeError),
        ((b"text",), InvalidTypeError),
        ((None,), InvalidTypeError),
        ((["A", None],), InvalidTypeError),
        ((["A"], "a"), InvalidTypeError),
        ((["A"], [1]), InvalidTypeError),
        ((["A"], [""]), InvalidInputError),
        ((["A"], ["\ud800"]), InvalidInputError),
        ((["A"], []), InvalidInputError),
        ((["A"], ["a", "b"]), InvalidInputError),
        ((["A"], None, []), InvalidInputError),
        ((["A"], None, [{}, {}]), InvalidInputError),
        ((["A"], None, {"k": 1}), InvalidTypeError),
        ((["A"], None, 1), InvalidTypeError),
    ],
    ids=repr,
)
def test_lists_that_do_not_belong_together_are_refused(arguments: Any, error: type[EmbstoreError]) -> None:
    with pytest.raises(error):
        GivenDocuments(*arguments)


@pytest.mark.parametrize(
    ("texts", "metadatas"),
    [
        (["A", "B"], None),
        (["A", "A"], [{"k": 1}, {"k": True}]),
        (["A", "A"], [{"k": 1}, {"k": 1.0}]),
        (["A", "A"], [{"k": 1}, None]),
    ],
)
def test_an_id_given_twice_with_different_contents_is_refused_by_name(texts: list[str], metadatas: Any) -> None:
    with pytest.raises(InvalidInputError, match="doc_id 'twice' is given twice"):
        GivenDocuments(texts, ["twice", "twice"], metadatas)


@pytest.mark.parametrize(("doc_id", "text"), [(None, "A"), ("", "A"), ("\ud800", "A"), ("a", None), ("a", b"A")])
def test_a_single_document_is_checked_the_same(doc_id: Any, text: Any) -> None:
    with pytest.raises(REFUSED):
        check_document(doc_id, text, None)


@pytest.mark.parametrize(
    "where",
    [
        {HASH_KEY: "x"},
        {HASH_KEY: {"$ne": "x"}},
        {"$or": [{"a": 1}, {HASH_KEY: "x"}]},
        {"$and": [{"a": 1}, {"$or": [{"b": 1}, {HASH_KEY: {"$in": ["x"]}}]}]},
        {},
        [{"a": 1}],
        "a",
    ],
    ids=repr,
)
def test_a_filter_that_is_none_or_asks_for_the_reserved_key_is_refused(where: Any) -> None:
    with pytest.raises(REFUSED, match="where"):
        check_query("q", 10, where)


@pytest.mark.parametrize(
    ("query", "n_results"), [(None, 1), (["q"], 1), (b"q", 1), ("q", 0), ("q", -1), ("q", True), ("q", 1.0), ("q", "1")]
)
def test_a_query_is_a_str_and_asks_for_a_number_of_results(query: Any, n_results: Any) -> None:
    with pytest.raises(REFUSED):
        check_query(query, n_results, None)


def test_a_query_may_be_any_text_and_have_any_other_filter() -> None:
    check_query("", 1, None)
    check_query("\ud800", 10**9, {"$and": [{"a": 1}, {"b": {"$in": [HASH_KEY, "x"]}}]})


@pytest.mark.parametrize("name", ["abc", "a.b", "a-b_c", "0" * 512])
def test_a_collection_may_have_any_name_that_chroma_takes(name: str) -> None:
    assert check_collection_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "ab", "a" * 513, "-ab", "ab_", "a b", "a..b", "äbc", "abc\n", "a/b", None, b"abc"]
)
def test_a_collection_may_have_no_other(name: Any) -> None:
    with pytest.raises(REFUSED, match="collection_name"):
        check_collection_name(name)


def test_a_path_may_be_a_str_or_a_path() -> None:
    assert check_folder("a/b") == check_folder(Path("a/b")) == Path("a/b")


@pytest.mark.parametrize("path", ["", "a\0b", 7, None, b"x"])
def test_a_path_may_be_nothing_else(path: Any) -> None:
    with pytest.raises(REFUSED, match="path is"):
        check_folder(path)
