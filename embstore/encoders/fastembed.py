"""fastembed's TextEmbeddings as encoders."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embstore.encoders.base import NamedEncoder, without_surrogates
from embstore.encoders.fingerprint import fingerprint
from embstore.identity import Role, Setting

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_text_embedding(model: object) -> bool:
    """Tell whether `model` is a fastembed TextEmbedding, without importing the library for it."""
    library = sys.modules.get("fastembed")
    return library is not None and isinstance(model, library.TextEmbedding)


class FastembedEncoder(NamedEncoder):
    """A TextEmbedding with its identity: the commit or a fingerprint of its files, and what is done to their output.

    Documents go through `passage_embed` and queries through `query_embed`; where the model has neither of its own,
    they share their vectors.
    """

    batches_itself = True

    @property
    def dim(self) -> int | None:
        """How many values its vectors have."""
        return int(self.model.embedding_size)

    def encode(self, texts: Any, *, role: Role, batch_size: int) -> Any:
        """Encode texts in one call: the library batches them itself. See `NamedEncoder.encode`."""
        return self._encode_checked(list(texts), role, batch_size)

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        embed = self.model.query_embed if role == "query" else self.model.passage_embed
        return list(embed([without_surrogates(text) for text in texts], batch_size=batch_size))  # it gives a generator

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        inner = self.model.model
        folder = Path(inner._model_dir)
        settings: dict[str, Setting] = {}
        if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):  # as the hub's cache lays them
            settings["revision"] = folder.name
        else:
            settings["fingerprint"] = fingerprint(self.model, folder)
        if hasattr(inner, "POSTPROCESSING_MAPPING"):  # a custom model, whose pooling the user chose
            settings["pooling"] = str(getattr(inner._pooling, "value", inner._pooling))
            settings["normalization"] = bool(inner._normalization)
            settings["output_name"] = inner.POSTPROCESSING_MAPPING[inner.model_description.model].output_name
        return {key: value for key, value in settings.items() if value is not None}

    def _has_query_vectors(self) -> bool:
        from fastembed.text.text_embedding_base import TextEmbeddingBase

        kind = type(self.model.model)
        return (
            kind.query_embed is not TextEmbeddingBase.query_embed
            or kind.passage_embed is not TextEmbeddingBase.passage_embed
        )
