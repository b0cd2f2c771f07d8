"""Rows of Parquet files through the cache: batch by batch in this process, or as a job of Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from embstore.cli.parquet_tables import ParquetTables, parquet_writer
from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.integrations._batches import LEASE_S, BatchEmbedder, EmbedReport
from embstore.progress import progress_bar
from embstore.stores.locations import is_url
from embstore.transfer.target import new_file

BATCH_ROWS = 1024


def embed_here(
    files: Sequence[str], output: str | None, *, overwrite: bool, store: str | Path, model: str, **options: Any
) -> EmbedReport:
    """Embed the rows of files in this process, and write them with their vectors where that is wanted.

    Parameters
    ----------
    files : sequence of str
        Files, folders and patterns.
    output : str or None
    overwrite : bool
    store : str or Path
    model : str
        Its name.
    **options
        Of `BatchEmbedder`.

    Raises
    ------
    InvalidInputError
        A file is no Parquet file, or has not the columns that are needed.
    TargetError
        The output is there, or cannot be written.
    EmbstoreError
        As of `BatchEmbedder`. What was encoded before stays in the store.
    """
    parquet = ParquetTables(files)
    with ExitStack() as opened:
        lease_s = LEASE_S if is_url(store) else None  # on a server, others may be at the same texts
        embed = opened.enter_context(BatchEmbedder(store, model, progress=None, lease_s=lease_s, **options))
        check_columns(parquet.none.column_names, embed)
        bar = opened.enter_context(progress_bar(parquet.n_rows, "Embedding", unit="text"))
        write: Callable[[Any], None] | None = None
        columns: list[str] | None = [name for name in (embed.text_column, embed.id_column) if name is not None]
        if output is not None:
            _check_is_no_input(output, parquet.files)
            part = opened.enter_context(
                new_file(output, overwrite=overwrite, location=embed.location, suffix=".parquet")
            )
            writer = opened.enter_context(parquet_writer(part, embed(parquet.none).schema))
            write, columns = writer.write_table, None
        for place, table in parquet.tables(BATCH_ROWS, columns):
            try:
                embedded = embed(table)
            except (InvalidInputError, InvalidTypeError) as error:
                raise InvalidInputError(f"{place}: {error}") from error
            if write is not None:
                write(embedded)
            bar.update(table.num_rows)
    return embed.report


def check_columns(names: Sequence[str], embed: BatchEmbedder) -> None:
    """Raise InvalidInputError where files have not the columns that are needed, or one that is to be new."""
    listed = ", ".join(map(repr, names))
    for option, name in {"--text-column": embed.text_column, "--id-column": embed.id_column}.items():
        if name is not None and name not in names:
            raise InvalidInputError(f"no column {name!r} among {listed}; say which by {option}")
    if embed.vector_column in names:
        raise InvalidInputError(f"there is a column {embed.vector_column!r} already; say another by --vector-column")


def _check_is_no_input(output: str, files: Sequence[Path]) -> None:
    target = Path(output)
    if target.exists() and any(target.samefile(file) for file in files):
        raise InvalidInputError(f"{output!r} is one of FILES; write to another file", path=output)
