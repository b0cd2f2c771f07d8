"""Ray Data: datasets whose texts are encoded once, by as many workers as there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embstore.cache import EmbeddingCache
from embstore.contents import FillReport
from embstore.errors import MissingExtraError
from embstore.inputs import check_count
from embstore.integrations._batches import LEASE_S, BatchEmbedder, EmbedReport

try:
    import ray
    import ray.data
except ImportError as error:
    raise MissingExtraError("ray", "ray", "a job of Ray Data") from error
from embstore.integrations._ray_counts import Counts, Metrics
from embstore.integrations._ray_nodes import Unshown, for_workers

__all__ = ["CachedEmbedder", "Counts", "EmbedReport", "embed_dataset"]


class CachedEmbedder(BatchEmbedder):
    """A callable class for `Dataset.map_batches`: columns in, and a column of vectors beside them.

    Each worker opens the store and makes the encoder itself, at its first batch. Batches are arrays by name, Ray's
    default, or Arrow tables (``batch_format="pyarrow"``). A batch that Ray gives to another worker, because the first
    was lost, finds what that one has stored. Ray's metrics have ``embstore_hits`` and ``embstore_misses``, in texts,
    and ``embstore_encode_seconds``, by model.

    Parameters
    ----------
    store : str or Path
        The URL of a PostgreSQL server; or the path of a file, where the cluster is one machine.
    make_encoder : str or callable
        The name of a model, or a function without arguments that makes the encoder in the worker.
    counts : Counts, optional
        Whom the workers tell what they have done.
    **options
        ``model_name``; ``text_column``, "text" by default; ``id_column``, of texts or whole numbers, under which
        documents are recorded; ``collection``; ``vector_column``, "vector" by default, None to be given the ids alone;
        ``role``; ``batch_size``, the most texts that the model is given at once; ``patience_s``, how long to go on
        where the store is busy or away. Others are those of `EmbeddingCache`, of which ``lease_s`` is 60 by default:
        what one worker encodes no other does, and what a lost worker was about to encode waits that long.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        An argument cannot be used.
    """

    def __init__(
        self,
        store: str | Path | Unshown,
        make_encoder: str | Callable[[], Any],
        *,
        counts: Counts | None = None,
        **options: Any,
    ) -> None:
        store = store.location if isinstance(store, Unshown) else store
        super().__init__(store, make_encoder, **{"lease_s": LEASE_S, **options})
        self._counts = counts
        self._metrics: Metrics | None = None

    def _open(self) -> EmbeddingCache:
        for_workers(self.store)
        return super()._open()

    def _note(self, report: FillReport, n_texts: int) -> None:
        super()._note(report, n_texts)
        cost = (n_texts, report.n_encoded, report.encode_s)
        if self._counts is not None:
            self._counts.add(*cost)
        if ray.is_initialized():
            self._metrics = self._metrics or Metrics()
            self._metrics.add(self.model_name, *cost)


def embed_dataset(
    dataset: ray.data.Dataset,
    store: str | Path,
    make_encoder: str | Callable[[], Any],
    *,
    workers: int = 1,
    batch_rows: int = 1024,
    batch_format: str = "numpy",
    ray_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> ray.data.Dataset:
    """Give a dataset the vectors of its texts, by `map_batches` with `CachedEmbedder`; it is done when it is read.

    Parameters
    ----------
    dataset : Dataset
    store, make_encoder, **options
        As of `CachedEmbedder`.
    workers : int
        How many models work at once.
    batch_rows : int
        The most rows that a worker is given at once.
    batch_format : "numpy" or "pyarrow"
        Whether the column of vectors is one of arrays, or of lists of float32.
    ray_options : mapping, optional
        Of `map_batches`: ``num_gpus``, ``num_cpus``, ``memory``, ``runtime_env`` ...

    Returns
    -------
    Dataset
        An error of embstore in a worker arrives as what it is, a RayTaskError as well.

    Raises
    ------
    UnsafeStoreError
        The store is a file, and the cluster has several nodes.
    InvalidTypeError, InvalidInputError
        An argument cannot be used.
    """
    store = for_workers(store)
    CachedEmbedder(store, make_encoder, **options)  # in a worker, what is wrong would end it instead of a batch
    embedded = dataset.map_batches(
        CachedEmbedder,
        fn_constructor_kwargs={"store": Unshown(store), "make_encoder": make_encoder, **options},
        batch_size=check_count(batch_rows, "batch_rows"),
        batch_format=batch_format,
        compute=ray.data.ActorPoolStrategy(size=check_count(workers, "workers")),
        **(ray_options or {}),
    )
    embedded.context.raise_original_map_exception = True
    return embedded
