"""Whatever ends a transfer early, what is stored is whole, and the same call again does the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, ModelIdentity, OutOfRangeError, ReadOnlyError, content_hash, transfer
from embstore.stores.sqlite import SQLiteStore
from embstore.transfer import exporting, importing, merging
from tests.fakes import CountingEncoder, QueryEncoder

IDS, TEXTS = [f"doc {i}" for i in range(10)], [f"text {i}" for i in range(10)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (exporting, importing, merging):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)


@pytest.fixture
def other(tmp_path: Path, encoder: CountingEncoder) -> Path:
    with EmbeddingCache(tmp_path / "other.db") as cache:
        cache.get_many(IDS, TEXTS, encoder)
    return tmp_path / "other.db"


def interrupt_contents(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Have Ctrl-C come when so many pages were read."""
    whole = SQLiteStore.contents

    def contents(self: SQLiteStore, model: Any, *, batch_rows: int) -> Iterator[Any]:
        for n_read, page in enumerate(whole(self, model, batch_rows=batch_rows)):
            if n_read == after:
                raise KeyboardInterrupt
            yield page

    monkeypatch.setattr(SQLiteStore, "contents", contents)


def test_a_merge_that_is_interrupted_is_finished_by_the_next(
    cache: EmbeddingCache, other: Path, encoder: CountingEncoder
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        interrupt_contents(patched, after=2)
        with pytest.raises(KeyboardInterrupt):
            transfer.merge(cache, other)
    assert (len(cache), cache.verify()) == (6, [])
    report = transfer.merge(cache, other)
    assert (report.n_stored, report.n_present, report.n_documents) == (4, 6, 4)
    assert cache.matrix("fake", doc_ids=IDS)[1].tobytes() == encoder.vectors(TEXTS).tobytes()


def test_an_import_that_is_interrupted_is_finished_by_the_next(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    def texts() -> Iterator[importing.SourceRow | transfer.Skipped]:
        for row, doc_id in enumerate(IDS):
            if row == 7:
                raise KeyboardInterrupt
            vector = encoder.vector(TEXTS[row])
            yield importing.SourceRow(doc_id, content_hash(TEXTS[row]), vector, doc_id)

    owner = importing.Owner.of(cache, None, "fake", None, "document")
    with pytest.raises(KeyboardInterrupt) as caught:
        importing.import_rows(cache, "rows", owner, texts(), total=None, progress=None)
    (told,) = caught.value.__notes__
    assert told.startswith("6 vectors, 6 documents and 0 texts")
    assert told.endswith("running it again stores the rest")
    assert (len(cache), cache.verify()) == (6, [])
    report = transfer.import_matrix(cache, encoder.vectors(TEXTS), IDS, TEXTS, model_name="fake")
    assert (report.n_stored, report.n_present, report.n_documents) == (4, 6, 4)


@pytest.mark.parametrize("export", [transfer.export_npy, transfer.export_projector])
def test_an_export_that_is_interrupted_leaves_nothing(
    cache: EmbeddingCache, tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch, export: Any
) -> None:
    transfer.merge(cache, other)
    before = sorted(tmp_path.iterdir())
    interrupt_contents(monkeypatch, after=2)
    with pytest.raises(KeyboardInterrupt):
        export(cache, tmp_path / "out", "fake")
    assert sorted(tmp_path.iterdir()) == before


def test_a_value_that_float16_cannot_hold_is_named_and_what_came_before_is_told(cache_path: Path) -> None:
    vectors = np.ones((5, 2), np.float32)
    vectors[4, 1] = 70_000
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        with pytest.raises(OutOfRangeError, match=r"the matrix: row 4.*3 vectors, 3 documents") as caught:
            transfer.import_matrix(cache, vectors, IDS[:5], TEXTS[:5], model_name="m")
        assert str(caught.value).endswith("running it again stores the rest")
        assert (len(cache), cache.verify()) == (3, [])


def test_a_cache_that_can_only_be_read_takes_nothing(
    cache: EmbeddingCache, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SQLiteStore) -> Any:
        raise ReadOnlyError("it can only be read")

    monkeypatch.setattr(SQLiteStore, "writing", refuse)
    with pytest.raises(ReadOnlyError, match="nothing was stored"):
        transfer.merge(cache, other)


def test_progress_is_shown_where_it_is_asked_for(
    cache: EmbeddingCache, tmp_path: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transfer.merge(cache, other, progress=True)
    transfer.export_npy(cache, tmp_path / "out", "fake", progress=True)
    transfer.import_matrix(cache, tmp_path / "out", progress=True)
    told = capsys.readouterr().err
    assert all(f"{verb}:" in told for verb in ("merging", "exporting", "importing"))
    assert "10/10" in told


def test_an_identity_is_told_without_being_stored(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert cache.identity_of(encoder) == ModelIdentity("fake")
    assert cache.identity_of(QueryEncoder(), role="query") == ModelIdentity.of("fake", role="query")
    assert cache.identity_of(model_name="m", settings={"a": 1}) == ModelIdentity.of("m", {"a": 1})
    assert cache.models() == []


def test_vectors_of_a_live_model_come_under_its_identity(cache: EmbeddingCache) -> None:
    encoder = QueryEncoder(model_name="asymmetric")
    vectors = np.stack([encoder.vector(f"query: {text}") for text in TEXTS])
    transfer.import_matrix(cache, vectors, IDS, TEXTS, model=encoder, role="query")
    assert cache.embed_query(TEXTS, encoder).tobytes() == vectors.tobytes()
    assert encoder.n_texts == 1  # the one by which the model is compared
