"""The Encoder protocol, and what gives any encoder a name, a role and checked output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from embstore.codec import QuantisedError, Vectors, finite_vectors
from embstore.errors import (
    EncoderError,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    ModelNameError,
    PrecisionError,
)
from embstore.identity import ModelIdentity, Role, Setting

REPLACEMENT = "\ufffd"


@runtime_checkable
class Encoder(Protocol):
    """What turns texts into vectors: any object with this one method.

    An encoder may also have

    - ``model_name`` (str): its name where none is given with `model_name=`,
    - ``model_settings`` (mapping of str to scalars): whatever else changes its vectors,
    - ``encode_query``, ``encode_document``: called in place of `encode` for texts of that role.
    """

    def encode(self, texts: list[str], /) -> Any:
        """Encode texts: array-like of shape (len(texts), dim), one finite float vector a text, in order."""


class NamedEncoder:
    """An encoder together with what identifies its vectors.

    Parameters
    ----------
    model : Encoder
        The object that encodes.
    model_name : str, optional
        Its name; read off the object where it is None.
    """

    batches_itself = False
    """Whether one call of the model may be given more texts than a batch."""

    def __init__(self, model: Any, model_name: str | None = None) -> None:
        self.model = model
        self._model_name = model_name

    @property
    def model_name(self) -> str:
        """The name of the model.

        Raises
        ------
        ModelNameError
            None was given and the object has none.
        """
        name = self._model_name if self._model_name is not None else self._own_name()
        if name is None:
            raise ModelNameError(
                f"a {type(self.model).__name__} says no name of itself; pass model_name='...' "
                f"or give the object a model_name attribute"
            )
        return name

    @property
    def dim(self) -> int | None:
        """How many values the model's vectors have, as far as it says so without encoding."""
        return None

    @property
    def watched(self) -> tuple[Any, object]:
        """The object by whose life and identity the encoder is known again, and which part of it encodes."""
        return self.model, None

    def identity(self, role: Role) -> ModelIdentity:
        """Tell whose vectors `encode` gives for a role, read anew from the live object."""
        role = self._distinct(role)
        return ModelIdentity.of(self.model_name, self._settings(role), role=role)

    def encode(self, texts: Sequence[str], *, role: Role, batch_size: int) -> Vectors:
        """Encode texts in batches and check what comes back.

        Parameters
        ----------
        texts : sequence of n str, n > 0
        role : "document" or "query"
        batch_size : int
            The most texts that the model is given at once.

        Returns
        -------
        ndarray of shape (n, dim), float32
            Row i is the vector of texts[i]. It shares no memory with what the model returned.

        Raises
        ------
        EncoderError
            The model raised.
        EncoderOutputError
            It returned anything but one finite float vector a text.
        """
        batches = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
        # Copies: the model may fill the same array again for the next batch.
        encoded = [self._encode_checked(list(batch), role, batch_size).copy() for batch in batches]
        dims = sorted({vectors.shape[1] for vectors in encoded})
        if len(dims) > 1:
            raise EncoderOutputError(
                f"model {self.model_name!r} returned vectors of {dims[0]} and of {dims[1]} values in one call",
                model_name=self.model_name,
            )
        return np.concatenate(encoded) if len(encoded) > 1 else encoded[0]

    def _encode_checked(self, texts: list[str], role: Role, batch_size: int) -> Vectors:
        try:
            output = self._call(list(texts), role, batch_size)  # a copy: the model may change its list
        except (EncoderError, InvalidInputError):  # an encoder of ours, which has said already what is wrong
            raise
        except Exception as error:
            raise EncoderError(
                f"model {self.model_name!r} raised {type(error).__name__} on {len(texts)} texts "
                f"(the first: {texts[0]!r:.60}): {error}",
                model_name=self.model_name,
            ) from error
        return checked_output(output, n_texts=len(texts), model_name=self.model_name)

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        method = getattr(self.model, f"encode_{self._distinct(role)}", None)
        return (method if callable(method) else self.model.encode)(texts)

    def _distinct(self, role: Role) -> Role:
        """Give the role whose vectors those of `role` are: queries that are no different go the documents' way."""
        return role if role == "query" and self._has_query_vectors() else "document"

    def _own_name(self) -> str | None:
        name = getattr(self.model, "model_name", None)
        return name if isinstance(name, str) else None

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        settings = getattr(self.model, "model_settings", None)
        if settings is None:
            return {}
        return checked_settings(settings, self.model_name)

    def _has_query_vectors(self) -> bool:
        return callable(getattr(self.model, "encode_query", None))


def checked_settings(settings: Any, model_name: str) -> Mapping[str, Setting]:
    """Return the settings that a model has, where they can be part of its identity.

    Raises
    ------
    InvalidTypeError
        They are no mapping.
    InvalidInputError
        A key is one of embstore's own.
    """
    if not isinstance(settings, Mapping):
        raise InvalidTypeError(
            f"model_settings of {model_name!r} is {type(settings).__name__}, not a dict; without it, vectors "
            f"of models with other settings would be taken for this one's",
            model_name=model_name,
        )
    for key in ("role", "dtype"):
        if key in settings:
            raise InvalidInputError(
                f"model_settings of {model_name!r} has the key {key!r}, which embstore sets itself; rename it",
                model_name=model_name,
            )
    return settings


def checked_output(output: Any, *, n_texts: int, model_name: str) -> Vectors:
    """Give what an encoder returned as float32 of shape (n_texts, dim).

    Parameters
    ----------
    output : array-like or tensor
        float16, bfloat16, float32 or float64; converted to float32.
    n_texts : int
        How many texts were encoded.
    model_name : str
        For the message.

    Raises
    ------
    PrecisionError
        Integers: quantised vectors.
    EncoderOutputError
        Another number of rows, not two-dimensional, no columns, ragged, NaN or infinite.
    """
    try:
        return finite_vectors(output, n_texts)
    except QuantisedError as error:
        raise PrecisionError(
            f"model {model_name!r} returned {error}: quantised vectors depend on the rest of their batch and cannot "
            f"be cached; encode with precision='float32'",
            model_name=model_name,
        ) from None
    except ValueError as error:
        raise EncoderOutputError(
            f"model {model_name!r} was given {n_texts} texts and returned {error}; "
            f"needed is one finite float vector a text, shape ({n_texts}, dim)",
            model_name=model_name,
            n_texts=n_texts,
        ) from error


def without_surrogates(text: str) -> str:
    """Put U+FFFD in the place of lone surrogates, for libraries that take UTF-8 only."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(REPLACEMENT if "\ud800" <= char <= "\udfff" else char for char in text)
    return text
