"""PutEmbeddings: storing vectors that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from embstore.canary import ModelGuard
from embstore.encoders import NamedEncoder, as_encoder
from embstore.errors import InvalidInputError
from embstore.formats import check_range
from embstore.identity import Dtype, ModelIdentity, Role, Setting, check_role
from embstore.inputs import (
    check_collection,
    check_doc_ids,
    check_same_length,
    check_texts,
    check_vectors,
    content_of_each,
    first_rows,
    hash_texts,
)
from embstore.known import KnownTexts
from embstore.naming import names_dtype


class PutEmbeddings(KnownTexts):
    """What is stored without being encoded here; the model that it is said to be of is compared where it is live.

    Parameters
    ----------
    path, timeout_s, check_canary, allow_network_filesystem, dtype
        As of `EmbeddingCache`.
    """

    def __init__(
        self,
        path: str | Path = "embeddings.db",
        *,
        timeout_s: float = 30.0,
        check_canary: bool = True,
        allow_network_filesystem: bool = False,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__(path, timeout_s=timeout_s, allow_network_filesystem=allow_network_filesystem, dtype=dtype)
        self.check_canary = check_canary
        self._guard = ModelGuard(enabled=check_canary)

    def put_many(
        self,
        doc_ids: Iterable[str],
        texts: Iterable[str],
        vectors: npt.ArrayLike,
        *,
        model: Any = None,
        model_name: str | None = None,
        settings: Mapping[str, Setting] | None = None,
        role: Role = "document",
        collection: str = "",
    ) -> int:
        """Store vectors that were computed elsewhere, in place of any there; all in one transaction.

        Parameters
        ----------
        doc_ids : iterable of n str
        texts : iterable of n str
        vectors : array-like of shape (n, dim), float
            Row i is the vector of the i-th text; stored in the format of the model.
        model : Encoder or ModelIdentity, optional
            Whose vectors they are. An encoder is checked against the stored canary.
        model_name : str, optional
            The same by name: alone it means the one stored model of that name, or a new one without settings.
        settings : mapping, optional
            With `model_name`: what else changes the model's vectors. "dtype" among them says the format, "float32" or
            "float16"; otherwise it is that in which the model is stored, or the cache's own for a new one.
        role : "document" or "query"
        collection : str

        Returns
        -------
        int
            How many vectors are new: contents that had none.

        Raises
        ------
        InvalidInputError, InvalidTypeError, DimensionError, ModelChangedError, AmbiguousModelError, StoreError
            Nothing was written. OutOfRangeError, an InvalidInputError, where float16 has no place for a value.
        """
        doc_ids, texts = check_doc_ids(doc_ids), check_texts(texts)
        check_same_length(doc_ids, texts)
        matrix = check_vectors(vectors, len(texts))
        content_hashes = hash_texts(texts)
        content_of = content_of_each(doc_ids, content_hashes)
        row_of = first_rows(content_hashes, matrix)
        check_collection(collection)
        identity, encoder = self._owner(model, model_name, settings, check_role(role))
        if not texts:
            return 0
        rows = list(row_of.values())
        matrix = matrix[rows]  # a copy: it may be an array that the encoder fills again with its canary
        canary = None
        if encoder is not None:
            canary = self._guard.check(encoder, role, identity, self._store.find_variant(identity), None)
        ensure = self._store.ensure_model if names_dtype(settings) else self._store.ensure_variant

        def put() -> int:
            stored = ensure(identity, matrix.shape[1], canary)
            if encoder is not None:
                self._guard.compare(encoder, stored, canary)
            check_range(matrix, stored.dtype, lambda i: f"the vector of doc_id {doc_ids[rows[i]]!r:.80}")
            n_new = self._store.replace_vectors(stored, list(row_of), matrix, standalone=False)
            self._store.put_documents(stored, collection, list(content_of), list(content_of.values()))
            return n_new

        return self._store.write(put)

    def identity_of(
        self,
        model: Any = None,
        *,
        model_name: str | None = None,
        settings: Mapping[str, Setting] | None = None,
        role: Role = "document",
    ) -> ModelIdentity:
        """Tell under which identity `put_many` would store vectors of a model; nothing is written.

        Parameters
        ----------
        model, model_name, settings, role
            As of `put_many`; a model may also be the name of one that can be loaded.

        Returns
        -------
        ModelIdentity

        Raises
        ------
        InvalidInputError, ModelNameError, ModelLoadError, AmbiguousModelError
            Neither is given, or it is not clear which.
        """
        return self._owner(model, model_name, settings, check_role(role))[0]

    def _owner(
        self, model: Any, model_name: str | None, settings: Mapping[str, Setting] | None, role: Role
    ) -> tuple[ModelIdentity, NamedEncoder | None]:
        """Tell whose vectors are put, and the live encoder where one was given."""
        if model is None:
            if model_name is None:
                raise InvalidInputError("whose vectors are these? pass model= (an encoder) or model_name=")
            return self._identity_to_put(model_name, settings, role), None
        if settings is not None:
            raise InvalidInputError("settings= goes with model_name= alone; a model says its own")
        if isinstance(model, ModelIdentity):
            return ModelIdentity.of(model_name or model.model_name, model.settings, role=role), None
        encoder = as_encoder(model, model_name)
        return encoder.identity(role), encoder
