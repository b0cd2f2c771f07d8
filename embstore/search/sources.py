"""Where the vectors of an engine come from: the model itself, or a cache in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from embstore.codec import Vectors
from embstore.encoders import NamedEncoder, as_encoder
from embstore.errors import UnknownModelError
from embstore.identity import check_model_name
from embstore.progress import progress_bar

if TYPE_CHECKING:
    from embstore.cache import EmbeddingCache

DEFAULT_MODEL = "all-MiniLM-L6-v2"

_BATCH = 32
_GROUP = 8 * _BATCH  # texts between two steps of the bar; a SentenceTransformer sorts by length within a group


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
    """

    checks_model = True

    def __init__(self, encoder: NamedEncoder) -> None:
        self.encoder = encoder

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str], progress: bool | None) -> tuple[Vectors, int]:
        """Encode the distinct ones of n > 0 texts."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        distinct = list(rows)
        groups = []
        with progress_bar(len(distinct), "Encoding", progress, "text") as bar:
            for start in range(0, len(distinct), _GROUP):
                group = distinct[start : start + _GROUP]
                groups.append(self.encoder.encode(group, role="document", batch_size=_BATCH))
                bar.update(len(group))
        return np.concatenate(groups)[[rows[text] for text in texts]], len(distinct)

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Encode one text."""
        return self.encoder.encode([text], role="document", batch_size=1)

    def query(self, text: str) -> Vectors:
        """Encode one query."""
        vector: Vectors = self.encoder.encode([text], role="query", batch_size=1)[0]
        return vector

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name."""
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

    def __init__(self, encoder: NamedEncoder, cache: EmbeddingCache, collection: str) -> None:
        self.encoder = encoder
        self.cache = cache
        self.checks_model = cache.check_canary
        self._collection = collection

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str], progress: bool | None) -> tuple[Vectors, int]:
        """Look n > 0 texts up, encode and store the missing ones."""
        report = self.cache.fill(doc_ids, texts, self.encoder, collection=self._collection, progress=progress)
        return report.vectors, report.n_encoded

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Encode one text and store its vector in place of any there."""
        vectors = self.encoder.encode([text], role="document", batch_size=1)
        self.cache.put_many([doc_id], [text], vectors, model=self.encoder, collection=self._collection)
        return vectors

    def query(self, text: str) -> Vectors:
        """Look a query up, encode and store it where it is missing."""
        return self.cache.embed_query(text, self.encoder)

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name, in the cache as well; nothing may be stored under the old one."""
        with suppress(UnknownModelError):
            self.cache.rename_model(old, new)
        self.encoder = as_encoder(self.encoder, new)
