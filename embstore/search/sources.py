"""Where the vectors of an engine come from: the model itself, or a cache in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embstore.canary import encode_canary
from embstore.codec import Vectors
from embstore.encoders import NamedEncoder, as_encoder
from embstore.errors import UnknownModelError
from embstore.identity import Role, check_model_name, content_hash
from embstore.search.defaults import DEFAULT_MODEL

if TYPE_CHECKING:
    from embstore.cache import EmbeddingCache


_BATCH = 32


def named_encoder(model: Any, model_name: str | None) -> NamedEncoder:
    """Give the encoder that the arguments of an engine mean: a name without a model is that of the model to load."""
    if model_name is not None:
        check_model_name(model_name)
    if model is None:
        return as_encoder(model_name or DEFAULT_MODEL)
    return as_encoder(model, model_name)


class DirectSource:
    """A `VectorSource` that asks the model each time.

    Parameters
    ----------
    encoder : NamedEncoder
    check_canary : bool
        Whether the model is compared with the one that filled an index.
    """

    keeps_vectors = False
    cuts = False

    def __init__(self, encoder: NamedEncoder, *, check_canary: bool = True) -> None:
        self.encoder = encoder
        self._check_canary = check_canary

    def canary(self) -> Vectors | None:
        """Encode the canary where models are to be compared."""
        return encode_canary(self.encoder, "document") if self._check_canary else None

    def missing(self, texts: Sequence[str]) -> list[str]:
        """List all distinct texts."""
        return list(dict.fromkeys(texts))

    def estimate_s(self, n_chars: int) -> float | None:
        """Give None: nobody notes how long the model takes."""
        return None

    def stored(self, content_hashes: Sequence[bytes]) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Find none: nothing is kept."""
        n = len(content_hashes)
        return np.zeros(n, dtype=np.bool_), np.empty((n, 0), dtype=np.float32)

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str]) -> tuple[Vectors, int]:
        """Encode the distinct ones of n > 0 texts."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = self.encoder.encode(list(rows), role="document", batch_size=_BATCH)
        return vectors[[rows[text] for text in texts]], len(rows)

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Encode one text."""
        return self.encoder.encode([text], role="document", batch_size=1)

    def encode(self, text: str) -> Vectors:
        """Encode one text."""
        return _encode(self.encoder, text, "document")

    def query(self, text: str) -> Vectors:
        """Encode one query."""
        return _encode(self.encoder, text, "query")

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name."""
        if self.encoder.model_name != old:
            raise UnknownModelError(f"the engine's model is {self.encoder.model_name!r}, not {old!r}", model_name=old)
        self.encoder = as_encoder(self.encoder, new)


class CachedSource:
    """A `VectorSource` that asks the model only for what its cache does not have.

    Parameters
    ----------
    encoder : NamedEncoder
    cache : EmbeddingCache
    collection : str
        Keeps the ids of several collections in one cache apart.
    """

    keeps_vectors = True
    cuts = False

    def __init__(self, encoder: NamedEncoder, cache: EmbeddingCache, collection: str) -> None:
        self.encoder = encoder
        self.cache = cache
        self._collection = collection

    def canary(self) -> Vectors | None:
        """Give the canary that the cache compares models by."""
        return self.cache.canary(self.encoder)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """List the distinct texts that the cache does not have."""
        return self.cache.missing(texts, self.encoder)

    def estimate_s(self, n_chars: int) -> float | None:
        """Estimate by what the model has taken for the texts of the cache."""
        return self.cache.estimate_s(n_chars, self.encoder)

    def stored(self, content_hashes: Sequence[bytes]) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Read what the cache has, every checksum verified."""
        return self.cache.stored_vectors(content_hashes, self.encoder)

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str]) -> tuple[Vectors, int]:
        """Look n > 0 texts up, encode and store the missing ones."""
        report = self.cache.fill(doc_ids, texts, self.encoder, collection=self._collection, progress=False)
        return report.vectors, report.n_encoded

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Encode one text and store its vector in place of any there."""
        vectors = self.encoder.encode([text], role="document", batch_size=1)
        self.cache.put_many([doc_id], [text], vectors, model=self.encoder, collection=self._collection)
        found, stored = self.cache.stored_vectors([content_hash(text)], self.encoder)  # as it will be found
        return stored if found.all() else vectors

    def encode(self, text: str) -> Vectors:
        """Encode one text, whatever the cache has."""
        return _encode(self.encoder, text, "document")

    def query(self, text: str) -> Vectors:
        """Look a query up, encode and store it where it is missing."""
        return self.cache.embed_query(text, self.encoder)

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name, in the cache as well, where nothing need be stored under the old one."""
        try:
            self.cache.rename_model(old, new)
        except UnknownModelError:
            if self.encoder.model_name != old:
                raise
        self.encoder = as_encoder(self.encoder, new)


def _encode(encoder: NamedEncoder, text: str, role: Role) -> Vectors:
    vector: Vectors = encoder.encode([text], role=role, batch_size=1)[0]
    return vector
