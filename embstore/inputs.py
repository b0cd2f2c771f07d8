"""Checking what callers give, before anything is read, encoded or written."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from embstore.canary import TOLERANCE
from embstore.codec import HASH_BYTES, QuantisedError, Vectors, finite_vectors
from embstore.errors import DimensionError, InvalidInputError, InvalidTypeError
from embstore.identity import MAX_NAME_CHARS, check_model_name, check_name_length, check_storable
from embstore.stores.leases import LEAST_LEASE_S, MOST_LEASE_S

_TEXTS_AT_ONCE = 64


def check_texts(texts: Iterable[str]) -> list[str]:
    """Give texts as a list of str.

    Raises
    ------
    InvalidTypeError
        It is one str and not several, or holds something else.
    """
    return _list_of_str(texts, "texts", "text")


@dataclass(frozen=True)
class HashedTexts:
    """Texts of a caller's.

    Attributes
    ----------
    texts : list of n str
    content_hashes : list of n bytes
    n_chars : int
        Of all texts together.
    """

    texts: list[str]
    content_hashes: list[bytes]
    n_chars: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> HashedTexts:
        """Check, count and hash texts, a few at a time: they are in the processor's cache once then, not three times.

        Raises
        ------
        InvalidTypeError
            As of `check_texts`.
        """
        listed = _as_list(texts, "texts")
        content_hashes: list[bytes] = []
        n_chars = 0
        for start in range(0, len(listed), _TEXTS_AT_ONCE):
            some = listed[start : start + _TEXTS_AT_ONCE]
            if set(map(type, some)) != {str}:
                listed = check_texts(listed)
                return cls(listed, hash_texts(listed), sum(map(len, listed)))
            n_chars += sum(map(len, some))
            content_hashes += hash_texts(some)
        return cls(listed, content_hashes, n_chars)


def check_doc_ids(doc_ids: Iterable[str]) -> list[str]:
    """Give doc_ids as a list of non-empty str.

    Raises
    ------
    InvalidTypeError
        It is one str and not several, or holds something else.
    InvalidInputError
        An id is empty, too long or holds a lone surrogate.
    """
    checked = _list_of_str(doc_ids, "doc_ids", "doc_id")
    if not all(checked):
        raise InvalidInputError(f"the doc_id at position {checked.index('')} is empty; give each document an id")
    joined = "".join(checked)
    try:
        joined.encode("utf-8")
    except UnicodeEncodeError:
        for doc_id in checked:
            check_storable(doc_id, "doc_id")
    if len(joined) > MAX_NAME_CHARS:
        for doc_id in checked:
            check_name_length(doc_id, "doc_id")
    return checked


def check_content_hashes(content_hashes: Sequence[bytes]) -> None:
    """Raise InvalidTypeError or InvalidInputError where something is not the 32 bytes of a content hash."""
    if not isinstance(content_hashes, Sequence) or isinstance(content_hashes, (str, bytes)):
        raise InvalidTypeError(f"content_hashes is {type(content_hashes).__name__}, not a sequence of bytes")
    for content_hash in content_hashes:
        if not isinstance(content_hash, bytes):
            raise InvalidTypeError(f"a content hash is {type(content_hash).__name__}, not bytes: {content_hash!r:.80}")
        if len(content_hash) != HASH_BYTES:
            raise InvalidInputError(
                f"a content hash has {len(content_hash)} bytes, not {HASH_BYTES}: give content_hash(text)"
            )


def check_same_length(doc_ids: Sequence[str], texts: Sequence[str]) -> None:
    """Raise InvalidInputError where there is not one text a doc_id."""
    if len(doc_ids) != len(texts):
        raise InvalidInputError(
            f"{len(doc_ids)} doc_ids and {len(texts)} texts; give one text for each id",
            n_doc_ids=len(doc_ids),
            n_texts=len(texts),
        )


def check_collection(collection: str) -> str:
    """Give the name of a collection; any str that can be stored, "" too."""
    if not isinstance(collection, str):
        raise InvalidTypeError(f"collection is {type(collection).__name__}, not str: {collection!r:.80}")
    check_storable(collection, "collection")
    check_name_length(collection, "collection")
    return collection


def check_scope(model_name: str | None, collection: str | None) -> None:
    """Raise where a model or a collection is named by what can be no name; None names none."""
    if model_name is not None:
        check_model_name(model_name)
    if collection is not None:
        check_collection(collection)


def check_count(value: int, name: str, *, least: int = 1) -> int:
    """Give a number of things, at least one, or another least number."""
    try:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)  # numpy's integers too
    except TypeError:
        raise InvalidTypeError(f"{name} is {type(value).__name__}, not int: {value!r:.80}") from None
    if value < least:
        raise InvalidInputError(f"{name} is {value}; it must be at least {least}")
    return value


def check_shard(shard: tuple[int, int] | None) -> tuple[int, int] | None:
    """Give which of how many shares is asked for: (i, n); None for the whole, also where it is the only share.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no tuple of two int with 0 <= i < n.
    """
    if shard is None:
        return None
    if not isinstance(shard, Sequence) or isinstance(shard, (str, bytes)):
        raise InvalidTypeError(f"shard is {type(shard).__name__}, not a tuple of two int: {shard!r:.80}")
    if len(shard) != 2:
        raise InvalidInputError(f"shard has {len(shard)} values, not 2; give (i, n) for the i-th of n shares")
    n = check_count(shard[1], "the number of shares")
    i = check_count(shard[0], "the number of the share", least=0)
    if i >= n:
        raise InvalidInputError(f"shard is ({i}, {n}); of {n} shares the first is (0, {n}), the last ({n - 1}, {n})")
    return None if n == 1 else (i, n)


def check_lease(lease_s: float | None) -> float | None:
    """Give for how many seconds a process is to keep a text for itself; None where it is not to.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no number of seconds, or one that leases cannot last.
    """
    if lease_s is None:
        return None
    if isinstance(lease_s, bool) or not isinstance(lease_s, (int, float)):
        raise InvalidTypeError(f"lease_s is {type(lease_s).__name__}, not a number of seconds: {lease_s!r:.80}")
    if not LEAST_LEASE_S <= lease_s <= MOST_LEASE_S:
        raise InvalidInputError(f"lease_s is {lease_s}; give {LEAST_LEASE_S:g} to {MOST_LEASE_S:g} seconds, or None")
    return float(lease_s)


def check_truncation(dim: int, full_dim: int, model_name: str, argument: str = "dim") -> int:
    """Give to how many leading values vectors of `full_dim` values are to be cut.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        `dim`, which was given as `argument`, is no int of at least 1.
    DimensionError
        It is more than there are.
    """
    dim = check_count(dim, argument)
    if dim > full_dim:
        raise DimensionError(
            f"{argument} is {dim}, and vectors of model {model_name!r} have {full_dim} values; give 1 to {full_dim}",
            model_name=model_name,
            dim=dim,
            expected_dim=full_dim,
        )
    return dim


def check_vectors(vectors: Any, n: int) -> Vectors:
    """Give vectors that a caller computed as float32 of shape (n, dim).

    Raises
    ------
    InvalidInputError
        Another shape, or NaN or infinite values; quantised (integer) vectors.
    """
    if n == 0 and np.size(vectors) == 0:
        return np.empty((0, 0), dtype=np.float32)
    try:
        return finite_vectors(vectors, n)
    except QuantisedError as error:
        raise InvalidInputError(f"vectors are {error}; give float vectors, not quantised ones") from None
    except ValueError as error:
        raise InvalidInputError(f"vectors are {error}; needed is one finite float vector a text: ({n}, dim)") from error


def check_dim(vectors: Vectors, dim: int, name: str) -> None:
    """Raise DimensionError where vectors have another dimension than the model's."""
    if vectors.shape[1] != dim:
        raise DimensionError(
            f"vector has {vectors.shape[1]} values, model {name!r} has {dim}; "
            f"store it under another model_name=, or encode with the same model",
            dim=vectors.shape[1],
            expected_dim=dim,
        )


def hash_texts(texts: Sequence[str]) -> list[bytes]:
    """Give the content hash of each text; see `embstore.identity.content_hash`."""
    try:
        return [sha256(text.encode()).digest() for text in texts]
    except UnicodeEncodeError:  # lone surrogates; naming how to encode them takes longer, for every text
        return [sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]


def content_of_each(doc_ids: Sequence[str], content_hashes: Sequence[bytes]) -> dict[str, bytes]:
    """Map distinct doc_ids to their content.

    Raises
    ------
    InvalidInputError
        A doc_id stands with two texts.
    """
    content_of = dict(zip(doc_ids, content_hashes, strict=True))
    if len(content_of) < len(doc_ids):
        for doc_id, content_hash in zip(doc_ids, content_hashes, strict=True):
            if content_of[doc_id] != content_hash:
                raise InvalidInputError(
                    f"doc_id {doc_id!r:.80} is given twice with different texts; give each document an id of its own",
                    doc_id=doc_id,
                )
    return content_of


def first_rows(content_hashes: Sequence[bytes], vectors: Vectors) -> dict[bytes, int]:
    """Map each content to the row of its first vector.

    Raises
    ------
    InvalidInputError
        One text has two vectors that no batching explains.
    """
    row_of: dict[bytes, int] = {}
    for row, content_hash in enumerate(content_hashes):
        first = row_of.setdefault(content_hash, row)
        if first != row and not np.allclose(vectors[first], vectors[row], rtol=TOLERANCE, atol=TOLERANCE):
            raise InvalidInputError(
                f"rows {first} and {row} hold the same text with different vectors; give each text one vector",
                rows=(first, row),
            )
    return row_of


def _list_of_str(values: Iterable[str], plural: str, singular: str) -> list[str]:
    listed = _as_list(values, plural)
    if set(map(type, listed)) - {str}:
        for position, value in enumerate(listed):
            if not isinstance(value, str):
                raise InvalidTypeError(
                    f"the {singular} at position {position} is {type(value).__name__}, not str: {value!r:.80}",
                    position=position,
                )
        listed = [str.__str__(value) for value in listed]  # subclasses: str() of an Enum gives its name
    return listed


def _as_list(values: Iterable[str], plural: str) -> list[str]:
    if isinstance(values, (str, bytes)):
        raise InvalidTypeError(f"{plural} is one {type(values).__name__}; give a list: [{values!r:.60}]")
    try:
        return list(values)
    except TypeError:
        raise InvalidTypeError(f"{plural} is {type(values).__name__}, not a list of str") from None
