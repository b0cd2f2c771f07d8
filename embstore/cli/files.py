"""Files to documents: a text file is one document, each row of a data file is one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from embstore.cli.rows import Columns, Row, csv_rows, parquet_rows, sql_rows
from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.search.base import Document
from embstore.search.inputs import check_document

_FIELDS = ("id", "text", "metadata")


def documents_in(files: Iterable[Path], columns: Columns | None = None, sql: str | None = None) -> list[Document]:
    """Read and check all files before anything is done with one of them.

    Parameters
    ----------
    files : iterable of Path
        A ``.jsonl`` file has one JSON object a line: an ``id``, a ``text`` and, where wanted, ``metadata``. Of a
        ``.csv``, ``.tsv`` or ``.parquet`` file each row is a document. Any other file is one document whose id, and
        ``source`` in its metadata, is its path.
    columns : Columns, optional
        Where the id, the text and the metadata are in rows, and then in the objects of a ``.jsonl`` file too.
    sql : str, optional
        A query whose rows are the documents: each file is an SQLite file.

    Returns
    -------
    list of Document
        In the order of the files and of their rows, with distinct ids.

    Raises
    ------
    InvalidInputError
        A file cannot be read or is not UTF-8, a row is no document, or an id comes twice; it names the place.
    MissingExtraError
        What reads such a file is not installed.
    """
    documents = []
    places: dict[str, str] = {}
    for file in files:
        for place, document in _documents(file, columns, sql):
            if document.doc_id in places:
                raise InvalidInputError(
                    f"{place}: id {document.doc_id!r:.80} is taken by {places[document.doc_id]}; each needs its own",
                    doc_id=document.doc_id,
                )
            places[document.doc_id] = place
            documents.append(document)
    return documents


def _documents(file: Path, columns: Columns | None, sql: str | None) -> Iterator[tuple[str, Document]]:
    """Give each document of a file with the place it was read from."""
    kind = file.suffix.lower()
    in_rows = columns or Columns()
    if sql is not None:
        rows = sql_rows(file, sql)
    elif kind == ".parquet":
        rows = parquet_rows(file, in_rows)
    elif kind in (".csv", ".tsv"):
        rows = _csv_rows(file, in_rows)
    elif kind == ".jsonl":
        rows = _json_lines(file)
        if columns is None:
            for place, record in rows:
                yield place, _strict(place, record)
            return
    else:
        path = file.as_posix()
        with _opened(file) as opened:
            text = opened.read()
        yield str(file), _checked(str(file), path, text, {"source": path})
        return
    for place, row in rows:
        yield place, _checked(place, *in_rows.split(row, place))


def _csv_rows(file: Path, columns: Columns) -> Iterator[tuple[str, Row]]:
    with _opened(file) as opened:
        yield from csv_rows(file, opened, columns)


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with _opened(file) as opened:
        for number, line in enumerate(opened, start=1):
            if line.strip():
                yield f"{file}:{number}", _parse(f"{file}:{number}", line)


@contextmanager
def _opened(file: Path) -> Iterator[TextIO]:
    """Open a text, to be read a line at a time; what cannot be read is an InvalidInputError that names it."""
    try:
        # Without the byte order mark that editors on Windows write.
        with file.open(encoding="utf-8-sig") as opened:
            yield opened
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{file}: not UTF-8 text ({error.reason} at byte {_undecodable_at(file)}); convert it first", path=str(file)
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{file}: {error.strerror or error}", path=str(file)) from error


def _undecodable_at(file: Path) -> int:
    """Find the byte that is no UTF-8; a file that is read by the block says where in the block."""
    try:
        file.read_bytes().decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _parse(place: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{place}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidInputError(f"{place}: not an object with id and text: {line.strip()!r:.80}")
    return record


def _strict(place: str, record: dict[str, Any]) -> Document:
    """Make a document of an object that says by itself which of its fields are metadata."""
    if "id" not in record or "text" not in record:
        raise InvalidInputError(f"{place}: not an object with id and text: {json.dumps(record)!r:.80}")
    for field in record:
        if field not in _FIELDS:
            raise InvalidInputError(
                f"{place}: unknown field {field!r:.80}; put it into metadata, name it by --metadata-column, "
                f"or leave it out"
            )
    return _checked(place, record["id"], record["text"], record.get("metadata"))


def _checked(place: str, doc_id: object, text: object, metadata: object) -> Document:
    try:
        return check_document(doc_id, text, metadata)
    except (InvalidInputError, InvalidTypeError) as error:
        raise InvalidInputError(f"{place}: {error}") from error
