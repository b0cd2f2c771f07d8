"""Batches of rows in, and out again with the vectors of their texts: what a job on many machines calls, or on one."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from embstore.cache import EmbeddingCache
from embstore.codec import Vectors
from embstore.contents import FillReport
from embstore.encoders import as_encoder
from embstore.errors import (
    InvalidInputError,
    InvalidTypeError,
    ServerUnreachableError,
    StoreBusyError,
    UnconfirmedWriteError,
)
from embstore.identity import Role, check_role
from embstore.inputs import check_collection, check_count
from embstore.integrations._columns import ids_of, names_of, only, texts_of, with_vectors
from embstore.integrations._remembering import RememberingEncoder

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

# What passes: filling again finds whatever was stored before. A server that was never reached may not be there at all.
_PASSING = (StoreBusyError, UnconfirmedWriteError)
_LONGEST_PAUSE_S = 5.0

# How long what a worker was about to encode waits for it where workers share a store, and one is lost.
LEASE_S = 60.0


@dataclass(frozen=True)
class EmbedReport:
    """What the texts of a job have cost.

    Attributes
    ----------
    n_texts : int
        Rows that were given a vector. A batch that is done again counts again; of one that failed nothing is counted.
    n_encoded : int
        Distinct texts that a model encoded, canaries not counted.
    n_hits : int
        Texts that cost no encode: stored before, or encoded for another row.
    encode_s : float
        Seconds that the models took, of all workers together.
    """

    n_texts: int = 0
    n_encoded: int = 0
    n_hits: int = 0
    encode_s: float = 0.0

    def and_also(self, n_texts: int, n_encoded: int, encode_s: float) -> EmbedReport:
        """Give the sums with what some more texts have cost."""
        n_hits = n_texts - n_encoded
        return EmbedReport(
            self.n_texts + n_texts, self.n_encoded + n_encoded, self.n_hits + n_hits, self.encode_s + encode_s
        )


class BatchEmbedder:
    """A callable that gives batches of rows the vectors of their texts, and encodes no text twice.

    Nothing is opened or loaded before the first batch: what is wrong is then an error of that batch, and not of the
    making of a worker, of which frameworks tell less.

    Parameters
    ----------
    store : str or Path
        The path of a file, or the URL of a server.
    make_encoder : str or callable
        The name of a model, or a function without arguments that makes the encoder where it is to run. Never an
        encoder or a cache: what is live stays where it was made.
    model_name : str, optional
        The name to store vectors under, where it is not the model's own.
    text_column : str
    id_column : str, optional
        Of texts or whole numbers; the documents are recorded under these. None: texts have no id.
    collection : str
        Keeps the ids of several collections apart.
    vector_column : str or None
        What the vectors are called beside the columns of a batch. None: the ids alone are given back.
    role : "document" or "query"
    batch_size : int
        The most texts that the model is given at once.
    patience_s : float
        How long to go on where the store is busy or its server is away.
    progress : bool or None
        Show a bar of the texts of a batch that are encoded; None: where stderr is a terminal.
    **cache_options
        Of `EmbeddingCache`: ``dtype``, ``timeout_s``, ``check_canary`` ...

    Attributes
    ----------
    report : EmbedReport
        What all batches so far have cost.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        An argument cannot be used.
    """

    def __init__(
        self,
        store: str | Path,
        make_encoder: str | Callable[[], Any],
        *,
        model_name: str | None = None,
        text_column: str = "text",
        id_column: str | None = None,
        collection: str = "",
        vector_column: str | None = "vector",
        role: Role = "document",
        batch_size: int = 32,
        patience_s: float = 120.0,
        progress: bool | None = False,
        **cache_options: Any,
    ) -> None:
        _check_sources(store, make_encoder, cache_options)
        if vector_column is None and id_column is None:
            raise InvalidInputError("without vector_column the ids alone are given back; say by id_column= which")
        self.store = store
        self.text_column, self.id_column, self.vector_column = text_column, id_column, vector_column
        self.patience_s = patience_s
        self._make_encoder = make_encoder
        self._model_name = model_name
        self._options: dict[str, Any] = {
            "collection": check_collection(collection),
            "role": check_role(role),
            "batch_size": check_count(batch_size, "batch_size"),
            "progress": progress,
        }
        self.report = EmbedReport()
        self._cache_options = cache_options
        self._cache: EmbeddingCache | None = None
        self._encoder: RememberingEncoder | None = None

    def __call__(self, batch: Any) -> Any:
        """Give a batch with the vectors of its texts, or its ids alone.

        Parameters
        ----------
        batch : mapping of str to array-like, or pyarrow.Table
            n rows.

        Returns
        -------
        dict or pyarrow.Table, as `batch`
            `vector_column` is an ndarray of shape (n, dim), or lists of dim values, float32.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            A column is missing, there already, or holds something else than texts; a text is null.
        EmbstoreError
            As of `EmbeddingCache.get_many`. What was stored before stays; the batch may come again.
        """
        texts = texts_of(batch, self.text_column)
        ids = None if self.id_column is None else ids_of(batch, self.id_column)
        if self.vector_column is not None and self.vector_column in names_of(batch):
            raise InvalidInputError(
                f"there is a column {self.vector_column!r} already; name another by vector_column=, or drop it"
            )
        try:
            report = self._patiently(lambda: self._fill(ids, texts))
        finally:
            if self._encoder is not None:
                self._encoder.forget()
        self._note(report, len(texts))
        if self.vector_column is None:
            return only(batch, str(self.id_column))
        return with_vectors(batch, self.vector_column, report.vectors if texts else self._no_vectors())

    @property
    def model_name(self) -> str:
        """The name that vectors are stored under; known once there was a batch."""
        assert self._encoder is not None
        return self._encoder.model_name

    def close(self) -> None:
        """Close the cache; the next batch opens it again."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def location(self) -> str:
        """Where the store is, which is opened for it: as of `EmbeddingCache`."""
        return self._opened().location

    def _fill(self, ids: list[str] | None, texts: list[str]) -> FillReport:
        if self._encoder is None:
            made = self._make_encoder if isinstance(self._make_encoder, str) else self._make_encoder()
            self._encoder = RememberingEncoder(as_encoder(made, self._model_name))
        return self._opened().fill(ids, texts, self._encoder, **self._options)

    def _opened(self) -> EmbeddingCache:
        if self._cache is None:
            self._cache = self._open()
        return self._cache

    def _no_vectors(self) -> Vectors:
        """Give the vectors of no texts: their length is that of the others."""
        canary = self._opened().canary(self._encoder, role=self._options["role"])
        if canary is None:
            raise InvalidInputError("a batch has no rows, and check_canary=False leaves nothing to tell dim by")
        return np.empty((0, len(canary)), np.float32)

    def _open(self) -> EmbeddingCache:
        """Open the store; subclasses look first whether they can."""
        return EmbeddingCache(self.store, **self._cache_options)

    def _note(self, report: FillReport, n_texts: int) -> None:
        """Take note of what a batch has cost; subclasses tell others too."""
        self.report = self.report.and_also(n_texts, report.n_encoded, report.encode_s)

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """Do something again while the store is away, with growing pauses; what was encoded is not encoded again."""
        give_up, pause_s = time.monotonic() + self.patience_s, 0.1
        while True:
            try:
                return work()
            except (*_PASSING, ServerUnreachableError) as error:
                is_passing = isinstance(error, _PASSING) or self._cache is not None
                if not is_passing or time.monotonic() + pause_s > give_up:
                    raise
                _log.warning("trying again in %.1f s: %s", pause_s, error)
            time.sleep(pause_s * random.uniform(0.5, 1))  # workers that failed together come back one by one
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _check_sources(store: object, make_encoder: object, cache_options: dict[str, Any]) -> None:
    """Raise InvalidTypeError where a worker could not open the store, or not make the encoder, or both are live."""
    if not isinstance(store, str | Path):
        raise InvalidTypeError(f"store is {type(store).__name__}; give a path or a URL, which each worker opens")
    is_live = callable(getattr(make_encoder, "encode", None)) and not isinstance(make_encoder, str | type)
    if is_live or not (isinstance(make_encoder, str) or callable(make_encoder)):
        raise InvalidTypeError(
            f"make_encoder is {type(make_encoder).__name__}; give the name of a model, or a function without "
            f"arguments that makes the encoder in each worker"
        )
    try:
        signature(EmbeddingCache).bind(store, **cache_options)
    except TypeError as error:
        raise InvalidTypeError(f"neither an option here nor of EmbeddingCache: {error}") from None
