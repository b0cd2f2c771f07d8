"""Parquet files with the same columns, as tables of a thousand rows, and one written of such tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embstore.cli.paths import expanded
from embstore.errors import InvalidInputError, MissingExtraError


class ParquetTables:
    """The rows of Parquet files, in their order.

    Parameters
    ----------
    named : sequence of str
        Files, folders and patterns.

    Attributes
    ----------
    files : list of Path
    n_rows : int
        Of all files.
    none : pyarrow.Table
        Their columns, and no row.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    InvalidInputError
        A file is not there or is no Parquet file, or has other columns than the first.
    """

    def __init__(self, named: Sequence[str]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", "reading Parquet") from error
        self._pyarrow = pyarrow
        self.files = expanded(map(Path, named))[0]
        self.n_rows = 0
        self.none: Any = None
        for file in self.files:
            with self._opened(file) as opened:
                self.n_rows += opened.metadata.num_rows
                none = opened.schema_arrow.empty_table()
            self.none = none if self.none is None else self.none
            if not none.schema.equals(self.none.schema):
                raise InvalidInputError(
                    f"{file}: its columns are not those of {self.files[0]}; embed the two by themselves", path=str(file)
                )

    def tables(self, n_rows: int, columns: list[str] | None = None) -> Iterator[tuple[str, Any]]:
        """Read tables of at most so many rows, with some of their columns or all; each with its place."""
        for file in self.files:
            first = 1
            with self._opened(file) as opened:
                for batch in opened.iter_batches(n_rows, columns=columns):
                    yield f"{file}: from row {first} on", self._pyarrow.Table.from_batches([batch])
                    first += batch.num_rows

    @contextmanager
    def _opened(self, file: Path) -> Iterator[Any]:
        try:
            with self._pyarrow.parquet.ParquetFile(file) as opened:
                yield opened
        except (self._pyarrow.ArrowException, OSError) as error:
            raise InvalidInputError(f"{file}: not a Parquet file that can be read: {error}", path=str(file)) from error


def parquet_writer(file: Path, schema: Any) -> Any:
    """Give what writes tables into a file, to be used as a context manager."""
    from pyarrow.parquet import ParquetWriter

    return ParquetWriter(file, schema)
