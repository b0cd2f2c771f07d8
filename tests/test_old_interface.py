"""Code that was written against the first cache of this name goes on working."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, cache_stats
from tests.fakes import CountingEncoder


def test_the_model_can_be_given_by_its_place(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert np.array_equal(cache.get("a", "text", encoder), encoder.vector("text"))


def test_the_model_can_be_given_as_embedding_model(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    first = cache.get("a", "text", embedding_model=encoder)
    second = cache.get(doc_id="a", text="text", embedding_model=encoder)
    assert np.array_equal(first, second)
    assert encoder.calls == [["text"]]


def test_a_vector_is_one_dimensional_float32(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    vector = cache.get("a", "text", encoder)
    assert (type(vector), vector.dtype, vector.shape) == (np.ndarray, np.float32, (8,))


def test_an_edited_text_is_encoded_anew(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "old", encoder)
    assert np.array_equal(cache.get("a", "new", encoder), encoder.vector("new"))
    assert encoder.texts == ["old", "new"]


def test_one_document_is_invalidated_by_its_id(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    cache.invalidate("a")
    cache.invalidate("not there")
    cache.get("a", "text", encoder)
    assert encoder.texts == ["text", "text"]


def test_clear_without_arguments_forgets_everything(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    cache.clear()
    assert cache_stats(cache)["cached_documents"] == 0
    cache.get("a", "text", encoder)
    assert encoder.texts == ["text", "text"]


def test_cache_stats_has_the_three_figures(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    cache.get("b", "text", encoder)
    cache.get("b", "text", encoder, model_name="other")
    size_mb = cache.path.stat().st_size / 1024 / 1024
    assert cache_stats(cache) == {"cached_documents": 2, "total_size_mb": size_mb, "index_entries": 3}


@pytest.mark.parametrize("kind", [str, Path])
def test_the_path_is_a_str_or_a_path_and_the_cache_a_context(
    kind: type, cache_path: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(kind(cache_path)) as cache:
        cache.get("a", "text", encoder)
        assert cache.verify() == []
    with EmbeddingCache(path=kind(cache_path)) as cache:
        assert len(cache) == 1


def test_the_path_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddingCache() as cache:
        assert cache.path == tmp_path / "embeddings.db"
        assert cache.verify() == []


def test_a_cache_that_nobody_closes_has_stored_what_it_gave(cache_path: Path, encoder: CountingEncoder) -> None:
    EmbeddingCache(cache_path).get("a", "text", encoder)
    with EmbeddingCache(cache_path) as cache:
        assert ("a" in cache, cache.verify()) == (True, [])


def test_a_program_that_closes_nothing_ends_silently(cache_path: Path) -> None:
    script = """
import sys, threading
from embstore import EmbeddingCache
from tests.fakes import CountingEncoder
cache = EmbeddingCache(sys.argv[1])
cache.get("a", "text", CountingEncoder())
thread = threading.Thread(target=cache.get, args=("b", "more", CountingEncoder()))
thread.start()
thread.join()
pages = cache.iter_matrix("fake", batch_rows=1)
next(pages)
"""
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", script, str(cache_path)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with EmbeddingCache(cache_path) as cache:
        assert (len(cache), cache.verify()) == (2, [])
