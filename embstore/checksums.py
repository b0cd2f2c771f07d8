"""The checksums of rows.

The checksum is 64 bits. Each 64-bit word x of a row is mixed, y = x * MIX and then y ^ (y >> 32), multiplied with the
odd random weight of its place, and the products are added up modulo 2^64 (multilinear hashing: Lemire and Kaser,
"Strongly universal string hashing is fast", 2014). Each step can be undone, so whatever changes within one word
changes the sum for certain; random damage to several slips with probability near 2^-64. The mixing keeps damage
to high bits from cancelling: without it two flipped signs can go unseen, and with the shift alone a whole vector
that is negated (tests/test_codec.py::test_a_vector_and_its_negative_have_different_checksums).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from embstore.codec import HASH_BYTES, StoredValues, little_endian

Words = npt.NDArray[np.uint64]
Checksums = npt.NDArray[np.int64]
ContentHashes = Sequence[bytes] | npt.NDArray[np.uint8]  # n of 32 bytes, or (n, 32)

WORD = np.dtype("<u8")
HASH_WORDS = HASH_BYTES // 8
_MIX = 0x9E3779B97F4A7C15
_FACTOR, _HALF = np.array(_MIX, dtype=np.uint64), np.array(32, dtype=np.uint64)  # quicker than scalars
_WORDS_AT_ONCE = 2**16  # what is made of this many stays in the processor's cache
_SHORT_BYTES = 64  # texts up to this long are summed as one matrix, longer ones one by one
_ID_STEP = 64  # bytes to which a single doc_id is filled up, so that few shapes of weights are kept

# By how many of its bytes are wanted, the first ones: what leaves these of a word.
_FIRST_BYTES = np.array([256**n_bytes - 1 for n_bytes in range(WORD.itemsize + 1)], dtype=np.uint64)

# Places of the weights. Each kind of word has a range of its own, so that no two kinds share a weight.
_MODEL, _DIM, _STANDALONE, _DOC_ID_LENGTH, _COLLECTION_LENGTH = range(5)
_HASH = 8
_COLLECTION = 1 << 32
_DOC_ID = 1 << 33
_VECTOR = 1 << 34


@lru_cache(maxsize=64)
def _weights(start: int, n: int) -> Words:
    """Give the odd weights of the places start..start+n, by splitmix64 (Steele, Lea, Flood 2014)."""
    z = np.arange(start + 1, start + n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    weights = (z ^ (z >> np.uint64(31))) | np.uint64(1)
    weights.flags.writeable = False
    return weights


def _sums(words: Words, place: int) -> Words:
    """Sum each row of words (n, k) with the weights that begin at a place: (n,)."""
    n, n_words = words.shape
    weights = _weights(place, n_words)
    sums = np.empty(n, dtype=np.uint64)
    n_at_once = max(1, min(n, _WORDS_AT_ONCE // max(1, n_words)))
    mixed, shifted = np.empty((2, n_at_once, n_words), dtype=np.uint64)
    for start in range(0, n, n_at_once):
        rows = words[start : start + n_at_once]
        m, s = mixed[: len(rows)], shifted[: len(rows)]
        np.multiply(rows, _FACTOR, out=m)
        np.right_shift(m, _HALF, out=s)
        np.bitwise_xor(m, s, out=m)
        np.einsum("ij,j->i", m, weights, out=sums[start : start + n_at_once])
    return sums


@lru_cache(maxsize=1024)
def _weight(place: int) -> int:
    return int(_weights(place, 1)[0])


def _sum_number(number: int, place: int) -> int:
    """Sum one number; a plain int, to be added modulo 2^64."""
    mixed = number * _MIX % 2**64
    return (mixed ^ (mixed >> 32)) * _weight(place) % 2**64


_STANDALONE_SUM = np.uint64(_sum_number(1, _STANDALONE))
_OF_BOTH_KINDS = (0, int(_STANDALONE_SUM))
_DOC_ID_LENGTH_WEIGHT = _weight(_DOC_ID_LENGTH)


def vector_checksums(
    model_id: int,
    content_hashes: ContentHashes,
    standalone: npt.ArrayLike,
    vectors: StoredValues,
) -> Checksums:
    """Checksum rows of the table vectors.

    Parameters
    ----------
    model_id : int
    content_hashes : sequence of n bytes objects of length 32, or ndarray of shape (n, 32), uint8
        The contents that the rows are asked or written for, not what a row says of itself.
    standalone : bool or array of bool, shape (n,)
    vectors : ndarray of shape (n, dim), float32 or float16
        In the format of the file: it is its bytes that are summed.

    Returns
    -------
    ndarray of shape (n,), int64
        Signed, as SQLite stores them.
    """
    sums = _vector_sums(model_id, vectors) + content_sums(content_hashes)
    sums += np.asarray(standalone, dtype=np.uint64) * _STANDALONE_SUM
    return sums.view(np.int64)


def document_checksums(
    model_id: int, collection: str, doc_ids: Sequence[str], content_hashes: ContentHashes
) -> Checksums:
    """Checksum rows of the table documents: who, where, and the content that is pointed to.

    Parameters
    ----------
    model_id : int
    collection : str
    doc_ids : sequence of n str
    content_hashes : sequence of n bytes objects of length 32, or ndarray of shape (n, 32), uint8

    Returns
    -------
    ndarray of shape (n,), int64
    """
    return (_document_sums(model_id, collection, doc_ids) + content_sums(content_hashes)).view(np.int64)


def content_sums(content_hashes: ContentHashes) -> Words:
    """Give the part of a row's checksum that its content hash makes up: (n,)."""
    data = content_hashes.tobytes() if isinstance(content_hashes, np.ndarray) else b"".join(content_hashes)
    return _sums(np.frombuffer(data, dtype=WORD).reshape(-1, HASH_WORDS), _HASH)


def content_sums_of_vectors(model_id: int, checksums: Checksums, vectors: StoredValues) -> Words:
    """Give what the content hashes make up of the checksums of vectors, all else taken out: (n,)."""
    return checksums.view(np.uint64) - _vector_sums(model_id, vectors)


def content_sums_of_documents(model_id: int, collection: str, doc_ids: Sequence[str], checksums: Checksums) -> Words:
    """Give what the content hashes make up of the checksums of documents, all else taken out: (n,)."""
    return checksums.view(np.uint64) - _document_sums(model_id, collection, doc_ids)


def is_content(of_vectors: Words, content_sums_: Words) -> npt.NDArray[np.bool_]:
    """Tell which vectors are what was written for contents, cached without an id or not: (n,)."""
    differences = of_vectors - content_sums_
    is_same: npt.NDArray[np.bool_] = (differences == 0) | (differences == _STANDALONE_SUM)
    return is_same


def is_sound(
    model_id: int, dim: int, blob: bytes, checksum: int, collection: str, doc_id: str, doc_checksum: int, key: bytes
) -> bool:
    """Tell whether one document and its vector are what was written for a content hash: both rows in one product."""
    id_bytes = doc_id.encode()
    row = b"".join((blob, bytes(-len(blob) % 8), key, id_bytes, bytes(-len(id_bytes) % _ID_STEP)))
    words = np.frombuffer(row, WORD)
    mixed = words * _FACTOR
    mixed ^= mixed >> _HALF
    vector, document = _weights_of_both(-(-len(blob) // 8), len(words)).dot(mixed).tolist()
    vector += _vector_constant(model_id, dim)
    document += _document_constant(model_id, collection) + len(id_bytes) * _DOC_ID_LENGTH_WEIGHT
    return (checksum - vector) % 2**64 in _OF_BOTH_KINDS and (doc_checksum - document) % 2**64 == 0


@lru_cache(maxsize=8)
def _weights_of_both(n_vector_words: int, n_words: int) -> Words:
    """Give the weights of a vector, a content hash and a doc_id in the sums of a vector and of a document: (2, n)."""
    of_id = n_vector_words + HASH_WORDS
    weights = np.zeros((2, n_words), dtype=np.uint64)
    weights[0, :n_vector_words] = _weights(_VECTOR, n_vector_words)
    weights[:, n_vector_words:of_id] = _weights(_HASH, HASH_WORDS)
    weights[1, of_id:] = _weights(_DOC_ID, n_words - of_id)
    return weights


@lru_cache(maxsize=64)
def _vector_constant(model_id: int, dim: int) -> int:
    return (_sum_number(model_id, _MODEL) + _sum_number(dim, _DIM)) % 2**64


@lru_cache(maxsize=64)
def _document_constant(model_id: int, collection: str) -> int:
    return (int(_text_sums([collection], _COLLECTION, _COLLECTION_LENGTH)[0]) + _sum_number(model_id, _MODEL)) % 2**64


def model_checksum(model_id: int, fields: Sequence[str | int], canary: bytes | None) -> int:
    """Checksum a row of the table models: a signed 64-bit integer.

    Parameters
    ----------
    model_id : int
    fields : sequence of str and int
        The other columns in the order of the table; each is told apart from its neighbours.
    canary : bytes or None
    """
    return _json_checksum([model_id, *fields, canary.hex() if canary is not None else None])


def collection_checksum(fields: Sequence[str | int]) -> int:
    """Checksum a row of the table collections: a signed 64-bit integer.

    Parameters
    ----------
    fields : sequence of str and int
        The other columns in the order of the table; each is told apart from its neighbours.
    """
    return _json_checksum(fields)


def text_checksum(collection: str, doc_id: str, content_hash: bytes, metadata: str, text: str) -> int:
    """Checksum a row of the table texts: a signed 64-bit integer.

    Parameters
    ----------
    collection : str
        The collection that the row is asked or written for.
    doc_id : str
    content_hash : bytes
        32 bytes.
    metadata, text : str
        The length of each field is in the sum too, so that each is told apart from its neighbours.
    """
    fields = [collection.encode(), doc_id.encode(), content_hash, metadata.encode(), text.encode()]
    return _digest(b"".join([struct.pack("<5Q", *map(len, fields)), *fields]))


def bytes_checksum(key: str, value: bytes) -> int:
    """Checksum a row of the table byte_values: a signed 64-bit integer.

    Parameters
    ----------
    key : str
        The key that the row is asked or written for.
    value : bytes
    """
    name = key.encode()
    return _digest(b"".join([struct.pack("<Q", len(name)), name, value]))


def _json_checksum(row: Sequence[object]) -> int:
    return _digest(json.dumps(row).encode("ascii"))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _vector_sums(model_id: int, vectors: StoredValues) -> Words:
    n, dim = vectors.shape
    words = little_endian(vectors)
    n_spare = -dim % (WORD.itemsize // words.itemsize)
    if n_spare:  # the values do not fill the last word
        words = np.concatenate([words, np.zeros((n, n_spare), dtype=words.dtype)], axis=1)
    sums = _sums(words.view(WORD), _VECTOR)
    sums += np.uint64(_vector_constant(model_id, dim))
    return sums


def _document_sums(model_id: int, collection: str, doc_ids: Sequence[str]) -> Words:
    return _text_sums(doc_ids, _DOC_ID, _DOC_ID_LENGTH) + np.uint64(_document_constant(model_id, collection))


def _text_sums(texts: Sequence[str], place: int, length_place: int) -> Words:
    """Sum UTF-8 texts and their lengths; padding with zero bytes changes no sum, so the length says where they end."""
    data, starts, lengths = _joined(texts)
    width = -(-min(int(lengths.max(initial=1)), _SHORT_BYTES) // WORD.itemsize)  # in words
    data += bytes(width * WORD.itemsize)
    n_windows = len(data) - width * WORD.itemsize + 1
    windows = np.ndarray((n_windows,), np.dtype((np.void, width * WORD.itemsize)), buffer=data, strides=(1,))
    words = windows[starts].view(WORD).reshape(len(texts), width)
    short = np.where(lengths <= _SHORT_BYTES, lengths, 0)
    for i in range(width):
        words[:, i] &= _FIRST_BYTES[np.clip(short - i * WORD.itemsize, 0, WORD.itemsize)]
    sums = _sums(words, place)
    for i in np.flatnonzero(lengths > _SHORT_BYTES).tolist():
        text = data[starts[i] : starts[i] + lengths[i]]
        padded = text + bytes(-len(text) % WORD.itemsize)
        sums[i] = _sums(np.frombuffer(padded, dtype=WORD).reshape(1, -1), place)[0]
    return sums + lengths.astype(np.uint64) * np.uint64(_weights(length_place, 1)[0])


def _joined(texts: Sequence[str]) -> tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give UTF-8 texts one after another with a byte between them, and where each begins and how long it is."""
    data = "\0".join(texts).encode()
    stops = np.append(np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 0), len(data))
    if len(stops) != len(texts):  # texts with such a byte in them
        lengths = np.array([len(text.encode()) for text in texts], dtype=np.int64)
        stops = np.cumsum(lengths + 1) - 1
    starts = np.append(0, stops + 1)[: len(texts)]
    return data, starts, stops[: len(texts)] - starts
