"""Vectors to bytes and back bit for bit, and checksums that see every single flipped bit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embstore import checksums, codec

# Any 32 bits: -0.0, subnormals, infinities and NaN payloads too.
words = st.integers(0, 2**32 - 1)
matrices = hnp.arrays(np.uint32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=words).map(
    lambda bits: bits.view(np.float32)
)
hashes = st.binary(min_size=32, max_size=32)
TEXT = hashlib.sha256(b"text").digest()


def vector_sum(vector: Any, *, model_id: int = 1, content_hash: bytes = TEXT, standalone: bool = False) -> int:
    (checksum,) = checksums.vector_checksums(model_id, [content_hash], standalone, np.array([vector], np.float32))
    return int(checksum)


def document_sum(model_id: int = 1, collection: str = "", doc_id: str = "doc", content_hash: bytes = TEXT) -> int:
    (checksum,) = checksums.document_checksums(model_id, collection, [doc_id], [content_hash])
    return int(checksum)


@given(matrices)
def test_every_float32_comes_back_bit_for_bit(vectors: np.ndarray) -> None:
    blobs = codec.vectors_to_blobs(vectors)
    read = np.stack([codec.blob_to_vector(blob) for blob in blobs])
    assert read.view(np.uint32).tolist() == vectors.view(np.uint32).tolist()


def test_the_bytes_of_a_vector_are_little_endian_float32_without_a_header() -> None:
    assert codec.vectors_to_blobs(np.array([[1.0, -2.0]], np.float32)) == [bytes.fromhex("0000803f000000c0")]


@pytest.mark.parametrize("vectors", [np.ones((3, 2), ">f4"), np.ones((2, 3), "<f4").T, np.ones((6, 2), "<f4")[::2]])
def test_byte_order_and_strides_of_what_is_given_do_not_matter(vectors: np.ndarray) -> None:
    assert codec.vectors_to_blobs(vectors) == [np.ones(2, "<f4").tobytes()] * 3


def test_what_is_read_can_be_written_to() -> None:
    vector = codec.blob_to_vector(bytes(8))
    vector += 1
    assert vector.tolist() == [1.0, 1.0]


def test_bytes_that_are_no_whole_values_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        codec.blob_to_vector(bytes(7))


# Computed when the format was made; a change of one of them makes every file of a user look damaged.
PINNED = {
    "odd dim": [2665442630299211310, -845403508512601867],
    "even dim": [-1717554084397438556, 7575985797492271494],
    "documents": [
        4429813660032001021,
        3892680963102991850,
        -2523052381622288007,
        1095549524226185124,
        4646722846650407289,
    ],
    "model": [-6774997331603192506, 6934262985670951141],
}


def test_the_checksums_of_today_are_those_of_every_file_there_is() -> None:
    doc_ids, model = ["a", "a\0", "🙂", "b" * 64, "b" * 65], ("name", "{}", 8, "float32", "2026")
    vectors = np.array([[1.0, -0.0, 3.5], [0.1, 2.0**-149, -7.25]], np.float32)
    found = {
        "odd dim": checksums.vector_checksums(1, [TEXT, bytes(32)], [False, True], vectors).tolist(),
        "even dim": checksums.vector_checksums(2**40, [TEXT, bytes(32)], False, vectors[:, :2]).tolist(),
        "documents": checksums.document_checksums(3, "größer", doc_ids, [TEXT] * 5).tolist(),
        "model": [checksums.model_checksum(1, model, canary) for canary in (None, b"\x01")],
    }
    assert found == PINNED


@given(matrices.filter(lambda vectors: len(vectors) == 1), hashes, st.booleans(), st.data())
def test_any_single_flipped_bit_of_a_vector_changes_its_checksum(
    vectors: np.ndarray, content_hash: bytes, standalone: bool, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, vectors.size * 32 - 1))
    flipped = vectors.copy()
    flipped.view(np.uint32)[0, bit // 32] ^= np.uint32(1 << bit % 32)
    before, after = (checksums.vector_checksums(1, [content_hash], standalone, rows) for rows in (vectors, flipped))
    assert before != after


@given(hashes, st.integers(0, 255))
def test_any_single_flipped_bit_of_a_content_hash_changes_both_checksums(content_hash: bytes, bit: int) -> None:
    flipped = (int.from_bytes(content_hash, "little") ^ 1 << bit).to_bytes(32, "little")
    assert vector_sum([1, 2], content_hash=content_hash) != vector_sum([1, 2], content_hash=flipped)
    assert document_sum(content_hash=content_hash) != document_sum(content_hash=flipped)


@given(st.integers(0, 2**63 - 1), st.integers(0, 62))
def test_any_single_flipped_bit_of_a_model_id_changes_both_checksums(model_id: int, bit: int) -> None:
    flipped = model_id ^ 1 << bit
    assert vector_sum([1, 2], model_id=model_id) != vector_sum([1, 2], model_id=flipped)
    assert document_sum(model_id=model_id) != document_sum(model_id=flipped)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=100), st.data())
def test_any_single_flipped_bit_of_a_doc_id_or_collection_changes_the_checksum(name: str, data: st.DataObject) -> None:
    encoded = bytearray(name.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        flipped = encoded.decode()
    except UnicodeDecodeError:
        return  # SQLite's text is refused before its checksum is computed
    assert document_sum(doc_id=name) != document_sum(doc_id=flipped)
    assert document_sum(collection=name) != document_sum(collection=flipped)


@pytest.mark.parametrize("dim", [2, 3, 8, 384, 385])
def test_two_flipped_signs_change_the_checksum(dim: int) -> None:
    vector = np.arange(1, dim + 1, dtype=np.float32)
    sums = {vector_sum(vector)}
    pairs = [(i, j) for i in range(min(dim, 12)) for j in range(i)]
    for pair in pairs:
        negated = vector.copy()
        negated[list(pair)] *= -1
        sums.add(vector_sum(negated))
    assert len(sums) == len(pairs) + 1


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 8, 384])
def test_a_vector_and_its_negative_have_different_checksums(dim: int) -> None:
    vector = np.arange(1, dim + 1, dtype=np.float32)
    assert vector_sum(vector) != vector_sum(-vector)


@given(st.data())
def test_any_flipped_signs_change_the_checksum(data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, 15), min_size=1))
    vector = np.arange(1, 17, dtype=np.float32)
    negated = vector.copy()
    negated[list(places)] *= -1
    assert vector_sum(negated) != vector_sum(vector)


def test_swapped_values_and_rows_have_other_checksums() -> None:
    values = np.array([[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]], np.float32)
    assert len(set(checksums.vector_checksums(1, [TEXT] * 4, False, values).tolist())) == 4


def test_an_odd_dim_is_not_the_even_one_that_zeros_make_of_it() -> None:
    assert len({vector_sum([1.0]), vector_sum([1.0, 0.0]), vector_sum([1.0, 0.0, 0.0])}) == 3


def test_a_standalone_text_has_another_checksum_than_a_document() -> None:
    assert vector_sum([1, 2], standalone=True) != vector_sum([1, 2], standalone=False)


@given(matrices, st.data())
def test_rows_are_summed_alike_alone_and_together(vectors: np.ndarray, data: st.DataObject) -> None:
    n = len(vectors)
    content_hashes = data.draw(st.lists(hashes, min_size=n, max_size=n))
    standalone = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    together = checksums.vector_checksums(7, content_hashes, standalone, vectors).tolist()
    alone = [checksums.vector_checksums(7, [content_hashes[i]], standalone[i], vectors[i : i + 1])[0] for i in range(n)]
    as_matrix = np.frombuffer(b"".join(content_hashes), np.uint8).reshape(n, 32)
    assert together == alone == checksums.vector_checksums(7, as_matrix, standalone, vectors).tolist()


def test_more_rows_than_are_summed_at_once_have_the_same_checksums() -> None:
    vectors = np.random.default_rng(0).standard_normal((1300, 6)).astype(np.float32)
    content_hashes = [hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(1300)]
    expected = [vector_sum(vector, content_hash=key) for vector, key in zip(vectors, content_hashes, strict=True)]
    assert checksums.vector_checksums(1, content_hashes, False, vectors).tolist() == expected


def test_no_rows_have_no_checksums() -> None:
    assert checksums.vector_checksums(1, [], [], np.empty((0, 4), np.float32)).tolist() == []
    assert checksums.document_checksums(1, "", [], []).tolist() == []


def test_documents_that_differ_in_any_part_have_different_checksums() -> None:
    other = hashlib.sha256(b"other").digest()
    rows = [
        (1, "", "doc", TEXT),
        (2, "", "doc", TEXT),
        (1, "c", "doc", TEXT),
        (1, "", "doc\0", TEXT),
        (1, "", "doc\0\0", TEXT),
        (1, "\0", "doc", TEXT),
        (1, "doc", "", TEXT),
        (1, "d", "oc", TEXT),
        (1, "", "doc", other),
    ]
    assert len({document_sum(*row) for row in rows}) == len(rows)


@pytest.mark.parametrize("length", [1, 7, 8, 63, 64, 65, 72, 100_000])
def test_ids_of_any_length_are_told_from_those_one_byte_longer(length: int) -> None:
    ids = ["x" * length, "x" * length + "\0", "x" * length + "x", "x" * (length - 1) + "y"]
    alone = [document_sum(doc_id=doc_id) for doc_id in ids]
    assert len(set(alone)) == len(ids)
    assert checksums.document_checksums(1, "", ids, [TEXT] * len(ids)).tolist() == alone


def test_models_that_differ_in_any_column_have_different_checksums() -> None:
    fields = ("name", "{}", 8, "float32", "2026")
    changed = [(*fields[:i], "1", *fields[i + 1 :]) for i in range(5)]
    sums = [checksums.model_checksum(1, row, None) for row in (fields, *changed)]
    sums += [checksums.model_checksum(2, fields, None), checksums.model_checksum(1, fields, b"")]
    sums += [checksums.model_checksum(1, ("na", "me{}", *fields[2:]), None), checksums.model_checksum(1, fields, b"\0")]
    assert len(set(sums)) == len(sums)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_single_flipped_bit_of_a_canary_changes_the_checksum_of_its_model(
    canary: bytes, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, 8 * len(canary) - 1))
    flipped = (int.from_bytes(canary, "little") ^ 1 << bit).to_bytes(len(canary), "little")
    fields = ("name", "{}", 8, "float32", "2026")
    assert checksums.model_checksum(1, fields, canary) != checksums.model_checksum(1, fields, flipped)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 384])
def test_rows_of_float16_are_summed_as_they_are_stored(dim: int) -> None:
    values = np.random.default_rng(dim).standard_normal((3, dim)).astype("<f2")
    keys = [bytes([i]) * 32 for i in range(3)]
    half = checksums.vector_checksums(1, keys, False, values).tolist()
    assert half != checksums.vector_checksums(1, keys, False, values.astype("<f4")).tolist()
    assert half == checksums.vector_checksums(1, keys, False, values.astype(">f2")).tolist()
    assert codec.vectors_to_blobs(values) == [row.tobytes() for row in values]
    for bit in range(16 * dim):
        flipped = values.copy()
        flipped.view(np.uint8)[1, bit // 8] ^= 1 << bit % 8
        after = checksums.vector_checksums(1, keys, False, flipped).tolist()
        assert [one != other for one, other in zip(half, after, strict=True)] == [False, True, False]


@given(
    st.sampled_from(["<f4", "<f2"]),
    st.integers(1, 19),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    st.text(st.characters(codec="utf-8"), max_size=9),
    hashes,
    st.booleans(),
    st.data(),
)
def test_one_document_is_sound_as_long_as_no_bit_of_its_rows_is_another(
    dtype: str, dim: int, doc_id: str, collection: str, key: bytes, standalone: bool, data: st.DataObject
) -> None:
    blob = data.draw(st.binary(min_size=dim * np.dtype(dtype).itemsize, max_size=dim * np.dtype(dtype).itemsize))
    (checksum,) = checksums.vector_checksums(7, [key], standalone, np.frombuffer(blob, dtype).reshape(1, -1)).tolist()
    doc_checksum = document_sum(7, collection, doc_id, key)

    def is_sound(
        blob: bytes = blob, checksum: int = checksum, of_document: int = doc_checksum, key: bytes = key
    ) -> bool:
        return checksums.is_sound(7, dim, blob, checksum, collection, doc_id, of_document, key)

    def flipped(data: bytes, bit: int) -> bytes:
        return (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")

    assert is_sound()
    bit = data.draw(st.integers(0, 63))
    assert not is_sound(checksum=checksum ^ 1 << bit)
    assert not is_sound(of_document=doc_checksum ^ 1 << bit)
    assert not is_sound(blob=flipped(blob, data.draw(st.integers(0, 8 * len(blob) - 1))))
    assert not is_sound(key=flipped(key, data.draw(st.integers(0, 255))))
    others = ((8, dim, collection, doc_id), (7, dim + 1, collection, doc_id), (7, dim, collection + "\0", doc_id))
    for model_id, n_values, where, name in (*others, (7, dim, collection, doc_id + "\0")):
        assert not checksums.is_sound(model_id, n_values, blob, checksum, where, name, doc_checksum, key)


def test_a_vector_and_a_document_of_another_content_are_not_sound_together() -> None:
    """What their checksums are off by must not make up for each other."""
    vector, other = np.ones(4, "<f4"), hashlib.sha256(b"other").digest()
    written = (vector.tobytes(), vector_sum(vector, content_hash=other), "", "doc", document_sum(content_hash=other))
    assert checksums.is_sound(1, 4, *written, other)
    assert not checksums.is_sound(1, 4, *written, TEXT)
    for off in (1, -1, 2**32, 2**63):
        blob, checksum, collection, doc_id, doc_checksum = written
        assert not checksums.is_sound(1, 4, blob, checksum + off, collection, doc_id, doc_checksum - off, other)


@pytest.mark.parametrize("length", [1, 8, 63, 64, 65, 128, 100_000])
def test_one_document_with_an_id_of_any_length_is_sound(length: int) -> None:
    doc_id, vector = "x" * length, np.ones(3, "<f4")
    found = (vector.tobytes(), vector_sum(vector), "", doc_id, document_sum(doc_id=doc_id))
    assert checksums.is_sound(1, 3, *found, TEXT)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("n", [1, 3, 384, 4096, 4097, 50_000])
def test_one_value_that_is_not_finite_is_seen_among_any_others(n: int, dtype: str) -> None:
    largest = np.finfo(dtype).max  # the squares of which are infinite
    unsigned = np.dtype(dtype.replace("f", "u"))
    infinite = int(np.array(np.inf, dtype).view(unsigned))
    for value in (0.0, 1.0, largest, -largest, np.finfo(dtype).smallest_subnormal):
        values = np.full(n, value, dtype)
        assert codec.are_finite(values)
        for bits in (infinite, infinite | 1, infinite | infinite >> 1, infinite | 1 << 8 * unsigned.itemsize - 1):
            for place in {0, n // 2, n - 1}:
                changed = values.copy()
                changed.view(unsigned)[place] = bits
                assert not codec.are_finite(changed)
                assert not codec.are_finite(changed.astype(np.float32))
