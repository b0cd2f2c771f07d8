"""How what is counted of models gets into an SQLite file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embstore import ModelIdentity
from embstore.stores import usage
from embstore.stores.sqlite import SQLiteStore
from tests.files import Row, rows

DAY = "2026-01-31"


def stored(path: Path) -> list[Row]:
    return rows(path, "SELECT day, n_hits, n_hit_chars, n_encoded, n_stored FROM usage")


class Refuses:
    """Has something to write with each transaction, and cannot the first time."""

    n_times = 0

    @contextlib.contextmanager
    def going_along(self) -> Iterator[Callable[[object], None]]:
        yield self.write

    def write(self, _: object) -> None:
        self.n_times += 1
        if self.n_times == 1:
            raise KeyboardInterrupt

    def forget_waiting(self) -> None:
        pass


def test_hits_wait_on_where_the_transaction_that_had_them_is_rolled_back(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "today", lambda: DAY)
    store = SQLiteStore(cache_path)
    model = store.ensure_model(ModelIdentity("fake"), 8, None)
    store.note_hits(model, n_texts=2, n_chars=7)
    store._database.go_along(Refuses())
    with pytest.raises(KeyboardInterrupt):
        store.rename_model("fake", "renamed")
    assert (stored(cache_path), store.stats().models[0].usage.n_hits) == ([], 2)
    store.rename_model("fake", "renamed")
    assert stored(cache_path) == [(DAY, 2, 7, 0, 0)]
    store.close()
