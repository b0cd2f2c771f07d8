"""Counting what models encode and what is found of them, on a server.

All writers of a model add to one row a day, and who has it keeps the others waiting. So a transaction adds to it last,
when there is nothing left to do but to commit.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from embstore.stores import usage as counting
from embstore.stores.postgres import usage_rows
from embstore.stores.postgres.pool import Connection
from embstore.stores.usage import Counts, ModelUsage


@dataclass
class _Noted:
    """What a transaction has to add: counts, and the characters of what was encoded, by model."""

    counts: dict[int, Counts] = field(default_factory=dict)
    n_chars: dict[int, int] = field(default_factory=dict)

    def add(self, model_id: int, counts: Counts, n_chars: int = 0) -> None:
        self.counts[model_id] = self.counts.get(model_id, Counts()).plus(counts)
        self.n_chars[model_id] = self.n_chars.get(model_id, 0) + n_chars


class PostgresUsage:
    """What is noted of models along with the writes that happen anyway.

    Hits write nothing: they wait in memory for the next write of this process, and are not noted where there is none.
    """

    def __init__(self) -> None:
        self._transaction = threading.local()
        self._begin(os.getpid())

    def _begin(self, pid: int) -> None:
        self._pid = pid
        self._waiting: dict[int, tuple[int, int]] = {}  # by model: texts and characters
        self._lock = threading.Lock()

    def hit(self, model_id: int, n_texts: int, n_chars: int) -> None:
        """Count texts that were found."""
        self._forget_the_parents()
        with self._lock:
            texts, chars = self._waiting.get(model_id, (0, 0))
            self._waiting[model_id] = (texts + n_texts, chars + n_chars)

    def waiting(self, model_id: int) -> tuple[int, int]:
        """Give the texts that were found and are not noted yet, and their characters."""
        self._forget_the_parents()
        return self._waiting.get(model_id, (0, 0))

    def stored(self, model_id: int, n_vectors: int) -> None:
        """Count vectors that this thread's transaction stores."""
        if n_vectors:
            self._transaction.noted.add(model_id, Counts(n_stored=n_vectors))

    def encoded(self, model_id: int, n_texts: int, n_chars: int, seconds: float) -> None:
        """Count texts that a model has encoded, in the transaction of this thread that stores what came of it."""
        self._transaction.noted.add(model_id, Counts(n_encoded=n_texts, encode_s=seconds), n_chars)

    @contextlib.contextmanager
    def going_along(self) -> Iterator[Callable[[Connection], None]]:
        """Lend what writes what was counted, at the end of a transaction; hits wait on where the block raises."""
        self._forget_the_parents()
        self._transaction.noted = noted = _Noted()
        taken: dict[int, tuple[int, int]] = {}

        def write(connection: Connection) -> None:
            with self._lock:
                taken.update(self._waiting)
                self._waiting.clear()
            for model_id, (n_texts, n_chars) in taken.items():
                noted.add(model_id, Counts(n_texts, n_chars))
            for model_id in usage_rows.lock_models(connection, sorted(noted.counts)):
                usage_rows.add(connection, model_id, counting.today(), noted.counts[model_id], noted.n_chars[model_id])

        try:
            yield write
        except BaseException:
            for model_id, (n_texts, n_chars) in taken.items():
                self.hit(model_id, n_texts, n_chars)
            raise

    def _forget_the_parents(self) -> None:
        """Leave what waits to the process that counted it, after a fork."""
        if self._pid != os.getpid():
            self._begin(os.getpid())


def seconds_per_char(connection: Connection, model_id: int) -> float | None:
    """Tell how long a model has taken for a character of text, None where it is not known."""
    totals = usage_rows.totals(connection, model_id)
    return totals[2] / totals[1] if totals and totals[1] else None


def of_model(connection: Connection, model_id: int, n_hits: int, n_hit_chars: int) -> ModelUsage:
    """Give what was counted of a model, with hits that are not stored yet and their characters."""
    days = usage_rows.days(connection, model_id)
    n_hits += sum(day.n_hits for day in days)
    n_hit_chars += sum(day.n_hit_chars for day in days)
    n_encoded, n_chars, encode_s = usage_rows.totals(connection, model_id) or (0, 0, 0.0)
    saved_s = n_hit_chars * encode_s / n_chars if n_chars else 0.0
    return ModelUsage(n_hits, n_encoded, encode_s, saved_s, tuple(days))
