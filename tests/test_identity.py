"""Who made a vector, and of which text."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from typing import Any

import pytest

from embstore import InvalidInputError, InvalidTypeError, ModelIdentity, content_hash
from embstore.identity import canonical_json


@pytest.mark.parametrize("text", ["", "text", "größer", "a\0b", "🙂", "x" * 100_000])
def test_the_content_hash_is_the_sha256_of_the_utf8_bytes(text: str) -> None:
    assert content_hash(text) == hashlib.sha256(text.encode("utf-8")).digest()


def test_the_content_hash_is_what_sha256sum_prints() -> None:
    assert content_hash("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_texts_that_only_look_the_same_are_two_contents() -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert content_hash(composed) != content_hash(decomposed)


def test_a_lone_surrogate_is_hashed_as_its_three_bytes() -> None:
    assert content_hash("a\ud800") == hashlib.sha256(b"a\xed\xa0\x80").digest()


def test_two_surrogates_are_not_the_character_that_they_spell() -> None:
    assert content_hash("\ud83d\ude42") != content_hash("🙂")


@pytest.mark.parametrize("text", [None, 1, b"text", ["text"]])
def test_what_is_no_text_has_no_hash(text: Any) -> None:
    with pytest.raises(InvalidTypeError, match=type(text).__name__):
        content_hash(text)


def test_canonical_json_has_sorted_keys_no_spaces_and_ascii_only() -> None:
    settings = {"b": True, "a": None, "ü": "é", "c": 1, "d": 1.0, "e": -0.0}
    assert canonical_json(settings) == '{"a":null,"b":true,"c":1,"d":1.0,"e":-0.0,"\\u00fc":"\\u00e9"}'


@pytest.mark.parametrize("values", [(1, 1.0, True), (0, 0.0, -0.0, False), (None, "null", ""), ("1", 1)])
def test_values_that_compare_equal_or_print_alike_are_different_settings(values: tuple[Any, ...]) -> None:
    assert len({ModelIdentity.of("model", {"setting": value}) for value in values}) == len(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, [1], {"a": 1}, b"bytes", object()])
def test_a_setting_that_is_no_finite_json_scalar_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="setting"):
        ModelIdentity.of("model", {"setting": value})


def test_a_setting_whose_key_is_no_str_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="model setting 1"):
        ModelIdentity.of("model", {1: "a"})  # type: ignore[dict-item]


def test_the_order_of_settings_does_not_matter() -> None:
    assert ModelIdentity.of("model", {"a": 1, "b": 2}) == ModelIdentity.of("model", {"b": 2, "a": 1})


def test_joined_names_and_settings_are_not_confused() -> None:
    assert ModelIdentity.of("model", {"a": "b,c:d"}) != ModelIdentity.of("model", {"a": "b", "c": "d"})
    assert ModelIdentity.of("model {}") != ModelIdentity.of("model")


def test_the_role_document_is_never_written_and_query_is() -> None:
    assert ModelIdentity.of("model", role="document") == ModelIdentity("model", "{}")
    assert ModelIdentity.of("model", {"a": 1}, role="query") == ModelIdentity("model", '{"a":1,"role":"query"}')


@pytest.mark.parametrize(("setting", "role"), [("mine", "document"), ("mine", "query")])
def test_a_role_among_the_settings_that_contradicts_is_refused(setting: str, role: Any) -> None:
    with pytest.raises(InvalidInputError, match="role"):
        ModelIdentity.of("model", {"role": setting}, role=role)


def test_the_settings_of_a_query_identity_give_it_again() -> None:
    query = ModelIdentity.of("model", {"a": 1}, role="query")
    assert ModelIdentity.of("model", query.settings) == ModelIdentity.of("model", query.settings, role="query") == query


def test_the_format_float32_is_never_written_and_float16_is() -> None:
    whole, half = ModelIdentity.of("model", {"a": 1, "dtype": "float32"}), ModelIdentity("model", '{"dtype":"float16"}')
    assert (whole, whole.dtype) == (ModelIdentity.of("model", {"a": 1}), "float32")
    assert (ModelIdentity.of("model", {"dtype": "float16"}), half.dtype) == (half, "float16")


def test_the_same_model_in_another_format_is_another_identity() -> None:
    whole = ModelIdentity.of("model", {"a": 1}, role="query")
    half = whole.stored_as("float16")
    assert half == ModelIdentity("model", '{"a":1,"dtype":"float16","role":"query"}')
    assert half != whole == half.stored_as("float32")
    assert half.stored_as("float16") == half == half.renamed("new").renamed("model")


@pytest.mark.parametrize("dtype", ['"float32"', '"bfloat16"', "null", "false", '""', "1"])
def test_settings_that_name_no_other_format_are_refused_as_json(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting 'dtype' is embstore's own"):
        ModelIdentity("model", f'{{"dtype":{dtype}}}')


def test_renaming_keeps_the_settings() -> None:
    identity = ModelIdentity.of("old", {"a": 1}, role="query")
    assert identity.renamed("new") == ModelIdentity("new", '{"a":1,"role":"query"}')
    assert identity.settings == {"a": 1, "role": "query"}


def test_an_identity_is_written_as_name_and_settings() -> None:
    assert [str(ModelIdentity("model")), str(ModelIdentity.of("model", {"a": 1}))] == ["model", 'model {"a":1}']


@pytest.mark.parametrize("name", ["", "a\ud800"])
def test_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="model_name"):
        ModelIdentity(name)


@pytest.mark.parametrize("name", [None, 1, b"model"])
def test_a_name_that_is_no_str_is_refused(name: Any) -> None:
    with pytest.raises(InvalidTypeError, match="model_name"):
        ModelIdentity(name)
