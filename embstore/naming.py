"""NamedModels: which stored model a name stands for, other names for it, and other formats."""

from __future__ import annotations

from collections.abc import Mapping

from embstore.errors import AmbiguousModelError, UnknownModelError
from embstore.identity import Dtype, ModelIdentity, Role, Setting, check_dtype, check_model_name, check_role
from embstore.stores.base import Store, StoredModel


class NamedModels:
    """The models of a store by name. A name that several models have needs the role or the settings of one.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def rename_model(self, old: str, new: str) -> None:
        """Give a model, all identities of its name, another name; every vector stays.

        Raises
        ------
        UnknownModelError
            There is no `old`.
        ModelExistsError
            There is a `new` with the settings of one of `old`.
        InvalidInputError
            `new` is no usable name. In each case nothing was changed.
        """
        self._store.rename_model(check_model_name(old), check_model_name(new))

    def convert(
        self,
        model_name: str,
        *,
        dtype: Dtype,
        role: Role = "document",
        settings: Mapping[str, Setting] | None = None,
    ) -> int:
        """Store the vectors of a model in another format, without the model; all in one transaction.

        To "float16" each value is rounded as `EmbeddingCache` says, and the rows take half the space, which `compact`
        gives back to the file system. To "float32" the values stay what they are. Every checksum is verified on the
        way. Documents, indexes and the canary stay as they are. Nobody else can use the file meanwhile, some 20 s for a
        million vectors of 384 values; who waits longer than `timeout_s` gets a StoreBusyError.

        Parameters
        ----------
        model_name : str
        dtype : "float16" or "float32"
        role, settings
            Which of several models of the name, as of `matrix`.

        Returns
        -------
        int
            How many vectors were converted; 0 where the model was stored so already.

        Raises
        ------
        UnknownModelError, AmbiguousModelError
            Of the name.
        ModelExistsError
            The model is stored in both formats.
        DamagedStoreError
            A vector is not what was written; the message names its document.
        OutOfRangeError
            A value is over 65504, the largest of float16.
        InvalidInputError, InvalidTypeError, ReadOnlyError, StoreBusyError, StoreFullError
            In each case nothing was changed.
        """
        model = self._find_model(model_name, settings, check_role(role), preferred=_other(check_dtype(dtype)))
        return 0 if model.dtype == dtype else self._store.convert(model, dtype)

    def stored_model(
        self,
        model_name: str,
        *,
        role: Role = "document",
        settings: Mapping[str, Setting] | None = None,
    ) -> StoredModel:
        """Give the one stored model that a name stands for.

        Parameters
        ----------
        model_name, role, settings
            As of `matrix`.

        Raises
        ------
        UnknownModelError, AmbiguousModelError
            There is none, or more than one.
        """
        return self._find_model(model_name, settings, check_role(role))

    def _find_model(
        self,
        model_name: str,
        settings: Mapping[str, Setting] | None,
        role: Role,
        preferred: Dtype | None = None,
    ) -> StoredModel:
        """Find the one stored model that a name, with settings or without, stands for."""
        found = self._candidates(model_name, settings, role, preferred)
        if not found:
            raise self._unknown(model_name, settings, role)
        return found[0]

    def _identity_to_put(self, model_name: str, settings: Mapping[str, Setting] | None, role: Role) -> ModelIdentity:
        """Give the one stored identity of a name, or a new one; it says a format only where the settings do."""
        found = self._candidates(model_name, settings, role)
        if names_dtype(settings) or not found:
            return ModelIdentity.of(model_name, settings, role=role)
        return found[0].identity.stored_as("float32")

    def _candidates(
        self,
        model_name: str,
        settings: Mapping[str, Setting] | None,
        role: Role,
        preferred: Dtype | None = None,
    ) -> list[StoredModel]:
        """Give none or one stored model; AmbiguousModelError where more match.

        Of a model that is stored in both formats, and where the settings say none, that in the preferred one, which by
        default is the store's own.
        """
        preferred = preferred or self._store.dtype
        named = self._store.find_models(check_model_name(model_name))
        named.sort(key=lambda model: model.dtype != preferred)
        if settings is not None:
            wanted = ModelIdentity.of(model_name, settings, role=role)
            if names_dtype(settings):
                return [model for model in named if model.identity == wanted]
            return [model for model in named if model.identity.stored_as("float32") == wanted][:1]
        of_role = [model for model in named if (model.identity.settings.get("role") == "query") == (role == "query")]
        found: dict[ModelIdentity, StoredModel] = {}
        for model in of_role:
            found.setdefault(model.identity.stored_as("float32"), model)
        if len(found) > 1:
            raise AmbiguousModelError(model_name, [model.identity for model in found.values()])
        return list(found.values())

    def _unknown(self, model_name: str, settings: Mapping[str, Setting] | None, role: Role) -> UnknownModelError:
        stored = "; ".join(str(model.identity) for model in self._store.find_models())
        message = f"model {model_name!r}"
        if settings is not None:
            message += f" with settings {dict(settings)!r}"
        if role == "query":
            message += " in the role 'query' (where queries and documents share vectors, ask for role='document')"
        message += f" is not stored in {self._store.location!r}; stored are: {stored or 'none'}"
        return UnknownModelError(message, model_name=model_name)


def _other(dtype: Dtype) -> Dtype:
    return "float32" if dtype == "float16" else "float16"


def names_dtype(settings: Mapping[str, Setting] | None) -> bool:
    """Tell whether settings say in which format a model is stored."""
    return settings is not None and "dtype" in settings
