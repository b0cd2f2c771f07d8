"""The models on a server: found and stored."""

from __future__ import annotations

from dataclasses import replace

from embstore.codec import Vectors
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
            model, is_new = models.find(connection, identity), False
            check_dim(identity, dim, model, canary)
            if model is None:
                model, is_new = models.insert(connection, identity, dim, canary)
                check_dim(identity, dim, model, canary)
            if is_new:
                self._take_over(connection, identity)
                return model
            return models.locked(connection, model)

        return self._server.write(ensure)

    def ensure_variant(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """See `Store.ensure_variant`.

        Raises
        ------
        DimensionError
            As of `ensure_model`.
        """

        def ensure(_: Connection) -> StoredModel:
            model = self.find_variant(identity)
            wanted = identity if model is None else model.identity
            if model is None and identity.dtype == "float32":
                wanted = identity.stored_as(self.dtype)
            return self.ensure_model(wanted, dim, canary)

        return self._server.write(ensure)

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
