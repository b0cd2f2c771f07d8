"""model2vec's StaticModels as encoders."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from embstore.encoders.base import NamedEncoder, without_surrogates
from embstore.encoders.fingerprint import once
from embstore.identity import Role, Setting


def is_static_model(model: object) -> bool:
    """Tell whether `model` is a model2vec StaticModel, without importing the library for it."""
    library = sys.modules.get("model2vec")
    return library is not None and isinstance(model, library.StaticModel)


class StaticModelEncoder(NamedEncoder):
    """A StaticModel with its identity: a fingerprint of its weights, normalisation and length.

    A StaticModel does not know what it was loaded from, so `model_name` has to be given.
    """

    batches_itself = True

    @property
    def dim(self) -> int | None:
        """How many values its vectors have."""
        return int(self.model.dim)

    def encode(self, texts: Any, *, role: Role, batch_size: int) -> Any:
        """Encode texts in one call: the library batches them itself. See `NamedEncoder.encode`."""
        return self._encode_checked(list(texts), role, batch_size)

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        return self.model.encode([without_surrogates(text) for text in texts], batch_size=batch_size)

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        return {
            "fingerprint": once(self.model, self._feed),
            "max_length": self.model.max_length,
            "normalize": bool(self.model.normalize),
        }

    def _feed(self, digest: Any) -> None:
        """Put what makes its vectors into a hash: the arrays, and which token each row is of."""
        model = self.model
        for array in (model.embedding, model.weights, model.token_mapping):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        digest.update("\0".join(model.tokens).encode("utf-8", "surrogatepass"))
