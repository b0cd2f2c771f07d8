"""Rows of CSV and Parquet files, and of a query on an SQLite file: each is a document."""

from __future__ import annotations

import contextlib
import csv
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from embstore.errors import InvalidInputError, MissingExtraError
from embstore.stores.opening import connect
from embstore.stores.sqlite_errors import sqlite3

Row = Mapping[str, Any]

_LONGEST_CELL = 2**31 - 1  # what the C long of Windows holds
_ROWS_AT_ONCE = 1_000
_SQL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Columns:
    """Where in a row the id, the text and the metadata of its document are.

    `metadata` None means all other columns.
    """

    doc_id: str = "id"
    text: str = "text"
    metadata: tuple[str, ...] | None = None

    def check(self, names: Sequence[str], place: str) -> None:
        """Raise InvalidInputError where rows lack one of the columns, or have one twice."""
        for name in (self.doc_id, self.text, *(self.metadata or ())):
            if names.count(name) != 1:
                how_many = "no" if name not in names else "more than one"
                raise InvalidInputError(
                    f"{place}: {how_many} column {name!r} among {', '.join(map(repr, names))}; say which by "
                    f"--id-column, --text-column and --metadata-column"
                )

    def split(self, row: Row, place: str) -> tuple[Any, Any, dict[str, Any]]:
        """Give the id, the text and the metadata of a row; what is empty is no metadata."""
        self.check(list(row), place)
        others = [name for name in row if name not in (self.doc_id, self.text)]
        metadata = {name: _metadata_value(row[name]) for name in self.metadata or others}
        doc_id = row[self.doc_id]
        if isinstance(doc_id, int) and not isinstance(doc_id, bool):
            doc_id = str(doc_id)
        return doc_id, row[self.text], {name: value for name, value in metadata.items() if value not in (None, "")}


def csv_rows(file: Path, opened: TextIO, columns: Columns) -> Iterator[tuple[str, Row]]:
    """Read the rows of a CSV file, or one with tabs, whose first row names its columns; each with its place."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with _long_cells():
        reader = csv.reader(opened, delimiter=delimiter, strict=True)
        names: list[str] | None = None
        n_rows = 0
        try:
            for cells in reader:
                if names is None:
                    names = cells
                    columns.check(names, str(file))
                    continue
                if not cells:
                    continue
                n_rows += 1
                if len(cells) != len(names):
                    raise InvalidInputError(f"{file}: row {n_rows} has {len(cells)} cells, the first line {len(names)}")
                yield f"{file}: row {n_rows}", dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise InvalidInputError(f"{file}: line {reader.line_num}: {error}", path=str(file)) from None


def parquet_rows(file: Path, columns: Columns) -> Iterator[tuple[str, Row]]:
    """Read the rows of a Parquet file, the columns that are wanted alone; each with its place.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    InvalidInputError
        It is no such file.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "reading Parquet") from error
    wanted = None if columns.metadata is None else [columns.doc_id, columns.text, *columns.metadata]
    n_rows = 0
    try:
        with parquet.ParquetFile(file) as opened:
            columns.check(opened.schema_arrow.names, str(file))
            for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=wanted):
                for row in batch.to_pylist():
                    n_rows += 1
                    yield f"{file}: row {n_rows}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInputError(f"{file}: not a Parquet file that can be read: {error}", path=str(file)) from error


def sql_rows(file: Path, query: str) -> Iterator[tuple[str, Row]]:
    """Run a query on an SQLite file, which is only read; give its rows, each with its place.

    Raises
    ------
    InvalidInputError
        It is no such file, or SQLite refuses the query.
    """
    try:
        with contextlib.closing(connect(file.absolute(), "ro", _SQL_TIMEOUT_S)) as connection:
            if hasattr(connection, "setlimit"):  # pysqlite3 may have none
                connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # ATTACH and VACUUM INTO make files
            cursor = connection.execute(query)
            names = [name for name, *_ in cursor.description or ()]
            if not names:
                raise InvalidInputError("--sql is no query that gives rows: write SELECT id, text FROM ...")
            for number, row in enumerate(cursor, start=1):
                yield f"{file}: row {number}", _by_name(names, row, file)
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file}: SQLite cannot answer --sql: {error}", path=str(file)) from error


def _by_name(names: list[str], row: Sequence[Any], file: Path) -> Row:
    if len(set(names)) < len(names):
        raise InvalidInputError(f"{file}: --sql gives two columns of one name: {', '.join(names)}; rename one by AS")
    return dict(zip(names, row, strict=True))


def _metadata_value(value: Any) -> Any:
    """Give dates and times as ISO 8601 has them."""
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else value


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Let a cell be longer than the 131,072 characters that Python's reader takes."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
