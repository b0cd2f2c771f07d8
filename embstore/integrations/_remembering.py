"""An encoder that is asked for a batch again after its store was away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embstore.codec import Vectors
from embstore.encoders import NamedEncoder
from embstore.identity import ModelIdentity, Role


class RememberingEncoder(NamedEncoder):
    """Another encoder, and what it has encoded since `forget`: asked again, it encodes nothing again.

    Parameters
    ----------
    encoder : NamedEncoder
    """

    def __init__(self, encoder: NamedEncoder) -> None:
        super().__init__(encoder.model)
        self.batches_itself = encoder.batches_itself
        self._encoder = encoder
        self._vectors: dict[tuple[Role, str], Vectors] = {}

    @property
    def model_name(self) -> str:
        """As of the other."""
        return self._encoder.model_name

    @property
    def dim(self) -> int | None:
        """As of the other."""
        return self._encoder.dim

    @property
    def watched(self) -> tuple[Any, object]:
        """As of the other."""
        return self._encoder.watched

    def identity(self, role: Role) -> ModelIdentity:
        """As of the other."""
        return self._encoder.identity(role)

    def encode(self, texts: Sequence[str], *, role: Role, batch_size: int) -> Vectors:
        """Give the vectors of texts, of which those that are not remembered are encoded. See `NamedEncoder.encode`."""
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self._vectors]
        if new:
            vectors = self._encoder.encode(new, role=role, batch_size=batch_size)
            self._vectors.update(zip([(role, text) for text in new], vectors, strict=True))
        return np.stack([self._vectors[role, text] for text in texts])

    def forget(self) -> None:
        """Remember nothing: what was encoded is stored."""
        self._vectors.clear()
