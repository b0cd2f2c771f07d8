"""The answer of a server that was asked for embeddings, read with suspicion."""

from __future__ import annotations

import base64
import binascii
import contextlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from embstore.errors import EncoderOutputError


def read_vectors(answer: Any, url: str, n_texts: int, dim: int | None, key: str | None) -> list[Any]:
    """Give the vectors of an answer in the order of the texts, whatever order they came in.

    Raises
    ------
    EncoderOutputError
        It is anything but one vector a text, all of one dimension, that of `dim` where it is given.
    """

    def wrong(what: str) -> EncoderOutputError:
        return EncoderOutputError(f"{url} was given {n_texts} texts and answered {what}", url=url, n_texts=n_texts)

    problem, items, rows = None, [], {}
    try:
        items = answer.json()["data"]
        rows = {item["index"]: _vector(item["embedding"]) for item in items}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        problem = type(error).__name__
    if problem is not None:  # not as the cause of ours: it holds the whole answer, which may repeat the key
        kind = answer.headers.get("Content-Type", "an unnamed type")
        raise wrong(f"{kind} that holds no embeddings ({problem}): {shown(answer, key)}")
    if len(items) != n_texts or set(rows) != set(range(n_texts)) or not all(type(index) is int for index in rows):
        raise wrong(f"with {len(items)} vectors of index {sorted(map(str, rows))!s:.80}; needed is one a text")
    dims = sorted({len(row) for row in rows.values()} | ({dim} if dim is not None else set()))
    if len(dims) > 1:
        raise wrong(f"vectors of {dims} values" + ("" if dim is None else f"; {dim} were asked for"))
    return [rows[i] for i in range(n_texts)]


def _vector(embedding: Any) -> Any:
    """Give an embedding as a list of numbers, or as an array where it came as base64 of float32."""
    if isinstance(embedding, str):
        try:
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        except binascii.Error as error:
            raise ValueError(f"no base64: {error}") from error
    if not isinstance(embedding, list) or {type(value) for value in embedding} - {int, float}:
        raise TypeError("an embedding is no list of numbers")
    return embedding


def shown(answer: Any, key: str | None) -> str:
    """Give the beginning of what a server said, without the key, which some repeat."""
    said = answer.text if key is None else answer.text.replace(key, "***")
    return repr(" ".join(said[:1000].split()))[:300]


def retry_after_s(value: str | None) -> float | None:
    """Read Retry-After, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
