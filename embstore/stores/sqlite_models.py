"""The models in an SQLite file: found, stored, renamed and converted."""

from __future__ import annotations

from dataclasses import replace
from sqlite3 import Connection

from embstore.codec import Vectors
from embstore.errors import ModelExistsError, UnknownModelError
from embstore.identity import DTYPES, Dtype, ModelIdentity
from embstore.stores.base import StoredModel
from embstore.stores.connection import Database
from embstore.stores.dims import check_dim
from embstore.stores.tables import collections, conversion, models


class SQLiteModels:
    """The part of an SQLite `Store` that is about models; see `embstore.stores.base.Store` for what each method does.

    Parameters
    ----------
    database : Database
    dtype : "float32" or "float16"
        The format of models that are new.
    """

    def __init__(self, database: Database, dtype: Dtype) -> None:
        self._database = database
        self.dtype: Dtype = dtype
        self._found: dict[ModelIdentity, tuple[StoredModel, int]] = {}  # with the checksums of their rows

    def find_model(self, identity: ModelIdentity) -> StoredModel | None:
        """See `Store.find_model`."""
        with self._database.reading() as connection:
            return models.find(connection, identity)

    def find_variant(self, identity: ModelIdentity) -> StoredModel | None:
        """See `Store.find_variant`."""
        with self._database.reading() as connection:
            model = models.find_variant(connection, identity, self.dtype)
        if model is not None:
            self._found[identity] = (model, models.checksum(model))
        return model

    def find_models(self, model_name: str | None = None) -> list[StoredModel]:
        """See `Store.find_models`."""
        with self._database.reading() as connection:
            return models.find_by_name(connection, model_name)

    def ensure_model(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """See `Store.ensure_model`.

        Raises
        ------
        DimensionError
            The model is stored with another dimension, or it is more than `MAX_DIM`.
        """
        with self._database.writing() as connection:
            model = models.find(connection, identity)
            check_dim(identity, dim, model, canary)
            if model is None:
                model = models.insert(connection, identity, dim, canary)
                self._take_over(connection, identity)
            return model

    def ensure_variant(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """See `Store.ensure_variant`.

        Raises
        ------
        DimensionError
            As of `ensure_model`.
        """
        with self._database.writing():
            model = self.find_variant(identity)
            if model is None and identity.dtype == "float32":
                identity = identity.stored_as(self.dtype)
            return self.ensure_model(identity if model is None else model.identity, dim, canary)

    def set_canary(self, model: StoredModel, canary: Vectors) -> StoredModel:
        """See `Store.set_canary`."""
        with self._database.writing() as connection:
            current = models.find(connection, self._as_now(connection, model).identity)
            if current is None or current.canary is not None:
                return current or model
            current = replace(current, canary=canary)
            models.update(connection, current)
            return current

    def rename_model(self, old: str, new: str) -> None:
        """See `Store.rename_model`.

        Raises
        ------
        UnknownModelError
            There is no `old`.
        ModelExistsError
            There is a `new` with the settings of one of `old`, in whatever format; nothing was changed.
        """
        with self._database.writing() as connection:
            found = models.find_by_name(connection, old)
            if not found:
                raise UnknownModelError(f"no model {old!r} is stored in {self._database.path!r}", model_name=old)
            there = {model.identity.stored_as("float32"): model for model in models.find_by_name(connection, new)}
            for model in found:
                identity = model.identity.renamed(new)
                other = there.get(identity.stored_as("float32"))
                if other is not None:
                    raise ModelExistsError(
                        f"{str(other.identity)!r} is stored already, so {old!r} cannot take its name; "
                        f"clear(model_name=...) one of the two, or choose another name",
                        model_name=new,
                    )
                models.update(connection, replace(model, identity=identity))
            collections.rename_model(connection, old, new)

    def convert(self, model: StoredModel, dtype: Dtype) -> int:
        """See `Store.convert`: one transaction, for which the file is locked as long as it takes.

        Raises
        ------
        UnknownModelError
            The model is not stored any more.
        ModelExistsError
            It is stored in that format too.
        DamagedStoreError, OutOfRangeError
            A vector is damaged, or has no place in the format. In each case nothing was changed.
        """
        with self._database.writing() as connection:
            current = models.find(connection, self._as_now(connection, model).identity)
            if current is None or current.model_id != model.model_id:
                raise UnknownModelError(
                    f"model {str(model.identity)!r} was removed from {self._database.path!r} meanwhile",
                    model_name=model.identity.model_name,
                )
            if current.dtype == dtype:
                return 0
            converted = replace(current, identity=current.identity.stored_as(dtype))
            if models.find(connection, converted.identity) is not None:
                raise ModelExistsError(
                    f"{str(converted.identity)!r} is stored already, beside {str(current.identity)!r}, which so cannot "
                    f"become it; clear(model_name=...) forgets both",
                    model_name=current.identity.model_name,
                )
            n_converted = conversion.convert(connection, current, dtype)
            models.update(connection, converted)
            collections.change_model(connection, current.identity, converted.identity)
            return n_converted

    def _take_over(self, connection: Connection, identity: ModelIdentity) -> None:
        """Let a model that is new have the collections of the same one in another format, where that is not stored."""
        for dtype in DTYPES:
            other = identity.stored_as(dtype)
            if models.find(connection, other) is None:
                collections.change_model(connection, other, identity)

    def _as_now(self, connection: Connection, model: StoredModel) -> StoredModel:
        """Give a model that was found a while ago in its present format, which nobody changes in this transaction."""
        dtype = models.dtype_now(connection, model)
        return model if dtype == model.dtype else replace(model, identity=model.identity.stored_as(dtype))
