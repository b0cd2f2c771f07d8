"""An embedding function for plain Chroma collections that asks a cache first."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from embstore.cache import EmbeddingCache
from embstore.errors import InvalidInputError, MissingExtraError
from embstore.integrations._chroma_encoder import ChromaEncoder
from embstore.stores.locations import absolute, without_secrets

try:
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import known_embedding_functions, register_embedding_function
except ImportError as error:
    raise MissingExtraError("chromadb", "chroma", "an EmbstoreEmbeddingFunction") from error

# Chroma builds the function of a collection anew for each call: the same configuration is the same object here, so that
# no model is loaded and no canary encoded again (tests/test_chroma_function.py::test_a_collection_knows_its_function).
_built: dict[str, EmbstoreEmbeddingFunction] = {}
_building = threading.RLock()


@register_embedding_function
class EmbstoreEmbeddingFunction(EmbeddingFunction[Documents]):
    """Another embedding function, called only for texts that are not in a cache.

    Parameters
    ----------
    underlying : EmbeddingFunction
        One that has a name and a configuration, from which a collection that is opened again builds it.
    cache : EmbeddingCache, str or Path
        A path is opened when it is first needed, and noted in the collection: absolute, a URL without its password.
    model_name : str, optional
        The name to store vectors under; by default the "model_name" or "model" of the configuration.

    Raises
    ------
    InvalidInputError
        `underlying` says no name or no configuration.
    """

    def __init__(
        self, underlying: Any, cache: EmbeddingCache | str | Path = "embeddings.db", *, model_name: str | None = None
    ) -> None:
        self.underlying = underlying
        self._encoder = ChromaEncoder(underlying, model_name)
        self._cache = cache if isinstance(cache, EmbeddingCache) else None
        self._owns_cache = self._cache is None
        self._path = absolute(cache.location if isinstance(cache, EmbeddingCache) else cache)
        self._config = {
            "path": without_secrets(self._path),
            "model_name": model_name,
            "underlying": {"config": self._encoder.config, "name": underlying.name()},
        }
        known_embedding_functions[underlying.name()] = type(underlying)
        if self._owns_cache:  # one that was given may be closed while a collection lives on
            with _building:
                _built[json.dumps(self._config, sort_keys=True)] = self

    @property
    def cache(self) -> EmbeddingCache:
        """The cache, opened where it is not."""
        with _building:
            self._cache = self._cache or EmbeddingCache(self._path)
            return self._cache

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002
        """Give the vectors of documents: a list of ndarrays of shape (dim,), float32."""
        return list(self.cache.embed(input, self._encoder, progress=False))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002
        """Give the vectors of queries, which are the documents' where `underlying` has no `embed_query` of its own."""
        return list(self.cache.embed(input, self._encoder, role="query", progress=False))

    def close(self) -> None:
        """Close the cache where it was given as a path, and forget the function."""
        with _building:
            _built.pop(json.dumps(self._config, sort_keys=True), None)
            if self._owns_cache and self._cache is not None:
                self._cache.close()
                self._cache = None

    @staticmethod
    def name() -> str:
        """Give the name by which Chroma finds this class again."""
        return "embstore"

    def get_config(self) -> dict[str, Any]:
        """Give what `build_from_config` makes the same function of."""
        return json.loads(json.dumps(self._config))  # type: ignore[no-any-return]

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> EmbstoreEmbeddingFunction:
        """Give the function of a configuration; one object for each."""
        with _building:
            built = _built.get(json.dumps(config, sort_keys=True))
            if built is None:
                named = config["underlying"]
                underlying = known_embedding_functions[named["name"]].build_from_config(named["config"])
                built = EmbstoreEmbeddingFunction(underlying, config["path"], model_name=config["model_name"])
            return built

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model for a collection that holds vectors; the cache may be another."""
        for key in ("model_name", "underlying"):
            if old_config[key] != new_config[key]:
                raise InvalidInputError(f"the collection was filled with {old_config[key]!r}, not {new_config[key]!r}")

    def default_space(self) -> Space:
        """Give the space of `underlying`."""
        return self.underlying.default_space()  # type: ignore[no-any-return]

    def supported_spaces(self) -> list[Space]:
        """Give the spaces of `underlying`."""
        return self.underlying.supported_spaces()  # type: ignore[no-any-return]
