"""Filters on metadata, each of their rules by itself and all of them against real Chroma."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.search.base import HASH_KEY, Metadata
from embstore.search.filters import compile_filter

VALUES: dict[str, Any] = {
    "int": 1,
    "float": 1.0,
    "half": 1.5,
    "str": "1",
    "true": True,
    "false": False,
    "ints": [1, 2],
    "floats": [1.0],
    "strs": ["1", "b"],
    "bools": [True],
}
DOCUMENTS: dict[str, Metadata] = {name: {"k": value} for name, value in VALUES.items()}
DOCUMENTS["none"] = {"other": 1}


def let_through(where: dict[str, Any]) -> set[str]:
    predicate = compile_filter(where)
    return {name for name, metadata in DOCUMENTS.items() if predicate(metadata)}


def others(*names: str) -> set[str]:
    return DOCUMENTS.keys() - set(names)


# --- the rules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operand", "expected"),
    [
        (1, {"int", "float"}),
        (1.0, {"int", "float"}),
        ("1", {"str"}),
        (True, {"true"}),
        (False, {"false"}),
        (2, set()),
        ("", set()),
    ],
)
def test_a_str_a_bool_and_a_number_never_match_each_other(operand: Any, expected: set[str]) -> None:
    assert let_through({"k": operand}) == let_through({"k": {"$eq": operand}}) == expected
    assert let_through({"k": {"$ne": operand}}) == others(*expected)


@pytest.mark.parametrize(
    ("operator", "operand", "expected"),
    [
        ("$gt", 1, {"half"}),
        ("$gte", 1, {"int", "float", "half"}),
        ("$lt", 2, {"int", "float", "half"}),
        ("$lte", 1, {"int", "float"}),
        ("$gt", -1, {"int", "float", "half"}),
        ("$lt", 1, set()),
    ],
)
def test_ranges_take_numbers_of_either_kind(operator: str, operand: Any, expected: set[str]) -> None:
    assert let_through({"k": {operator: operand}}) == let_through({"k": {operator: float(operand)}}) == expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("$eq", {"int", "half"}),
        ("$lt", {"float"}),
        ("$lte", {"int", "float", "half"}),
        ("$gt", set()),
        ("$gte", {"int", "half"}),
    ],
)
def test_the_fraction_of_an_operand_is_cut_off_for_ints(operator: str, expected: set[str]) -> None:
    assert let_through({"k": {operator: 1.5}}) == expected


def test_a_fraction_is_cut_off_towards_zero() -> None:
    below = compile_filter({"k": {"$eq": -1.5}})
    assert (below({"k": -1}), below({"k": -2}), below({"k": -1.5})) == (True, False, True)


def test_operands_beyond_64_bits_stand_for_the_last_int() -> None:
    assert compile_filter({"k": {"$eq": 1e300}})({"k": 2**63 - 1})
    assert compile_filter({"k": {"$lte": -1e300}})({"k": -(2**63)})


def test_in_matches_what_one_of_the_values_matches() -> None:
    for operand in ([1, 7], [1.0], [1.0, -1.0]):
        assert let_through({"k": {"$in": operand}}) == {"int", "float"}
        assert let_through({"k": {"$nin": operand}}) == others("int", "float")
    assert let_through({"k": {"$in": [1.5]}}) == {"int", "half"}
    assert let_through({"k": {"$in": ["1", "2"]}}) == {"str"}
    assert let_through({"k": {"$in": [True, False]}}) == {"true", "false"}


def test_lists_match_contains_alone_which_tells_ints_from_floats() -> None:
    assert let_through({"k": {"$contains": 1}}) == {"ints"}
    assert let_through({"k": {"$contains": 1.0}}) == {"floats"}
    assert let_through({"k": {"$contains": "1"}}) == {"strs"}
    assert let_through({"k": {"$contains": True}}) == {"bools"}
    assert let_through({"k": {"$not_contains": 1}}) == others("ints")


def test_what_negates_includes_documents_without_the_key() -> None:
    for where in ({"$ne": "x"}, {"$nin": ["x"]}, {"$not_contains": "x"}):
        assert let_through({"k": where}) == set(DOCUMENTS)
    for where in ({"$eq": 1}, {"$gte": -9}, {"$in": [1]}, {"$contains": 1}):
        assert "none" not in let_through({"k": where})


def test_filters_are_joined() -> None:
    one, other = {"k": {"$gte": 1}}, {"k": {"$ne": 1}}
    assert let_through({"$and": [one, other]}) == {"half"}
    assert let_through({"$or": [one, {"other": 1}]}) == {"int", "float", "half", "none"}
    assert let_through({"$and": [{"$or": [one, {"other": 1}]}, other]}) == {"half", "none"}


def test_numbers_of_numpy_that_are_pythons_too_are_taken() -> None:
    class Year(IntEnum):
        ONE = 1

    assert let_through({"k": np.float64(1)}) == let_through({"k": Year.ONE}) == {"int", "float"}
    assert let_through({"k": {"$in": [np.str_("1")]}}) == {"str"}


# --- what is no filter ----------------------------------------------------------------------

FAULTS: list[Any] = [
    *({"a": 1, "b": 1}, {"a": {}}, {"a": {"$gt": 1, "$lt": 2}}, {"a": None}, {"a": [1]}, {"a": (1,)}, {1: 1}),
    *({"$and": []}, {"$or": [{"a": 1}]}, {"$and": {"a": 1}}, {"$and": ({"a": 1}, {"b": 1})}, {"$and": [{}, {}]}),
    *({"$or": [{"a": 1}, 1]}, {"$not": [{"a": 1}, {"a": 2}]}, {"$in": [1]}, {"$contains": "x"}, {"$gt": 1}),
    *({"a": {"$near": 1}}, {"a": {"$regex": "x"}}, {"a": {"gt": 1}}, {"a": {"$eq": [1]}}, {"a": {"$eq": None}}),
    *({"a": {"$gt": "x"}}, {"a": {"$lte": True}}, {"a": {"$gt": math.nan}}, {"a": {"$lt": math.inf}}),
    *({"a": math.nan}, {"a": {"$ne": -math.inf}}, {"a": 2**63}, {"a": {"$in": [-(2**63), 2**63]}}),
    *({"a": {"$in": []}}, {"a": {"$nin": [1, "x"]}}, {"a": {"$in": [1, 1.0]}}, {"a": {"$in": [1, True]}}),
    *({"a": {"$in": "x"}}, {"a": {"$in": (1,)}}, {"a": {"$nin": [[1]]}}, {"a": {"$in": [None]}}),
    *({"a": {"$contains": [1]}}, {"a": {"$contains": None}}, {"a": np.int64(1)}, {"a": b"x"}),
    *({"a": "\ud800"}, {"\ud800": 1}, {"a": {"$in": ["\ud800"]}}),
]
RESERVED: list[Any] = [{HASH_KEY: "x"}, {"#document": {"$contains": "x"}}, {"chroma:document": "x"}]


@pytest.mark.parametrize("where", [*FAULTS, *RESERVED], ids=repr)
def test_what_is_no_filter_is_refused_by_name(where: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^where: "):
        compile_filter(where)
    with pytest.raises(InvalidInputError, match=r"^scope: "):
        compile_filter({"$or": [{"a": 1}, where]}, "scope")


@pytest.mark.parametrize("where", [[{"a": 1}], "a", 1], ids=repr)
def test_a_filter_is_a_dict(where: Any) -> None:
    with pytest.raises(InvalidTypeError, match="where is "):
        compile_filter(where)


def test_an_empty_filter_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="where is empty"):
        compile_filter({})


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"k": 1}
    for _ in range(levels - 1):
        where = {"$and": [where, {"k": {"$in": [1]}}]}
    return where


def test_filters_can_be_nested_but_not_without_end() -> None:
    assert let_through(nested(60)) == {"int", "float"}
    for levels in (61, 100_000):
        with pytest.raises(InvalidInputError, match="more than 60 filters are nested"):
            compile_filter(nested(levels))


# --- the same as Chroma ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def collection() -> Iterator[Any]:
    """A collection in memory, in which records come and go."""
    chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")
    client = chromadb.EphemeralClient()
    name = f"filters-{uuid.uuid4()}"
    yield client.create_collection(name, embedding_function=None)
    client.delete_collection(name)


def fill(collection: Any, metadatas: list[Metadata]) -> None:
    """Put other records into the collection."""
    if there := collection.get(include=[])["ids"]:
        collection.delete(ids=there)
    ids = [str(i) for i in range(len(metadatas))]
    vectors = np.ones((len(ids), 2), dtype=np.float32)
    collection.add(ids=ids, embeddings=vectors, metadatas=[metadata or None for metadata in metadatas])


def answers(collection: Any, metadatas: list[Metadata], where: dict[str, Any]) -> tuple[set[int], set[int]]:
    """What Chroma and what we let through."""
    predicate = compile_filter(where)
    chromas = {int(doc_id) for doc_id in collection.get(where=where, include=[])["ids"]}
    return chromas, {i for i, metadata in enumerate(metadatas) if predicate(metadata)}


def one(key: st.SearchStrategy[str], value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dict with one item."""
    return st.builds(lambda key, value: {key: value}, key, value)


# Values that meet each other, and between which numbers are rounded, cut off or run over.
SOME_INTS = [0, 1, -1, 2, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
SOME_FLOATS = [0.0, 1.0, -1.0, 1.5, -1.5, 0.5, 0.1 + 0.2, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 1e300, 5e-324]
SOME_STRS = ["", "1", "1.0", "True", "x", "X", "é", "e\u0301", "a\0b", "a"]
SOME: list[Any] = [*SOME_INTS, *SOME_FLOATS, *SOME_STRS, True, False]
SOME_LISTS: list[Any] = [*([value] for value in SOME), [1, 2], [1.0, 1.5], ["x", "x", "X"], [True, False]]
EVERY: list[dict[str, Any]] = [
    *SOME,
    *({operator: value} for operator in ("$eq", "$ne", "$contains", "$not_contains") for value in SOME),
    *({operator: value} for operator in ("$gt", "$gte", "$lt", "$lte") for value in [*SOME_INTS, *SOME_FLOATS]),
    *({operator: values} for operator in ("$in", "$nin") for values in SOME_LISTS),
]


def test_every_operator_with_every_kind_of_value_lets_through_what_chroma_lets_through(collection: Any) -> None:
    metadatas: list[Metadata] = [*({"k": value} for value in [*SOME, *SOME_LISTS]), {"other": 1}, {}]
    fill(collection, metadatas)
    for comparison in EVERY:
        chromas, ours = answers(collection, metadatas, {"k": comparison})
        assert ours == chromas, comparison


KEYS = st.sampled_from(["a", "b", "é\0"])
INTS = st.sampled_from(SOME_INTS) | st.integers(-(2**63), 2**63 - 1)
FLOATS = st.sampled_from(SOME_FLOATS) | st.floats(allow_nan=False, allow_infinity=False)
STRS = st.sampled_from(SOME_STRS) | st.text(max_size=3)
SCALARS = st.sampled_from(SOME) | INTS | FLOATS | STRS
LISTS = st.one_of(st.lists(kind, min_size=1, max_size=3) for kind in (INTS, FLOATS, STRS, st.booleans()))
METADATAS = st.lists(st.dictionaries(KEYS, SCALARS | LISTS, max_size=3), min_size=1, max_size=8)
OPERATIONS = st.one_of(
    one(st.sampled_from(["$eq", "$ne", "$contains", "$not_contains"]), SCALARS),
    one(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), INTS | FLOATS),
    one(st.sampled_from(["$in", "$nin"]), LISTS),
)
FILTERS = st.recursive(
    one(KEYS, SCALARS | OPERATIONS),
    lambda inner: one(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=2, max_size=3)),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadatas=METADATAS, wheres=st.lists(FILTERS, min_size=1, max_size=12))
def test_a_filter_lets_through_what_chroma_lets_through(
    collection: Any, metadatas: list[Metadata], wheres: list[dict[str, Any]]
) -> None:
    fill(collection, metadatas)
    for where in wheres:
        chromas, ours = answers(collection, metadatas, where)
        assert ours == chromas, where


@pytest.mark.parametrize("where", FAULTS, ids=repr)
def test_chroma_refuses_what_is_no_filter_too(collection: Any, where: Any) -> None:
    fill(collection, [{"a": 1}])
    with pytest.raises(Exception, match=r"(?i)where|operator|operand|expected"):
        collection.get(where=where)
