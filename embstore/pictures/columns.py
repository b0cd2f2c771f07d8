"""Metadata as a page colours by them: numbers on a scale, anything else in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from embstore.errors import InvalidInputError
from embstore.pictures.page import as_float32, packed
from embstore.search.base import Metadata

_MOST_KEYS = 30  # to choose from; those that most documents have
_FEW_NUMBERS = 10  # distinct ones, which are groups
_VALUE_CHARS = 120


def columns_of(metadatas: Sequence[Metadata], color_by: str | None = None) -> list[dict[str, Any]]:
    """Give the metadata by key, as the page reads them.

    Parameters
    ----------
    metadatas : sequence of n dict
    color_by : str, optional
        A key that has to be among them.

    Returns
    -------
    list of dict
        Of numbers: "name", and "numbers", n packed float32, NaN where a document has none. Of anything else: "name",
        "values", the distinct ones as text, "codes", n packed int32, which of them each has, -1 for none, and
        "ordered", whether they are numbers.

    Raises
    ------
    InvalidInputError
        No document has `color_by`.
    """
    counts = Counter(key for metadata in metadatas for key in metadata)
    if color_by is not None and color_by not in counts:
        there = ", ".join(map(repr, sorted(counts)[:_MOST_KEYS])) or "none"
        raise InvalidInputError(f"no document has the metadata key {color_by!r:.80} to colour by; there are: {there}")
    keys = [key for key, _ in counts.most_common(_MOST_KEYS)]
    if color_by is not None and color_by not in keys:
        keys.append(color_by)
    return [_column(key, [metadata.get(key) for metadata in metadatas]) for key in sorted(keys)]


def _column(name: str, values: Sequence[object]) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    are_numbers = all(type(value) in (int, float) for value in present)
    if are_numbers and len(set(present)) > _FEW_NUMBERS:
        numbers = [float("nan") if value is None else _as_float(value) for value in values]
        return {"name": name, "numbers": packed(as_float32(numbers))}
    distinct = list(dict.fromkeys(map(_key, present)))
    if are_numbers:
        distinct.sort(key=lambda key: key[1])
    code_of = {key: code for code, key in enumerate(distinct)}
    codes = [-1 if value is None else code_of[_key(value)] for value in values]
    return {
        "name": name,
        "values": [_as_text(value) for _, value in distinct],
        "codes": packed(np.array(codes, dtype=np.int32)),
        "ordered": are_numbers,
    }


def _key(value: object) -> tuple[bool, Any]:
    """Tell values apart that Python says are equal: True and 1."""
    return isinstance(value, bool), tuple(value) if isinstance(value, list) else value


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= _VALUE_CHARS else text[: _VALUE_CHARS - 1] + "…"
