"""Rows of Parquet files through the cache as a job of Ray Data."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embstore.cli.embedding_jobs import BATCH_ROWS, check_columns
from embstore.cli.paths import expanded
from embstore.errors import EmbstoreError, TargetError
from embstore.integrations._batches import EmbedReport
from embstore.stores.locations import absolute
from embstore.transfer.target import new_folder

if TYPE_CHECKING:
    from ray.data import Dataset


def embed_on_cluster(
    files: Sequence[str],
    output: str | None,
    *,
    overwrite: bool,
    address: str | None,
    workers: int,
    store: str | Path,
    model: str,
    **options: Any,
) -> EmbedReport:
    """Embed the rows of files by the workers of a cluster, and write them with their vectors where that is wanted.

    Parameters
    ----------
    files : sequence of str
        Files, folders and patterns, which all nodes reach, or addresses that Ray reads.
    output : str or None
        A folder that all nodes reach, or an address that Ray writes to.
    overwrite : bool
    address : str or None
        Of a cluster; by default RAY_ADDRESS, or a new one on this machine.
    workers : int
    store, model, **options
        As of `embed_dataset`.

    Raises
    ------
    MissingExtraError, UnsafeStoreError, InvalidInputError, TargetError
        Before anything is encoded.
    EmbstoreError
        Of a worker, or the job failed. What was encoded before stays in the store.
    """
    from embstore.integrations.ray import CachedEmbedder, Counts, embed_dataset  # says what is to be installed

    with _cluster(address, workers), _errors():
        counts = Counts()
        dataset = _read(files)
        n_rows = dataset.count()
        check_columns(dataset.schema().names, CachedEmbedder(store, model, **options))
        if output is None:  # nothing but ids, or texts, is to be sent back
            options["vector_column"] = None if options["id_column"] else options["vector_column"]
        embedded = embed_dataset(
            dataset.repartition(target_num_rows_per_block=BATCH_ROWS),  # so that no worker has them all
            store,
            model,
            workers=workers,
            batch_rows=BATCH_ROWS,
            batch_format="pyarrow",
            counts=counts,
            **options,
        )
        if output is None:
            embedded.count()
        else:
            _write(embedded, output, absolute(store), n_rows, overwrite=overwrite)
        return counts.report()


def _read(files: Sequence[str]) -> Dataset:
    """Read addresses as they are, and of what is on a disk all that is meant."""
    from ray.data import read_parquet

    local = [Path(file) for file in files if "://" not in file]
    found = [str(file.absolute()) for file in expanded(local)[0]]
    return read_parquet([*found, *(file for file in files if "://" in file)])


def _write(dataset: Dataset, output: str, store: str, n_rows: int, *, overwrite: bool) -> None:
    """Write a folder, which appears when it is whole where it is on a disk."""
    from pyarrow.parquet import read_metadata
    from ray.data import SaveMode

    if "://" in output:
        dataset.write_parquet(output, mode=SaveMode.OVERWRITE if overwrite else SaveMode.ERROR)
        return
    former = {file.name for file in Path(output).glob("*.parquet")}
    with new_folder(output, overwrite=overwrite, location=store, names=former) as part:
        dataset.write_parquet(str(part))
        n_written = sum(read_metadata(file).num_rows for file in part.glob("*.parquet"))
        if n_written != n_rows:
            raise TargetError(
                f"{n_written:,} of {n_rows:,} rows were written to {output!r}, the others to disks of other nodes; "
                f"give a folder that all nodes share",
                path=output,
            )


@contextmanager
def _cluster(address: str | None, workers: int) -> Iterator[None]:
    """Be connected to a cluster, or have one on this machine, and be told nothing of it but its bars on a terminal."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that there was a job
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    from ray.data import DataContext

    is_ours = not ray.is_initialized()
    if is_ours:
        here = {} if address or os.environ.get("RAY_ADDRESS") else _new_cluster(workers)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EmbstoreError(f"no cluster of Ray at {address or 'RAY_ADDRESS'}: {error}") from error
    try:
        context = DataContext.get_current()
        context.enable_progress_bars = sys.stderr.isatty()
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield
    finally:
        if is_ours:
            ray.shutdown()


def _new_cluster(workers: int) -> dict[str, Any]:
    """Give what a cluster on this machine is: with one more processor than workers, for reading and writing."""
    return {"num_cpus": max(os.cpu_count() or 1, workers + 1), "include_dashboard": False}


@contextmanager
def _errors() -> Iterator[None]:
    """Turn an error of a worker into what it was there, and others of a job into one of ours."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EmbstoreError):
            raise error.cause from error
        raise EmbstoreError(f"the job failed: {_last_line(error)}") from error
    except ray.exceptions.RayError as error:
        raise EmbstoreError(f"the job failed: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
