"""The canary: one text, encoded again, tells whether a model is still the model that filled the cache."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embstore.codec import Vectors, as_vectors
from embstore.encoders import NamedEncoder
from embstore.errors import EncoderError, ModelChangedError
from embstore.identity import ModelIdentity, Role
from embstore.stores.base import StoredModel

CANARY_TEXT = "The quick brown fox jumps over 13 lazy dogs; größer, 犬は怠け者です."

# The same model on other hardware or in other batches differs by about 1e-7; another model by about 1.
TOLERANCE = 0.02


def encode_canary(encoder: NamedEncoder, role: Role) -> Vectors:
    """Encode the canary text alone: ndarray of shape (dim,), float32.

    Raises
    ------
    EncoderError
        The encoder cannot take the text.
    """
    try:
        (canary,) = encoder.encode([CANARY_TEXT], role=role, batch_size=1)
    except EncoderError as error:
        raise type(error)(
            f"{error.message} -- this was the canary, a text that is encoded once to tell whether a model has "
            f"changed; EmbeddingCache(..., check_canary=False) does without it",
            model_name=encoder.model_name,
        ) from error
    return as_vectors(canary)


def check_same_model(
    identity: ModelIdentity, stored: Vectors, encoded: Vectors, *, filled: str = "this cache", cure: str | None = None
) -> None:
    """Compare a stored vector with what the live encoder gives for the same text.

    By distance, not by cosine, which would not see that a normalisation was lost:
    ``|a - b| <= 0.02 * max(|a|, |b|)``.

    Parameters
    ----------
    stored, encoded : ndarray of shape (dim,), float32
    filled : str
        What the stored vector is of, for the message.
    cure : str, optional
        What to do, for the message; by default what helps with a cache.

    Raises
    ------
    ModelChangedError
        They differ in dimension or by more than the tolerance.
    """
    if stored.shape == encoded.shape:
        a, b = stored.astype(np.float64), encoded.astype(np.float64)
        if np.linalg.norm(a - b) <= TOLERANCE * max(np.linalg.norm(a), np.linalg.norm(b)):
            return
        difference = f"its vectors differ from the stored ones (distance {np.linalg.norm(a - b):.3g})"
    else:
        difference = f"it gives {encoded.size} values a text, stored are {stored.size}"
    cure = cure or (
        f"store the new model under another model_name=, or forget the old vectors with "
        f"clear(model_name={identity.model_name!r})"
    )
    raise ModelChangedError(
        f"model {str(identity)!r} is not the model that filled {filled}: {difference}; {cure}",
        model_name=identity.model_name,
        identity=identity,
    )


@dataclass
class _Known:
    """What is known of an encoder object under an identity: its canary, and the stored models it was compared with."""

    lock: Any = field(default_factory=threading.RLock)
    canary: Vectors | None = None
    model_ids: set[int] = field(default_factory=set)


class ModelGuard:
    """Checks once per encoder object and stored model that the one is what filled the other.

    Objects are held by weak reference and recognised by identity: an `id()` alone is given to another
    object once the first is gone.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._encoders: dict[tuple[int, int], tuple[Callable[[], Any], dict[tuple[object, ModelIdentity], _Known]]] = {}

    def check(
        self,
        encoder: NamedEncoder,
        role: Role,
        identity: ModelIdentity,
        model: StoredModel | None,
        hit: tuple[str, Vectors] | None,
    ) -> Vectors | None:
        """Compare a live encoder with what is stored.

        Parameters
        ----------
        model : StoredModel or None
            What the store has of the identity.
        hit : (text, vector), optional
            A text with its stored vector, to check a model by that came without a canary.

        Returns
        -------
        ndarray of shape (dim,) or None
            The encoder's canary, to be stored with a model that has none; None where nothing was compared.

        Raises
        ------
        ModelChangedError
            The encoder gives other vectors.
        EncoderError
            The encoder cannot take the canary.
        """
        if not self.enabled:
            return None
        known = self._known(encoder, identity)
        if model is not None and model.model_id in known.model_ids:
            return known.canary
        with known.lock:  # whoever waited for it finds the comparison made
            return self._check(encoder, role, identity, model, hit, known)

    def _check(
        self,
        encoder: NamedEncoder,
        role: Role,
        identity: ModelIdentity,
        model: StoredModel | None,
        hit: tuple[str, Vectors] | None,
        known: _Known,
    ) -> Vectors | None:
        if model is not None and model.model_id in known.model_ids:
            return known.canary
        if model is not None and model.canary is None:
            if hit is None:
                return None
            text, stored = hit
            check_same_model(identity, stored, encoder.encode([text], role=role, batch_size=1)[0])
        canary = self.canary(encoder, role, identity)
        if model is not None:
            self.confirm(encoder, model, canary)
        return canary

    def canary(self, encoder: NamedEncoder, role: Role, identity: ModelIdentity) -> Vectors | None:
        """Give the canary of an encoder, encoded once; None where none is asked for.

        Raises
        ------
        EncoderError
            The encoder cannot take it.
        """
        if not self.enabled:
            return None
        known = self._known(encoder, identity)
        with known.lock:
            if known.canary is None:
                known.canary = encode_canary(encoder, role)
            return known.canary

    def compare(self, encoder: NamedEncoder, model: StoredModel, canary: Vectors | None) -> None:
        """Compare a canary with that of a stored model, which another process may have put there in the meantime.

        In a transaction: where it is not committed, its new model's number can become another's, so that it is not
        remembered here.

        Raises
        ------
        ModelChangedError
            They differ.
        """
        if canary is None or model.canary is None:
            return
        known = self._known(encoder, model.identity)
        if model.model_id not in known.model_ids:
            try:
                check_same_model(model.identity, model.canary, canary)
            except ModelChangedError:
                known.canary = None  # the object may be set right
                raise

    def confirm(self, encoder: NamedEncoder, model: StoredModel, canary: Vectors | None) -> None:
        """Compare a canary with that of a model that is stored for certain, once; raises as `compare`."""
        self.compare(encoder, model, canary)
        if canary is not None and model.canary is not None:
            self._known(encoder, model.identity).model_ids.add(model.model_id)

    def _known(self, encoder: NamedEncoder, identity: ModelIdentity) -> _Known:
        watched, part = encoder.watched
        key = (os.getpid(), id(watched))  # the process: a lock that was held at a fork is never released
        reference, parts = self._encoders.get(key, (None, {}))
        if reference is None or reference() is not watched:
            parts = {}
            self._encoders[key] = (self._reference(watched, key), parts)
        place = (part, identity.stored_as("float32"))  # the canary is one, whatever is stored
        return parts.get(place) or parts.setdefault(place, _Known())

    def _reference(self, model: Any, key: tuple[int, int]) -> Callable[[], Any]:
        try:
            return weakref.ref(model, lambda _: self._encoders.pop(key, None))
        except TypeError:  # objects with __slots__ and C types: kept alive, so that their id stays theirs
            return lambda: model
