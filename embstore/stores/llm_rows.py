"""Reading the embeddings that Simon Willison's `llm` keeps in an SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3 as _sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embstore.errors import SourceError
from embstore.stores.opening import connect
from embstore.stores.sqlite_errors import sqlite3

ROWS_AT_ONCE = 1000
TIMEOUT_S = 30.0

TABLES = """
SELECT name
FROM sqlite_master
WHERE type = 'table' AND name IN ('collections', 'embeddings')
"""

COLUMNS = """
SELECT name
FROM pragma_table_info('embeddings')
"""

COLLECTIONS = """
SELECT id, name, model, (SELECT count(*) FROM embeddings WHERE collection_id = collections.id)
FROM collections
ORDER BY id
"""

ROWS = """
SELECT rowid, id, embedding, content, content_blob, content_hash
FROM embeddings
WHERE collection_id = ? AND rowid > ?
ORDER BY rowid
LIMIT ?
"""

_NEEDED = {"collection_id", "id", "embedding", "content", "content_blob", "content_hash"}


@dataclass(frozen=True)
class LlmCollection:
    """A collection: its number, its name, what `llm` calls the model, and how many rows it has."""

    collection_id: int
    name: str
    model: str
    n_rows: int


Row = tuple[Any, Any, Any, Any, Any]
"""The id, the vector's bytes, the text, other content, the MD5 of either: whatever types they have in the file."""


def _text(data: bytes) -> str | bytes:
    """Give text, or the bytes of what is none: SQLite takes any, and the row that has them can then be named."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class LlmRows:
    """The rows of a file, which is only read.

    Parameters
    ----------
    path : Path

    Raises
    ------
    SourceError
        It is no such file, or one of an `llm` of before version 0.9.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise SourceError(f"{str(path)!r} is no file; `llm collections path` says where it is", path=str(path))
        with self._errors():
            self._connection = connect(path.absolute(), "ro", TIMEOUT_S)
            self._connection.text_factory = _text
        try:
            with self._errors():
                tables = self._connection.execute(TABLES).fetchall()
                columns = {name for (name,) in self._connection.execute(COLUMNS)}
            if len(tables) != 2 or not columns >= _NEEDED:
                raise SourceError(
                    f"{str(path)!r} has no embeddings of llm, or those of an old version, which "
                    f"`llm collections list -d {path}` brings up to date",
                    path=str(path),
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def collections(self) -> list[LlmCollection]:
        """List the collections, oldest first."""
        with self._errors():
            return [LlmCollection(*row) for row in self._connection.execute(COLLECTIONS)]

    def rows(self, collection: LlmCollection) -> Iterator[Row]:
        """Read the rows of a collection, in the order in which they are stored."""
        last = -(2**63)
        while True:
            with self._errors():
                page = self._connection.execute(ROWS, (collection.collection_id, last, ROWS_AT_ONCE)).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield from (row[1:] for row in page)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, _sqlite3.Error, UnicodeDecodeError) as error:
            raise SourceError(
                f"{str(self._path)!r} cannot be read as a database of llm: {error}", path=str(self._path)
            ) from error
