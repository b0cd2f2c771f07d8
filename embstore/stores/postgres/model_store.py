"""The models on a server: found and stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from embstore.codec import Vectors
from embstore.errors import UnknownModelError
from embstore.identity import DTYPES, Dtype, ModelIdentity
from embstore.stores.base import StoredModel
from embstore.stores.dims import check_dim
from embstore.stores.postgres import collections, models
from embstore.stores.postgres.connection import Server
from embstore.stores.postgres.pool import Connection


class PostgresModels:
    """The part of a `Store` on a server that is about models; see `embstore.stores.base.Store` for each method.

    Parameters
    ----------
    server : Server
    dtype : "float32" or "float16"
        The format of models that are new.
    """

    def __init__(self, server: Server, dtype: Dtype) -> None:
        self._server = server
        self.dtype: Dtype = dtype
        self._found: dict[ModelIdentity, tuple[StoredModel, int]] = {}  # with the checksums of their rows

    def find_model(self, identity: ModelIdentity) -> StoredModel | None:
        """See `Store.find_model`."""
        return self._server.read(lambda connection: models.find(connection, identity))

    def find_variant(self, identity: ModelIdentity) -> StoredModel | None:
        """See `Store.find_variant`."""
        model = self._server.read(lambda connection: models.find_variant(connection, identity, self.dtype))
        if model is not None:
            self._found[identity] = (model, models.checksum(model))
        return model

    def find_models(self, model_name: str | None = None) -> list[StoredModel]:
        """See `Store.find_models`."""
        return self._server.read(lambda connection: models.find_by_name(connection, model_name))

    def ensure_model(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """See `Store.ensure_model`.

        Raises
        ------
        DimensionError
            The model is stored with another dimension, or it is more than `MAX_DIM`.
        """

        def ensure(connection: Connection) -> StoredModel:
            while True:
                find = partial(models.find, connection, identity)
                model = self._locked_or_new(connection, find, identity, dim, canary)
                if model.identity == identity:  # or it was converted after it was found
                    return model

        return self._server.write(ensure)

    def ensure_variant(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """See `Store.ensure_variant`.

        Raises
        ------
        DimensionError
            As of `ensure_model`.
        """

        def ensure(connection: Connection) -> StoredModel:
            find = partial(models.find_variant, connection, identity, self.dtype)
            new = identity.stored_as(self.dtype) if identity.dtype == "float32" else identity
            return self._locked_or_new(connection, find, new, dim, canary)

        return self._server.write(ensure)

    def _locked_or_new(
        self,
        connection: Connection,
        find: Callable[[], StoredModel | None],
        new: ModelIdentity,
        dim: int,
        canary: Vectors | None,
    ) -> StoredModel:
        """Give the model that is found, as nobody changes or removes it before this transaction has ended.

        Each statement sees what others have committed before it: a model that was found is another when it is locked
        (tests/server/test_writing_vectors.py::test_a_model_that_is_converted_once_it_was_found_is_the_same_one).
        """
        while True:
            model = find()
            if model is None:
                models.lock_new(connection)
                model = find()
            check_dim(new if model is None else model.identity, dim, model, canary)
            if model is None:
                model, _ = models.insert(connection, new, dim, canary)
                self._take_over(connection, new)
                return model
            with suppress(UnknownModelError):
                return models.locked(connection, model)

    def set_canary(self, model: StoredModel, canary: Vectors) -> StoredModel:
        """See `Store.set_canary`."""

        def set_(connection: Connection) -> StoredModel:
            current = models.find_to_change(connection, model)
            if current is None or current.canary is not None:
                return current or model
            current = replace(current, canary=canary)
            models.update(connection, current)
            return current

        return self._server.write(set_)

    def _take_over(self, connection: Connection, identity: ModelIdentity) -> None:
        """Let a model that is new have the collections of the same one in another format, where that is not stored."""
        for dtype in DTYPES:
            other = identity.stored_as(dtype)
            if models.find(connection, other) is None:
                collections.change_model(connection, other, identity)
