"""The clock jumps ten years, forwards and backwards: nothing that is stored, found or locked depends on it."""

from __future__ import annotations

import datetime
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlite_utils.migrations

from embstore import CachedSemanticSearchEngine, EmbeddingCache
from embstore.search import note
from embstore.search.note import HOLDER_NAME
from embstore.stores.tables import models
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally
from tests.files import dump

TEN_YEARS = 10 * 365.25 * 24 * 3600  # seconds

Step = Callable[[Path, CountingEncoder, Any], object]

TEXTS = [f"text {i}" for i in range(40)]
IDS = [f"doc {i}" for i in range(40)]


class Clock:
    """What `time.time` and `datetime.now` tell, off by some seconds; `time.monotonic` goes on as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off_s = 0.0
        tell, real = time.time, datetime.datetime
        clock = self

        class Told(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
                return real.fromtimestamp(tell() + clock.off_s, tz)

        monkeypatch.setattr(time, "time", lambda: tell() + clock.off_s)
        monkeypatch.setattr(note, "datetime", Told)
        # Not in the module itself: pandas, which sqlite-utils imports where it is there, is built on that class.
        for user in (models, sqlite_utils.migrations):
            monkeypatch.setattr(
                user, "datetime", SimpleNamespace(datetime=Told, UTC=datetime.UTC, timezone=datetime.timezone)
            )

    def jump(self, off_s: float, folder: Path) -> None:
        """Set the clock, and the times of all files on the other side of what it was."""
        self.off_s = off_s
        for file in folder.rglob("*"):
            os.utime(file, (time.time() + off_s, time.time() + off_s))


# --- what is done between two jumps -----------------------------------------------------------


def fill(path: Path, encoder: CountingEncoder, index: Any) -> object:
    with EmbeddingCache(path / "embeddings.db") as cache:
        return cache.get_many(IDS, TEXTS, encoder).tobytes()


def index_some(path: Path, encoder: CountingEncoder, index: Any) -> object:
    with CachedSemanticSearchEngine(encoder, path=path, index=index) as engine:
        report = engine.index_documents(TEXTS, IDS, [{"n": i} for i in range(40)])
        return report.added, report.encoded


def edit_some(path: Path, encoder: CountingEncoder, index: Any) -> object:
    with CachedSemanticSearchEngine(encoder, path=path, index=index) as engine:
        report = engine.index_documents([*TEXTS[:30], "edited", "new"], [*IDS[:30], IDS[30], "new"])
        return report.added, report.updated, report.metadata_updated, report.unchanged, report.encoded


def open_after_a_crash_in_another_time(path: Path, encoder: CountingEncoder, index: Any) -> object:
    left = {"pid": 1, "host": "elsewhere", "program": "other", "since": "2099-01-01T00:00:00+00:00", "failed": []}
    (path / HOLDER_NAME).write_text(json.dumps(left))
    with CachedSemanticSearchEngine(encoder, path=path, index=index) as engine:
        return [(hit.doc_id, round(hit.score, 5)) for hit in engine.search("text 7", 5)]


def forget(path: Path, encoder: CountingEncoder, index: Any) -> object:
    with EmbeddingCache(path / "embeddings.db") as cache:
        return cache.invalidate(IDS[:5]), cache.prune(), cache.matrix("fake", doc_ids=IDS[5:9])[1].tobytes()


def another_model(path: Path, encoder: CountingEncoder, index: Any) -> object:
    with EmbeddingCache(path / "embeddings.db") as cache:
        cache.embed(TEXTS[:3], CountingEncoder(model_name="another"))
        cache.rename_model("another", "renamed")
        return len(cache.documents(model_name="fake") and list(cache.documents(model_name="fake")))


def check(path: Path, encoder: CountingEncoder, index: Any) -> object:
    with CachedSemanticSearchEngine(encoder, path=path, index=index) as engine:
        return engine.reconcile().n_records, engine.cache.verify()


STEPS: list[Step] = [
    fill,
    index_some,
    edit_some,
    open_after_a_crash_in_another_time,
    another_model,
    fill,
    forget,
    edit_some,
    check,
]


def without_moments(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, but for the moments at which models and migrations came, and the checksums that cover these."""
    tables = dump(path)
    tables["models"] = [row[:-2] for row in tables["models"]]
    tables["encodings"] = [row[:3] for row in tables["encodings"]]  # the rest is how long the model took
    tables["usage"] = sorted((row[0], *row[2:6]) for row in tables["usage"] if any(row[2:6]))  # counts, without days
    tables["_sqlite_migrations"] = [row[:2] for row in tables["_sqlite_migrations"]]
    return tables


def run(
    folder: Path, clock: Clock, offsets: Iterator[float], index: Any
) -> tuple[list[object], list[str], Any, set[str]]:
    """Do all steps, with a jump before each, and give all that came of them, and the years that were noted."""
    encoder = CountingEncoder()
    folder.mkdir()
    results = []
    for step in STEPS:
        clock.jump(next(offsets), folder)
        results.append(step(folder, encoder, index))
    file = folder / "embeddings.db"
    with EmbeddingCache(file) as cache:
        years = {model.created_at[:4] for model in cache.stats().models}
    return results, encoder.texts, without_moments(file), years


@pytest.mark.parametrize("index", ["exact", pytest.param("chroma", marks=pytest.mark.slow)])
def test_nothing_depends_on_the_clock(
    index: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    if index == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    clock = Clock(monkeypatch)
    rng = random.Random("clock")
    *expected, now = run(tmp_path / "as it goes", clock, iter([0.0] * len(STEPS)), index)
    for i in range(rounds(1, 20)):
        offsets = [rng.choice([-1, 1]) * TEN_YEARS for _ in STEPS]
        *came, years = run(tmp_path / f"{i}", clock, iter(offsets), index)
        differing = sum(a != b for a, b in zip(came[0], expected[0], strict=True)) + sum(
            a != b for a, b in zip(came[1:], expected[1:], strict=True)
        )
        tally.add("a clock that jumps ten years", jumps=len(STEPS), results_that_differ=differing)
        assert not years & now, "the clock did not jump"
        assert came == expected
        assert differing == 0
