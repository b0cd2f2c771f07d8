"""What holds for every text, id, setting and batch that there is."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embstore import ModelIdentity, content_hash

texts = st.text(st.characters(), max_size=20)  # lone surrogates too
setting_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
)
model_settings = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key not in ("role", "dtype")), setting_values, max_size=4
)


def typed(value: object) -> str:
    """A value with its type, so that 1, 1.0 and True are three."""
    return f"{type(value).__name__} {value!r}"


@given(texts)
def test_a_hash_is_that_of_the_bytes(text: str) -> None:
    assert content_hash(text) == hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@given(texts, texts)
def test_two_texts_have_one_hash_only_where_they_are_the_same(one: str, other: str) -> None:
    assert (content_hash(one) == content_hash(other)) == (one == other)


@given(model_settings, model_settings)
def test_two_settings_are_one_identity_only_where_they_are_the_same(one: dict[str, str], other: dict[str, str]) -> None:
    same = {key: typed(value) for key, value in one.items()} == {key: typed(value) for key, value in other.items()}
    assert (ModelIdentity.of("m", one) == ModelIdentity.of("m", other)) == same


@given(model_settings, st.randoms())
def test_canonical_json_is_the_same_in_any_order_and_reads_back(settings: dict[str, str], random: object) -> None:
    items = list(settings.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    identity = ModelIdentity.of("m", dict(items))
    assert identity == ModelIdentity.of("m", settings)
    assert ModelIdentity("m", identity.settings_json).settings == settings
    assert json.dumps(json.loads(identity.settings_json), sort_keys=True, separators=(",", ":")) == (
        identity.settings_json
    )


@given(st.integers(0, 2**32), st.sampled_from([2, 3, 8, 384]))
def test_float16_turns_vectors_by_less_than_a_thousandth(seed: int, dim: int) -> None:
    one, other = np.random.default_rng(seed).standard_normal((2, dim))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    one, other = (vector / np.linalg.norm(vector) for vector in (one, other))
    rounded_one, rounded_other = (vector.astype(np.float16).astype(np.float64) for vector in (one, other))
    assert abs(cosine(one, other) - cosine(rounded_one, rounded_other)) < 0.001
