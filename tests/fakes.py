"""A deterministic encoder that counts what it is asked for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import numpy as np

from embstore.canary import CANARY_TEXT


class CountingEncoder:
    """Gives each text a unit vector that its SHA-256 and the encoder's `seed` decide.

    `calls` holds the texts of each call to `encode`, `n_texts` their number; canary encodes are in neither.
    """

    def __init__(self, dim: int = 8, model_name: str | None = "fake", seed: int = 0) -> None:
        self.dim = dim
        self.seed = seed
        self.calls: list[list[str]] = []
        self.n_canaries = 0
        self._lock = threading.Lock()
        if model_name is not None:
            self.model_name = model_name

    @property
    def n_texts(self) -> int:
        return sum(map(len, self.calls))

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def encode(self, texts: list[str]) -> np.ndarray:
        self.count(texts)
        return np.stack([self.vector(text) for text in texts])

    def count(self, texts: list[str]) -> None:
        assert isinstance(texts, list)
        assert all(isinstance(text, str) for text in texts)
        with self._lock:
            if texts == [CANARY_TEXT]:
                self.n_canaries += 1
            else:
                self.calls.append(list(texts))

    def vector(self, text: str) -> np.ndarray:
        """What this encoder gives for a text, uncounted: float32 of shape (dim,)."""
        digest = hashlib.sha256(f"{self.seed}:".encode() + text.encode("utf-8", "surrogatepass")).digest()
        values = np.random.default_rng(list(digest)).standard_normal(self.dim)
        return (values / np.linalg.norm(values)).astype(np.float32)

    def vectors(self, texts: list[str]) -> np.ndarray:
        """The same for several texts: float32 of shape (n, dim)."""
        return np.stack([self.vector(text) for text in texts]) if texts else np.empty((0, self.dim), np.float32)


class HookedEncoder(CountingEncoder):
    """Calls `hook` with the texts of each call before they are counted and encoded; not for canaries."""

    def __init__(self, hook: Callable[[list[str]], object], dim: int = 8, **options: str | int | None) -> None:
        super().__init__(dim, **options)  # type: ignore[arg-type]
        self.hook = hook

    def encode(self, texts: list[str]) -> np.ndarray:
        if texts != [CANARY_TEXT]:
            self.hook(texts)
        return super().encode(texts)


class QueryEncoder(CountingEncoder):
    """Gives a query another vector than a document."""

    def encode_query(self, texts: list[str]) -> np.ndarray:
        self.count(texts)
        return self.vectors([f"query: {text}" for text in texts])


class DocumentEncoder(CountingEncoder):
    """Encodes documents by a method of their own, and says nothing of queries."""

    def encode_document(self, texts: list[str]) -> np.ndarray:
        self.count(texts)
        return self.vectors([f"document: {text}" for text in texts])


class TooLarge(CountingEncoder):
    """Gives the text "large" a value that float16 has no place for."""

    def vector(self, text: str) -> np.ndarray:
        vector = super().vector(text)
        if text == "large":
            vector[2] = -65505
        return vector


def halved(vectors: np.ndarray) -> np.ndarray:
    """What float32 vectors are once they were stored as float16."""
    return vectors.astype(np.float16).astype(np.float32)
