"""Checking numbers of seconds, for the stores too, which what checks all other inputs imports."""

from __future__ import annotations

import math

from embstore.errors import InvalidInputError, InvalidTypeError


def check_seconds(value: object, name: str) -> float:
    """Give a number of seconds to wait.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no number, or negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} is {type(value).__name__}, not a number of seconds: {value!r:.80}")
    if not 0 <= value < math.inf:
        raise InvalidInputError(f"{name} is {value}; give a number of seconds, 0 or more")
    return float(value)
