"""Real vectors: those that all-MiniLM-L6-v2 gives for the abstracts of SciFact."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embstore.canary import CANARY_TEXT

SCIFACT = Path(os.environ.get("EMBSTORE_SCIFACT", Path(__file__).parents[2] / "shared" / "corpora" / "scifact"))
needs_scifact = pytest.mark.skipif(
    not (SCIFACT / "minilm_docs.npy").exists(),
    reason="needs the SciFact vectors; set EMBSTORE_SCIFACT to their folder",
)


class LookUpEncoder:
    """Gives "document 7, edition 2" a vector of SciFact's, and notes each text that it encodes in a file.

    Each line of the file is one text. It is appended before the vector is given, whatever happens to the process then.
    """

    model_name = "minilm"

    def __init__(self, log: Path) -> None:
        self._vectors = np.load(SCIFACT / "minilm_docs.npy", mmap_mode="r")
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def encode(self, texts: list[str]) -> np.ndarray:
        os.write(self._log, "".join(f"{text}\n" for text in texts if text != CANARY_TEXT).encode())
        return self.vectors(texts)

    def vectors(self, texts: list[str]) -> np.ndarray:
        """What it gives, unnoted: float32 of shape (n, 384)."""
        return np.stack([self._vectors[_row(text) % len(self._vectors)] for text in texts])

    def close(self) -> None:
        os.close(self._log)


def text_of(number: int, edition: int) -> str:
    return f"document {number}, edition {edition}"


def _row(text: str) -> int:
    if text == CANARY_TEXT:
        return 0
    number, edition = (int(word) for word in text.replace(",", "").split()[1::2])
    return number + 600 * edition
