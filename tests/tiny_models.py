"""Models of a few numbers for libraries that read files: a tokenizer of words, and an ONNX graph that looks them up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["[PAD]", "[UNK]", "the", "cat", "dog", "sat", "ran", "question", "answer"]


def word_vectors(dim: int = 4, seed: int = 0) -> np.ndarray:
    """One vector a word: float32 of shape (len(WORDS), dim)."""
    return np.random.default_rng(seed).standard_normal((len(WORDS), dim)).astype(np.float32)


def tokenizer() -> Any:
    """A `tokenizers.Tokenizer` that knows WORDS."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


def onnx_folder(folder: Path, vectors: np.ndarray) -> Path:
    """Write the files of a model that gives each token its row of `vectors`: shape (batch, tokens, dim)."""
    folder.mkdir(parents=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "model_max_length": 16}))
    (folder / "model.onnx").write_bytes(_lookup_model(vectors))
    return folder


def _lookup_model(vectors: np.ndarray) -> bytes:
    """Write an ONNX ModelProto by hand (onnx.proto3 numbers the fields), so that no test needs the package onnx."""
    n_words, dim = vectors.shape
    table = _number(1, n_words) + _number(1, dim) + _number(2, 1) + _bytes(8, b"table") + _bytes(9, vectors.tobytes())
    node = _bytes(1, b"table") + _bytes(1, b"input_ids") + _bytes(2, b"last_hidden_state") + _bytes(4, b"Gather")
    ids = _value(b"input_ids", 7, [b"batch", b"tokens"])
    mask = _value(b"attention_mask", 7, [b"batch", b"tokens"])
    output = _value(b"last_hidden_state", 1, [b"batch", b"tokens", dim])
    graph = _bytes(1, node) + _bytes(2, b"lookup") + _bytes(5, table)
    graph += _bytes(11, ids) + _bytes(11, mask) + _bytes(12, output)
    return _number(1, 8) + _bytes(8, _bytes(1, b"") + _number(2, 17)) + _bytes(7, graph)


def _value(name: bytes, element_type: int, dims: list[bytes | int]) -> bytes:
    shape = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, element_type) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
