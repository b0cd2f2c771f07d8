"""Processes that index documents are killed; nothing is lost, nothing encoded twice, everything found."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache
from embstore.codec import Vectors
from embstore.search.base import IndexRecord
from embstore.search.note import HOLDER_NAME
from tests.faults.indexer import N_DOCUMENTS, Call, documents_of, ids_of, next_call, read_calls
from tests.scifact import LookUpEncoder, needs_scifact

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")
pytestmark = needs_scifact

RANDOM_MOMENTS = [(seed, "random") for seed in range(50)]
AIMED_MOMENTS = [(seed, "aimed") for seed in range(20)]
IDS = ids_of(0, N_DOCUMENTS)


def slow_after(n: int, rounds: list[tuple[int, str]]) -> list[object]:
    return [pytest.param(*round_, marks=[pytest.mark.slow] if i >= n else []) for i, round_ in enumerate(rounds)]


class Library:
    """A library, what was encoded for it, and the calls of its indexer that returned."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "library"
        self.encoded = folder / "encoded"
        self.done = folder / "done"

    def encoded_texts(self) -> list[str]:
        return self.encoded.read_text().splitlines() if self.encoded.exists() else []

    def index_until(self, moment: float, aim_s: float | None, sync_threshold: int) -> None:
        """Run an indexer, and kill it: after a time, or soon after the next write to the vector index then."""
        command = [sys.executable, "-m", "tests.faults.indexer", self.path, self.encoded, self.done]
        indexer = subprocess.Popen([*map(str, command), str(sync_threshold)], stdout=subprocess.PIPE, text=True)
        assert indexer.stdout is not None
        assert indexer.stdout.readline() == "ready\n"
        time.sleep(moment)
        if aim_s is not None:
            before, deadline = self._written(), time.monotonic() + 2
            while self._written() == before and time.monotonic() < deadline:
                pass
            time.sleep(aim_s)
        indexer.kill()
        indexer.communicate()

    def _written(self) -> int:
        """When a file of a vector index was last written to."""
        return max((file.stat().st_mtime_ns for file in self.path.glob("*-*/*")), default=0)

    def stored_texts(self, encoder: LookUpEncoder) -> set[str]:
        """What the cache has a vector of."""
        texts = set(self.encoded_texts())
        with EmbeddingCache(self.path / "embeddings.db") as cache:
            return texts - set(cache.missing(texts, encoder))

    def call_under_way(self) -> Call:
        """The call in which the indexer was killed."""
        calls = read_calls(self.done)
        return next_call(calls[-1] if calls else None)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


@pytest.fixture
def encoder(library: Library) -> Iterator[LookUpEncoder]:
    encoder = LookUpEncoder(library.encoded)
    yield encoder
    encoder.close()


def records_of(engine: CachedSemanticSearchEngine) -> dict[str, IndexRecord]:
    return {record.doc_id: record for page in engine._index.records() for record in page}


def unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_what_was_done_is_there(records: dict[str, IndexRecord], library: Library) -> None:
    """All documents of calls that returned, but for those that the last call was about to replace."""
    _, start, stop = library.call_under_way()
    expected = {}
    for done_cycle, done_start, done_stop in read_calls(library.done):
        texts = documents_of(done_cycle)[done_start:done_stop]
        expected.update(zip(ids_of(done_start, done_stop), texts, strict=True))
    for doc_id in ids_of(start, stop):
        expected.pop(doc_id, None)
    assert {doc_id: records[doc_id].document for doc_id in expected if doc_id in records} == expected


@pytest.mark.parametrize(("seed", "kind"), slow_after(4, RANDOM_MOMENTS) + slow_after(2, AIMED_MOMENTS))
def test_a_killed_indexer_costs_nothing(library: Library, encoder: LookUpEncoder, seed: int, kind: str) -> None:
    rng = random.Random(f"{kind} {seed}")
    if kind == "random":
        library.index_until(rng.uniform(0, 2.5), None, sync_threshold=20 if seed % 2 else 0)
    else:
        library.index_until(rng.uniform(0, 1), rng.uniform(0, 0.003), sync_threshold=20)
    before, stored = library.encoded_texts(), library.stored_texts(encoder)
    texts = documents_of(library.call_under_way()[0])
    with CachedSemanticSearchEngine(encoder, path=library.path) as engine:
        assert_what_was_done_is_there(records_of(engine), library)
        assert library.encoded_texts() == before
        engine.index_documents(texts, IDS)
        encoded_now = library.encoded_texts()[len(before) :]
        assert len(set(before)) == len(before)
        assert len(set(encoded_now)) == len(encoded_now)
        assert not stored & set(encoded_now)

        records = records_of(engine)
        assert {doc_id: record.document for doc_id, record in records.items()} == dict(zip(IDS, texts, strict=True))
        vectors = np.stack([records[doc_id].vector for doc_id in IDS])  # type: ignore[arg-type]
        assert np.abs(unit(vectors) - unit(encoder.vectors(texts))).max() < 1e-6
        assert engine._index.not_found(list(records.values())) == []
        report = engine.reconcile(texts, IDS)
        assert (report.ok, report.n_records, report.not_cached) == (True, N_DOCUMENTS, [])
        assert engine.cache.verify() == []
    assert not (library.path / HOLDER_NAME).exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_library_whose_indexers_are_killed_again_and_again_stays_whole(
    library: Library, encoder: LookUpEncoder, seed: int
) -> None:
    """Each begins with what the one before left, and some are killed while they mend it."""
    rng = random.Random(f"again {seed}")
    for _ in range(4):
        library.index_until(rng.uniform(0, 0.3), rng.uniform(0, 0.003), sync_threshold=20)
        opening = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.indexer", library.path, library.encoded, library.done, "20"],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.7, 3))
        opening.kill()
        opening.communicate()
    texts = documents_of(library.call_under_way()[0])
    before, stored = library.encoded_texts(), library.stored_texts(encoder)
    with CachedSemanticSearchEngine(encoder, path=library.path) as engine:
        engine.index_documents(texts, IDS)
        assert not stored & set(library.encoded_texts()[len(before) :])
        assert engine.reconcile(texts, IDS).ok
        assert len(records_of(engine)) == N_DOCUMENTS
