"""Filters on metadata, written as Chroma's `where` and answered as Chroma 1.5 answers them.

``{"year": {"$gte": 2020}}``: one key a dict, and one operator a key; ``{"year": 2020}`` is short for ``$eq``. Several
are joined by ``{"$and": [...]}`` and ``{"$or": [...]}``, each with two or more.

- A str, a bool and a number never match each other. 1 and 1.0 are one number, except to ``$contains``.
- A fractional operand is compared with a stored int as if its fraction were cut off: ``{"$lt": 1.5}`` leaves 1 out,
  and ``{"$eq": 1.5}`` lets it through. Store floats where fractions matter.
- ``$ne``, ``$nin`` and ``$not_contains`` let through what the others leave out, documents without the key too.
- A list is matched by ``$contains`` alone, and ``$contains`` matches nothing else.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable
from typing import Any

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.identity import is_storable
from embstore.search.base import HASH_KEY, Metadata, Where

Predicate = Callable[[Metadata], bool]
_Scalar = str | int | float | bool
_Test = Callable[[Any], bool]  # of a stored value, or of None where there is none

INT64 = range(-(2**63), 2**63)
RESERVED_KEY_PREFIXES = ("chroma:", "#", "$")  # Chroma drops metadata under the first silently and refuses the others

_MOST_LEVELS = 60  # Chroma reads no more than 63
_JOINED: dict[str, Callable[[Any], bool]] = {"$and": all, "$or": any}
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_NEGATED = {"$ne": "$eq", "$nin": "$in", "$not_contains": "$contains"}
_OPERATORS = ("$eq", "$ne", *_COMPARED, "$in", "$nin", "$contains", "$not_contains")


def compile_filter(where: Where, name: str = "where") -> Predicate:
    """Turn a filter into a function that tells whether it lets a document's metadata through.

    Parameters
    ----------
    where : dict
    name : str
        What the caller calls it, for messages.

    Returns
    -------
    callable

    Raises
    ------
    InvalidTypeError
        It is no dict.
    InvalidInputError
        A part of it is no filter; the message names the part.
    """
    if not isinstance(where, dict):
        raise InvalidTypeError(f"{name} is {type(where).__name__}, not a dict or None: {where!r:.80}")
    if not where:
        raise InvalidInputError(f"{name} is empty; give None for all documents")
    try:
        return _compile(where, 1)
    except _FaultError as fault:
        raise InvalidInputError(f"{name}: {reprlib.repr(fault.part)}: {fault}", where=fault.part) from None


def _compile(part: Any, level: int) -> Predicate:
    if level > _MOST_LEVELS:
        raise _FaultError(part, f"more than {_MOST_LEVELS} filters are nested")
    key, value = _only_item(part, "a filter is a dict with one key; join several by $and or $or")
    if key in _JOINED:
        if not isinstance(value, list) or len(value) < 2:
            raise _FaultError(part, f"{key} takes a list of two filters or more")
        return _joined(_JOINED[key], [_compile(inner, level + 1) for inner in value])
    _check_key(part, key)
    name, operand = _only_item(value, "a key has one operator") if isinstance(value, dict) else ("$eq", value)
    negated = name in _NEGATED
    test = _test(part, _NEGATED.get(name, name), operand)
    if negated:
        return lambda metadata: not test(metadata.get(key))
    return lambda metadata: test(metadata.get(key))


def _joined(join: Callable[[Any], bool], predicates: list[Predicate]) -> Predicate:
    return lambda metadata: join(lets_through(metadata) for lets_through in predicates)


def _test(part: Any, name: str, operand: Any) -> _Test:
    """Give the test of a stored value that an operator, not a negated one, and its operand stand for."""
    if name == "$in":
        values = [_scalar(part, value) for value in operand] if isinstance(operand, list) else []
        if len(set(map(type, values))) != 1:
            raise _FaultError(part, "$in and $nin take a list of one value or more, all of one type")
        return _is_among(values)
    value = _scalar(part, operand)
    if name == "$eq":
        return _is_among([value])
    if name == "$contains":
        return _contains(value)
    if name not in _COMPARED:
        raise _FaultError(part, f"{name!r:.40} is no operator; known are {', '.join(_OPERATORS)}")
    if isinstance(value, (str, bool)):
        raise _FaultError(part, f"{name} compares numbers, not {type(value).__name__}")
    return _compares(_COMPARED[name], value)


def _is_among(values: list[_Scalar]) -> _Test:
    """Test for one of some values of one type."""
    kind = type(values[0])
    if kind in (str, bool):
        among = set(values)
        return lambda stored: type(stored) is kind and stored in among
    ints, floats = set(map(_as_int, values)), set(map(float, values))

    def test(stored: Any) -> bool:
        return stored in ints if type(stored) is int else type(stored) is float and stored in floats

    return test


def _compares(compare: Callable[[Any, Any], bool], value: _Scalar) -> _Test:
    as_int, as_float = _as_int(value), float(value)

    def test(stored: Any) -> bool:
        return compare(stored, as_int) if type(stored) is int else type(stored) is float and compare(stored, as_float)

    return test


def _as_int(value: _Scalar) -> int:
    """Give what Chroma compares an int with: no fraction, and no more than 64 bits."""
    return min(max(int(value), INT64[0]), INT64[-1])


def _contains(value: _Scalar) -> _Test:
    kind = type(value)
    return lambda stored: type(stored) is list and any(type(item) is kind and item == value for item in stored)


def _only_item(part: Any, needed: str) -> tuple[Any, Any]:
    if not isinstance(part, dict) or len(part) != 1:
        raise _FaultError(part, needed)
    ((key, value),) = part.items()
    return key, value


def _check_key(part: Any, key: Any) -> None:
    if not is_storable(key):
        raise _FaultError(part, "a key is a str that can be stored")
    if key == HASH_KEY or key.startswith(RESERVED_KEY_PREFIXES):
        raise _FaultError(part, f"{key!r:.80} is a reserved key, under which there are no metadata")


def _scalar(part: Any, value: Any) -> _Scalar:
    """Give an operand as Python's own str, bool, int or float; np.float64 is a float to `isinstance` too."""
    if isinstance(value, bool) or (isinstance(value, str) and is_storable(value)):
        return value if isinstance(value, bool) else str.__str__(value)
    if isinstance(value, int) and int(value) in INT64:  # of a subclass, a range looks at each of its numbers
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise _FaultError(part, f"{value!r:.80} is no storable str, bool, finite float or int of 64 bits")


class _FaultError(Exception):
    """A part of a filter is none."""

    def __init__(self, part: Any, what: str) -> None:
        super().__init__(what)
        self.part = part
