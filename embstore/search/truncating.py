"""An index of shorter vectors than the model gives: where they come from, and whether the model has as many values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors, as_vectors
from embstore.encoders import NamedEncoder
from embstore.errors import DimensionError
from embstore.inputs import check_truncation
from embstore.search.base import VectorSource
from embstore.truncation import truncated


class TruncatingSource:
    """A `VectorSource` that cuts what another one gives: see `embstore.truncation.truncated`.

    The other one encodes and keeps whole vectors, and the canary, which tells models apart, is whole too.

    Parameters
    ----------
    source : VectorSource
    truncate_dim : int

    Raises
    ------
    DimensionError
        From each method that gives vectors, where those of the model have fewer values.
    """

    cuts = True

    def __init__(self, source: VectorSource, truncate_dim: int) -> None:
        self.encoder = source.encoder
        self.keeps_vectors = source.keeps_vectors
        self._source = source
        self._truncate_dim = truncate_dim

    def canary(self) -> Vectors | None:
        """Give the model's canary, whole."""
        return self._source.canary()

    def missing(self, texts: Sequence[str]) -> list[str]:
        """List what the other source would encode."""
        return self._source.missing(texts)

    def estimate_s(self, n_chars: int) -> float | None:
        """Estimate as the other source does."""
        return self._source.estimate_s(n_chars)

    def stored(self, content_hashes: Sequence[bytes]) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Cut the vectors that are kept."""
        found, vectors = self._source.stored(content_hashes)
        shorter = np.zeros((len(found), self._truncate_dim), dtype=np.float32)
        if found.any():
            shorter[found] = self._cut(vectors[found])
        return found, shorter

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str]) -> tuple[Vectors, int]:
        """Cut the vectors of n > 0 documents."""
        vectors, n_encoded = self._source.documents(doc_ids, texts)
        return self._cut(vectors), n_encoded

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Cut the vector of a text that is encoded anew."""
        return self._cut(self._source.fresh(doc_id, text))

    def encode(self, text: str) -> Vectors:
        """Cut the vector of a text of which nothing is kept."""
        return self._cut_one(self._source.encode(text))

    def query(self, text: str) -> Vectors:
        """Cut the vector of a query."""
        return self._cut_one(self._source.query(text))

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name."""
        self._source.rename_model(old, new)
        self.encoder = self._source.encoder

    def _cut_one(self, vector: Vectors) -> Vectors:
        (shorter,) = self._cut(vector[np.newaxis])
        return as_vectors(shorter)

    def _cut(self, vectors: Vectors) -> Vectors:
        check_truncation(self._truncate_dim, vectors.shape[1], self.encoder.model_name, "truncate_dim")
        return truncated(vectors, self._truncate_dim)


def check_truncate_dim(truncate_dim: int, encoder: NamedEncoder, dim: int | None) -> None:
    """Refuse to cut vectors to more values than a model gives, as far as that is known.

    Parameters
    ----------
    truncate_dim : int
    encoder : NamedEncoder
    dim : int or None
        How many values its vectors have; None where only a vector will tell.

    Raises
    ------
    DimensionError
    """
    own = encoder.identity("document").settings.get("truncate_dim")
    if isinstance(own, int) and own < truncate_dim:
        raise DimensionError(
            f"truncate_dim is {truncate_dim}, and model {encoder.model_name!r} itself cuts its vectors to "
            f"truncate_dim={own}; give 1 to {own}, or load the model without that",
            model_name=encoder.model_name,
            dim=truncate_dim,
            expected_dim=own,
        )
    if dim is not None:
        check_truncation(truncate_dim, dim, encoder.model_name, "truncate_dim")
