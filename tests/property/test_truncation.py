"""What holds for the leading values of any vectors."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embstore.codec import Vectors
from embstore.truncation import truncated

values = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-38, 3.4028234663852886e38, -3.4028234663852886e38, 1.0]),
)
shapes = st.tuples(st.integers(0, 6), st.integers(1, 9))
matrices = hnp.arrays(np.float32, shapes, elements=values)


def cut(vectors: Vectors, data: st.DataObject) -> tuple[Vectors, Vectors]:
    """Leading values of any number, as they are in float64 and as they are given."""
    dim = data.draw(st.integers(1, vectors.shape[1]))
    return vectors[:, :dim].astype(np.float64), truncated(vectors, dim)


@given(matrices, st.data())
def test_each_row_has_length_1_or_is_zero(vectors: Vectors, data: st.DataObject) -> None:
    leading, shorter = cut(vectors, data)
    assert (shorter.shape, shorter.dtype, shorter.flags.c_contiguous) == (leading.shape, np.float32, True)
    lengths = np.linalg.norm(shorter.astype(np.float64), axis=1)
    assert np.allclose(lengths, leading.any(axis=1), rtol=0, atol=1e-6)


@given(matrices, st.data())
def test_each_row_has_the_direction_of_the_leading_values(vectors: Vectors, data: st.DataObject) -> None:
    leading, shorter = cut(vectors, data)
    lengths = np.linalg.norm(leading, axis=1, keepdims=True)
    # Rounded once: half a unit in the last place of a float32, or half of the smallest one.
    assert np.allclose(shorter * lengths, leading, rtol=2.0**-23, atol=2.0**-149 * lengths.max(initial=1.0))
    assert not np.any(shorter * leading < 0)


@given(matrices, st.data())
def test_a_row_does_not_depend_on_the_others_nor_on_what_is_cut_off(vectors: Vectors, data: st.DataObject) -> None:
    leading, shorter = cut(vectors, data)
    dim = leading.shape[1]
    for row in range(len(vectors)):
        assert shorter[row].tobytes() == truncated(vectors[row : row + 1, :dim].copy(), dim)[0].tobytes()
