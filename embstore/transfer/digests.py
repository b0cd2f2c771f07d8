"""Digests: which text a key is of, told by the texts that somebody still has."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable

from embstore.identity import content_hash
from embstore.inputs import check_texts

NO_TEXT = "none of the texts given has this key"

# How LangChain makes a UUID of a SHA-1: langchain_classic.embeddings.cache, NAMESPACE_UUID.
_LANGCHAIN_NAMESPACE = uuid.UUID(int=1985)


def _sha1_uuid(data: bytes) -> str:
    return str(uuid.uuid5(_LANGCHAIN_NAMESPACE, hashlib.sha1(data, usedforsecurity=False).hexdigest()))


_ALGORITHMS: dict[str, Callable[[bytes], str]] = {
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).hexdigest(),
    "sha1-uuid": _sha1_uuid,
    "blake2b": lambda data: hashlib.blake2b(data).hexdigest(),
    "sha512": lambda data: hashlib.sha512(data).hexdigest(),
}

# By the number of characters; a SHA-256 is the key of its text here too.
_BY_LENGTH = {32: ("md5",), 36: ("sha1-uuid",), 40: ("sha1",), 128: ("blake2b", "sha512")}
_SHA256_CHARS = 64
_HEX = frozenset("0123456789abcdef")


class Digests:
    """Finds contents by what other programs call them.

    Parameters
    ----------
    texts : iterable of str
        What may have been cached. For SHA-256 none are needed.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = check_texts(texts)
        self._contents: dict[str, dict[str, bytes]] = {}

    def find(self, digest: str) -> bytes | None:
        """Give the content hash of the text that a digest is of, None where that text was not given."""
        digest = digest.lower()
        if len(digest) == _SHA256_CHARS:
            return bytes.fromhex(digest)
        for algorithm in _BY_LENGTH.get(len(digest), ()):
            found = self._of(algorithm).get(digest)
            if found is not None:
                return found
        return None

    def _of(self, algorithm: str) -> dict[str, bytes]:
        if algorithm not in self._contents:
            digest = _ALGORITHMS[algorithm]
            self._contents[algorithm] = {
                digest(text.encode("utf-8", "surrogatepass")): content_hash(text) for text in self._texts
            }
        return self._contents[algorithm]


def is_digest(value: object) -> bool:
    """Tell whether a value looks like a digest that can be found."""
    if not isinstance(value, str) or len(value) not in (*_BY_LENGTH, _SHA256_CHARS):
        return False
    digits = value.lower()
    if len(digits) == 36:
        try:
            return str(uuid.UUID(digits)) == digits
        except ValueError:
            return False
    return set(digits) <= _HEX
