"""Counting what models encode and what is found of them, in an SQLite file."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from sqlite3 import Connection, DatabaseError

from embstore.stores import usage as counting
from embstore.stores.connection import Database
from embstore.stores.sqlite_errors import is_damage
from embstore.stores.tables import encodings, usage
from embstore.stores.usage import Counts

_logger = logging.getLogger("embstore.stores")


class SQLiteUsage:
    """What is noted of models along with the writes that happen anyway; damage to its tables prevents none of them.

    Hits write nothing: they wait in memory for the next write of this process, and are not noted where there is none.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._can_note: bool | None = False if database.read_only else None  # not known yet
        self._waiting: dict[int, tuple[int, int]] = {}  # by model: texts and characters
        self._lock = threading.Lock()

    def look(self) -> None:
        """Find damage to the tables before a write: SQLite commits nothing that met a damaged page."""
        if self._can_note is None:
            with self._database.reading() as connection:
                self._can_note = encodings.can_be_read(connection) and usage.can_be_read(connection)
            if not self._can_note:
                _logger.warning(
                    "%r: what models do and how long they take is not noted, as that table is damaged",
                    self._database.path,
                )

    def hit(self, model_id: int, n_texts: int, n_chars: int) -> None:
        """Count texts that were found."""
        if self._can_note is not True:
            self.look()
            if not self._can_note:
                return
        with self._lock:
            texts, chars = self._waiting.get(model_id, (0, 0))
            self._waiting[model_id] = (texts + n_texts, chars + n_chars)

    def stored(self, connection: Connection, model_id: int, n_vectors: int) -> None:
        """Count vectors that a transaction stores."""
        if n_vectors and self._can_note:
            with self._noting():
                usage.add(connection, model_id, counting.today(), Counts(n_stored=n_vectors))

    def encoded(self, connection: Connection, model_id: int, n_texts: int, n_chars: int, seconds: float) -> None:
        """Count texts that a model has encoded, in the transaction that stores what came of it."""
        if self._can_note:
            with self._noting():
                encodings.add(connection, model_id, n_texts, n_chars, seconds)
                usage.add(connection, model_id, counting.today(), Counts(n_encoded=n_texts, encode_s=seconds))

    def waiting(self, model_id: int) -> tuple[int, int]:
        """Give the texts that were found and are not noted yet, and their characters."""
        return self._waiting.get(model_id, (0, 0))

    @contextlib.contextmanager
    def going_along(self) -> Iterator[Callable[[Connection], None]]:
        """Lend what writes the hits that wait, at the end of a transaction; they wait on where the block raises."""
        taken: dict[int, tuple[int, int]] = {}

        def write(connection: Connection) -> None:
            if not self._waiting or not self._can_note:
                return
            with self._lock:
                taken.update(self._waiting)
                self._waiting.clear()
            with self._noting():
                for model_id, (n_texts, n_chars) in taken.items():
                    usage.add(connection, model_id, counting.today(), Counts(n_texts, n_chars))

        try:
            yield write
        except BaseException:
            for model_id, (n_texts, n_chars) in taken.items():
                self.hit(model_id, n_texts, n_chars)
            raise

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            self._can_note = not is_damage(error)  # the next transaction need not fail
            raise

    def forget_waiting(self) -> None:
        """Leave what waits to the process that counted it, after a fork."""
        self._lock = threading.Lock()
        self._waiting = {}
