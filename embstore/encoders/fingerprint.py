"""What tells one set of weights from another where no revision does: a hash of the model's files or arrays."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FINGERPRINTED = {
    ".bin",
    ".h5",
    ".jinja",
    ".json",
    ".model",
    ".onnx",
    ".onnx_data",  # the weights of an ONNX model that is over 2 GB
    ".pt",
    ".py",
    ".safetensors",
    ".txt",
    ".xml",
}

_of_models: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def fingerprint(model: Any, folder: Path) -> str:
    """Hash the weight and config files of a model's folder: 32 hex digits, computed once a model object."""

    def hash_files(digest: Any) -> None:
        for file in sorted(f for f in folder.rglob("*") if f.suffix in _FINGERPRINTED and f.is_file()):
            with file.open("rb") as content:
                digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
                digest.update(hashlib.file_digest(content, "sha256").digest())

    return once(model, hash_files)


def once(model: Any, feed: Callable[[Any], None]) -> str:
    """Give 32 hex digits of what `feed` puts into a SHA-256, computed once a model object."""
    if model not in _of_models:
        digest = hashlib.sha256()
        feed(digest)
        _of_models[model] = digest.hexdigest()[:32]
    return _of_models[model]
