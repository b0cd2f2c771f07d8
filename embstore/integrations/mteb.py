"""A cache behind mteb's CachedEmbeddingWrapper, with the model in its key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.cache import EmbeddingCache
from embstore.codec import Vectors, as_vectors
from embstore.encoders.sentence_transformer import is_sentence_transformer
from embstore.errors import MissingExtraError
from embstore.identity import content_hash
from embstore.integrations._mteb_identity import KnownOnly, content_of, identity_of
from embstore.stores.locations import folder_of

COLLECTION = "mteb"


def cached(model: Any, cache: EmbeddingCache | str | Path, *, model_name: str | None = None) -> Any:
    """Wrap a model for `mteb.evaluate`, so that no item of a task is encoded twice, but for one that tells the model.

    Parameters
    ----------
    model : mteb encoder or SentenceTransformer
    cache : EmbeddingCache, str or Path
        One file for all models and tasks. A path is opened when it is needed, and closed with the wrapper.
    model_name : str, optional
        The name to store vectors under; by default that of its `mteb_model_meta`.

    Returns
    -------
    CachedEmbeddingWrapper

    Raises
    ------
    MissingExtraError, ModelNameError
        mteb is not installed, or the model says no name and none was given.
    """
    try:
        from mteb.models import SentenceTransformerEncoderWrapper

        from embstore.integrations._mteb_wrapper import EmbstoreWrapper
    except ImportError as error:
        raise MissingExtraError("mteb", "mteb", "a model that mteb asks through a cache") from error
    if is_sentence_transformer(model):
        model = SentenceTransformerEncoderWrapper(model)
    folder = folder_of(cache.location if isinstance(cache, EmbeddingCache) else cache)
    identity_of(model, model_name, ())  # refuses a model without a name now, not once a task is loaded
    backend: Any = partial(EmbstoreBackend, folder=folder, model=model, cache=cache, model_name=model_name)
    return EmbstoreWrapper(model, folder, cache_backend=backend)


class EmbstoreBackend:
    """What mteb calls a cache backend: the vectors of one model in one task, with one kind of prompt.

    mteb tells them apart by directories, and models not at all. Here all are in the identity.

    Parameters
    ----------
    directory, folder : Path
        What mteb would keep files in, and what of that is the same for all tasks. Nothing is put there.
    model, cache, model_name
        As of `cached`.
    """

    def __init__(
        self, directory: Path | None = None, *, folder: Path, model: Any, cache: Any, model_name: str | None = None
    ) -> None:
        parts = () if directory is None else Path(directory).relative_to(folder).parts
        self.identity = identity_of(model, model_name, parts)
        self.is_checked = False  # the model, by what is stored
        self._known = KnownOnly(self.identity)
        self._given = cache
        self._cache = cache if isinstance(cache, EmbeddingCache) else None

    def add(self, item: Sequence[dict[str, Any]], vectors: Any) -> None:
        """Store the vectors of n items, all in one transaction: array-like of shape (n, dim), float."""
        contents = [content_of(one) for one in item]
        doc_ids = [content_hash(content).hex() for content in contents]
        self.opened().put_many(doc_ids, contents, vectors, model=self.identity, collection=COLLECTION)

    def get_many(self, items: Sequence[dict[str, Any]]) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Tell which of n items are stored and sound, (n,) bool, and give their vectors, (n, dim) float32."""
        return self.opened().stored_vectors([content_hash(content_of(item)) for item in items], self._known)

    def get_vector(self, item: dict[str, Any]) -> Vectors | None:
        """Give the vector of an item, shape (dim,), float32; None where none is stored, or a damaged one."""
        found, vectors = self.get_many([item])
        return as_vectors(vectors[0]) if found[0] else None

    def __contains__(self, item: dict[str, Any]) -> bool:
        return self.get_vector(item) is not None

    def save(self) -> None:
        """Do nothing: what was added is stored."""

    def load(self) -> None:
        """Do nothing: what is stored is read when it is asked for."""

    def close(self) -> None:
        """Close the cache where it was given as a path; it is opened again when it is needed."""
        if self._cache is not None and self._cache is not self._given:
            self._cache.close()
            self._cache = None

    def opened(self) -> EmbeddingCache:
        """Give the cache, opened where it is not."""
        if self._cache is None:
            assert not isinstance(self._given, EmbeddingCache)
            self._cache = EmbeddingCache(self._given)
        return self._cache
