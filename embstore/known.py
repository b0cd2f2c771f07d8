"""KnownTexts: what is stored of texts for a live model, asked without encoding anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.encoders import as_encoder
from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.identity import Role, check_role
from embstore.inputs import check_content_hashes, check_texts, hash_texts
from embstore.stored import StoredEmbeddings
from embstore.stores.base import StoredModel

_ROWS_AT_ONCE = 1000


class KnownTexts(StoredEmbeddings):
    """The questions of a plan: which texts would be encoded, and how long would it take. No model is called."""

    def missing(
        self, texts: Iterable[str], model: Any, *, model_name: str | None = None, role: Role = "document"
    ) -> list[str]:
        """List the distinct texts whose vectors are not stored, or damaged, in the order in which they first stand.

        Parameters
        ----------
        texts : iterable of str
        model, model_name, role
            As of `EmbeddingCache.get_many`.

        Returns
        -------
        list of str
        """
        distinct = list(dict.fromkeys(check_texts(texts)))
        stored = self._stored_model(model, model_name, role)
        if stored is None or not distinct:
            return distinct
        missing: list[str] = []
        for start in range(0, len(distinct), _ROWS_AT_ONCE):
            some = distinct[start : start + _ROWS_AT_ONCE]
            found = self._store.look_up(stored, hash_texts(some)).found
            missing += [text for text, is_stored in zip(some, found.tolist(), strict=True) if not is_stored]
        return missing

    def estimate_s(
        self, n_chars: int, model: Any, *, model_name: str | None = None, role: Role = "document"
    ) -> float | None:
        """Estimate the seconds that a model would take, by what it has taken for a character so far.

        Parameters
        ----------
        n_chars : int
            Characters of the texts to encode, together; not negative.

        Returns
        -------
        float or None
            None where nothing was encoded by it yet.
        """
        if isinstance(n_chars, bool) or not isinstance(n_chars, int):
            raise InvalidTypeError(f"n_chars is {type(n_chars).__name__}, not int: {n_chars!r:.80}")
        if n_chars < 0:
            raise InvalidInputError(f"n_chars is {n_chars}; a number of characters is not negative")
        stored = self._stored_model(model, model_name, role)
        speed = None if stored is None else self._store.seconds_per_char(stored)
        return None if speed is None else n_chars * speed

    def stored_vectors(
        self, content_hashes: Sequence[bytes], model: Any, *, model_name: str | None = None, role: Role = "document"
    ) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Read the vectors of contents.

        Parameters
        ----------
        content_hashes : sequence of n bytes
            As `content_hash` gives them; the same may stand twice.

        Returns
        -------
        found : ndarray of shape (n,), bool
            False where no vector is stored, or a damaged one.
        vectors : ndarray of shape (n, dim), float32
            Only the rows in `found` mean anything; (n, 0) where nothing is stored of the model.

        Raises
        ------
        InvalidTypeError, InvalidInputError
            A content hash is not 32 bytes.
        """
        check_content_hashes(content_hashes)
        stored = self._stored_model(model, model_name, role)
        keys = list(dict.fromkeys(content_hashes))
        if stored is None or not keys:
            return np.zeros(len(content_hashes), dtype=np.bool_), np.empty((len(content_hashes), 0), np.float32)
        lookup = self._store.look_up(stored, keys)
        row_of = {key: row for row, key in enumerate(keys)}
        rows = np.array([row_of[key] for key in content_hashes], dtype=np.intp)
        return lookup.found[rows], lookup.vectors[rows]

    def _stored_model(self, model: Any, model_name: str | None, role: Role) -> StoredModel | None:
        return self._store.find_variant(as_encoder(model, model_name).identity(check_role(role)))
