"""Chroma's embedding functions as encoders."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from embstore.encoders.base import NamedEncoder, without_surrogates
from embstore.errors import InvalidInputError
from embstore.identity import Role, Setting

CHANGES_NO_VECTOR = ("api_key_env_var", "device")


class ChromaEncoder(NamedEncoder):
    """An embedding function with its identity: its name and its configuration."""

    @property
    def config(self) -> dict[str, Any]:
        """What the embedding function says to be built from.

        Raises
        ------
        InvalidInputError
            It has no name or no configuration, or one that is no JSON.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Chroma's own of a function that has neither
                name, config = self.model.name(), self.model.get_config()
            if not isinstance(name, str) or not isinstance(config, dict):
                raise TypeError("it has no name or no configuration")
            return json.loads(json.dumps(config))  # type: ignore[no-any-return]
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"a {type(self.model).__name__} cannot be built again from its name() and get_config() ({error}); give "
                f"an embedding function that can"
            ) from None

    def _own_name(self) -> str | None:
        config = self.config
        names = (config.get("model_name"), config.get("model"), self.model.name())
        return next(name for name in names if isinstance(name, str) and name)

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        config = {key: value for key, value in self.config.items() if key not in CHANGES_NO_VECTOR}
        return {
            "config": json.dumps(config, sort_keys=True, separators=(",", ":")),
            "embedding_function": self.model.name(),
        }

    def _has_query_vectors(self) -> bool:
        from chromadb.api.types import EmbeddingFunction

        return getattr(type(self.model), "embed_query", None) is not EmbeddingFunction.embed_query

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        embed = self.model.embed_query if role == "query" else self.model
        return embed(input=[without_surrogates(text) for text in texts])
