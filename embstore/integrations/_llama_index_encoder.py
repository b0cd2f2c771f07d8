"""LlamaIndex's embedding models as encoders."""

from __future__ import annotations

from typing import Any

from embstore.errors import InvalidInputError
from embstore.identity import Role
from embstore.integrations._underlying import UnderlyingEncoder


class LlamaIndexEncoder(UnderlyingEncoder):
    """Asks a model by its public methods, which split batches, count events and wait for a rate limiter."""

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        refuse(self.model.embeddings_cache)
        if self._distinct(role) == "query":
            return [self.model.get_query_embedding(text) for text in texts]
        return self.model.get_text_embedding_batch(texts)


def refuse(embeddings_cache: object) -> None:
    """Raise InvalidInputError where a model has a cache of LlamaIndex's own."""
    if embeddings_cache is not None:
        raise InvalidInputError(
            "embeddings_cache knows a vector by its text alone, so that a query is given a text's vector, and one "
            "model that of another; leave it None where embstore is the cache"
        )
