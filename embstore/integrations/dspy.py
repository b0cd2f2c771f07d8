"""An embedder for DSPy, or for whatever calls a function with texts, that asks a cache first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embstore.cache import EmbeddingCache
from embstore.codec import Vectors, as_vectors
from embstore.encoders import NamedEncoder, as_encoder
from embstore.encoders.callables import CallableEncoder
from embstore.errors import InvalidInputError
from embstore.identity import Role, Setting
from embstore.integrations._owning import OwnsCache, opened
from embstore.integrations._underlying import ADDRESSES, bare_address

# What is no part of an identity, which is stored: secrets, and what says how a request is sent, not what is asked for.
LEFT_OUT = ("client", "extra_headers", "headers", "max_retries", "num_retries", "timeout")
SECRETS = ("auth", "credential", "key", "password", "secret", "token")


class CachedEmbedder(OwnsCache):
    """A callable from texts to vectors that encodes no text twice.

    Queries and documents share their vectors: DSPy's retrievers call one function for both.

    Parameters
    ----------
    embedder : dspy.Embedder, callable or Encoder
    cache : EmbeddingCache, str or Path
        A path is opened, and closed by `close`.
    model_name : str, optional
        The name to store vectors under. A dspy.Embedder of a hosted model has one of its own; a function has none.

    Raises
    ------
    InvalidTypeError, ModelNameError, StoreError
    """

    def __init__(self, embedder: Any, cache: EmbeddingCache | str | Path, *, model_name: str | None = None) -> None:
        self.embedder = embedder
        self._encoder: NamedEncoder
        if all(hasattr(embedder, name) for name in ("model", "caching", "default_kwargs")):
            self._encoder = DspyEncoder(embedder, model_name)
        else:
            self._encoder = as_encoder(embedder, model_name)
        self._encoder.identity("document")  # refuses one without a name now
        self.cache, self._opened = opened(cache)

    def __call__(
        self, inputs: str | list[str], batch_size: int | None = None, caching: bool | None = None, **kwargs: Any
    ) -> Vectors:
        """Give the vectors of texts.

        Parameters
        ----------
        inputs : str or list of n str
        batch_size : int, optional
            The most texts that the embedder is given at once, 200 by default as in DSPy.
        caching : bool, optional
            Taken and not used: DSPy's own cache is left out.

        Returns
        -------
        ndarray of shape (dim,) for a str, (n, dim) otherwise, float32

        Raises
        ------
        InvalidInputError
            Further arguments, which may change the vectors: give them to the embedder when it is made.
        EmbstoreError
            As of `EmbeddingCache.embed`.
        """
        if kwargs:
            raise InvalidInputError(f"{', '.join(sorted(kwargs))}: give it to the embedder when it is made")
        texts = [inputs] if isinstance(inputs, str) else inputs
        vectors = self.cache.embed(texts, self._encoder, batch_size=batch_size or 200, progress=False)
        return as_vectors(vectors[0] if isinstance(inputs, str) else vectors)

    async def acall(self, inputs: str | list[str], **options: Any) -> Vectors:
        """Give what a call gives, with the work done in another thread."""
        return await asyncio.to_thread(self, inputs, **options)


class DspyEncoder(CallableEncoder):
    """A dspy.Embedder with its identity: the hosted model's name and what every request asks for."""

    def _own_name(self) -> str | None:
        return self.model.model if isinstance(self.model.model, str) else None

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        asked = {
            key: bare_address(value) if key in ADDRESSES and isinstance(value, str) else value
            for key, value in self.model.default_kwargs.items()
            if key not in LEFT_OUT and not any(secret in key.lower() for secret in SECRETS)
        }
        plain = (str, int, float, bool, type(None))
        return {key: value if isinstance(value, plain) else json.dumps(value) for key, value in asked.items()}

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        # Without DSPy's own cache, from which the canary of a model that has changed would come back unchanged.
        return self.model(texts, caching=False)
