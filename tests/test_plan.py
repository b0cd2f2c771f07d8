"""What a re-index would do, decided without an index."""

from __future__ import annotations

import pytest

from embstore import content_hash
from embstore.search.base import Document, Metadata, MetadataPatch, StoredDocument
from embstore.search.plan import Plan, make_plan, metadata_patch


def document(doc_id: str, text: str = "text", **metadata: str | int) -> Document:
    return Document(doc_id, text, dict(metadata))


def stored(text: str = "text", **metadata: str | int) -> StoredDocument:
    return StoredDocument(content_hash(text).hex(), dict(metadata))


def test_an_id_that_is_not_stored_is_added() -> None:
    assert make_plan([document("a")], {}) == Plan(added=[document("a")])


def test_another_text_is_an_update_whatever_the_metadata() -> None:
    new = document("a", "new", year=2)
    assert make_plan([new], {"a": stored("old", year=1)}) == Plan(updated=[new])


def test_other_metadata_is_a_patch() -> None:
    plan = make_plan([document("a", year=2, kind="x")], {"a": stored(year=1, place="here", kind="x")})
    assert plan == Plan(metadata_patches={"a": {"year": 2, "place": None}})


def test_the_same_text_and_metadata_are_unchanged() -> None:
    assert make_plan([document("a", year=1)], {"a": stored(year=1)}) == Plan(unchanged=[document("a", year=1)])


def test_a_record_of_another_program_is_updated() -> None:
    assert make_plan([document("a")], {"a": StoredDocument(None, {})}) == Plan(updated=[document("a")])


def test_documents_keep_the_order_they_were_given_in() -> None:
    given = [document("b"), document("d", "new"), document("a"), document("c", "new")]
    plan = make_plan(given, {"c": stored(), "d": stored()})
    assert plan == Plan(added=[document("b"), document("a")], updated=[document("d", "new"), document("c", "new")])


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"k": 1}, {"k": 1}, {}),
        ({"k": 1}, {"k": 1.0}, {"k": 1.0}),
        ({"k": 1}, {"k": True}, {"k": True}),
        ({"k": 0.0}, {"k": False}, {"k": False}),
        ({"k": [1, 2]}, {"k": [1, 2]}, {}),
        ({"k": [1, 2]}, {"k": [2, 1]}, {"k": [2, 1]}),
        ({"k": [1, 2]}, {"k": [1.0, 2.0]}, {"k": [1.0, 2.0]}),
        ({"k": [1, 0]}, {"k": [True, False]}, {"k": [True, False]}),
        ({"k": ["a"]}, {"k": "a"}, {"k": "a"}),
        ({"kept": "a", "gone": 1}, {"kept": "a", "new": 2}, {"gone": None, "new": 2}),
    ],
)
def test_a_patch_holds_what_differs_in_value_or_type(old: Metadata, new: Metadata, patch: MetadataPatch) -> None:
    assert metadata_patch(old, new) == patch
