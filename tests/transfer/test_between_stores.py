"""Merging from file to server, from there to another, and back: bit for bit, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from embstore import DamagedStoreError, EmbeddingCache, EmbstoreError, ReadOnlyError, SourceError, StoredEmbeddings
from embstore.cli import main
from embstore.transfer import TransferReport, merge
from tests.fakes import CountingEncoder
from tests.files import dump
from tests.postgres import new_schema
from tests.transfer import test_killed
from tests.transfer.test_killed import source as source
from tests.transfer.test_merge import holdings
from tests.transfer.test_merge import other as other


@pytest.fixture
def second_url(postgres_server_url: str) -> Iterator[str]:
    with new_schema(postgres_server_url) as url:
        yield url


def test_all_goes_to_a_server_and_to_another_and_comes_back_as_it_was(
    other: Path, postgres_url: str, second_url: str, tmp_path: Path
) -> None:
    kept = {"": b"", "a\0b\1": b"nul", "key": b"value", "ключ": bytes(range(256))}
    with EmbeddingCache(other) as cache:
        cache.store.byte_values.mset(kept)
    places = [str(other), postgres_url, second_url, str(tmp_path / "b.db")]
    for here, there in pairwise(places):
        with EmbeddingCache(there) as cache:
            report = merge(cache, here)
            assert report == TransferReport(report.source, 9, 0, 8, 2, (), (), len(kept))
            assert merge(cache, here) == TransferReport(report.source, 0, 9, 0, 0, (), ())
            assert cache.verify() == []
    assert holdings(tmp_path / "b.db") == holdings(other)
    with EmbeddingCache(tmp_path / "b.db") as cache:
        values = cache.store.byte_values
        assert dict(zip(values.keys(), values.mget(list(values.keys())), strict=True)) == kept


def test_what_was_merged_into_a_server_is_not_encoded_again(other: Path, postgres_url: str) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(postgres_url) as cache:
        merge(cache, other)
        cache.get_many(["a", "b"], ["one", "two"], encoder)
    assert encoder.n_texts == 0


def test_what_a_server_has_otherwise_stays_and_is_named(postgres_url: str, tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "other.db") as theirs:
        theirs.put_many(["a", "b"], ["one", "two"], [[0.0, 1.0], [0.5, 0.5]], model_name="m")
        theirs.store.byte_values.mset({"key": b"theirs"})
    with EmbeddingCache(postgres_url) as cache:
        cache.put_many(["a", "b"], ["one", "else"], [[-0.0, 1.0], [3.0, 4.0]], model_name="m")
        cache.store.byte_values.mset({"key": b"mine"})
        before = cache.matrix("m", doc_ids=["a", "b"])[1]
        report = merge(cache, tmp_path / "other.db")
        assert [(c.what, c.difference, c.doc_id, c.key) for c in report.conflicts] == [
            ("vector", 0.0, None, None),  # another zero is another vector
            ("document", None, "b", None),
            ("value", None, None, "key"),
        ]
        assert (report.n_stored, report.n_present, report.n_documents, report.n_values) == (1, 1, 0, 0)
        assert cache.matrix("m", doc_ids=["a", "b"])[1].tobytes() == before.tobytes()
        assert cache.verify() == []


def test_formats_come_as_they_are_and_a_model_of_another_dimension_is_not_mixed(
    postgres_url: str, tmp_path: Path
) -> None:
    vectors = np.random.default_rng(1).standard_normal((50, 1200)).astype(np.float32)  # kept aside by the server
    ids = [f"doc {i}" for i in range(50)]
    with EmbeddingCache(tmp_path / "half.db", dtype="float16") as half:
        half.put_many(ids, ids, vectors, model_name="half")
        half.put_many(ids, ids, vectors[:, :3], model_name="shorter")
    with EmbeddingCache(postgres_url) as cache:
        cache.put_many(["mine"], ["mine"], [[1.0, 2.0]], model_name="shorter", settings={"dtype": "float16"})
        report = merge(cache, tmp_path / "half.db")
        (half_model,) = [model for model in cache.models() if model.model_name == "half"]
        assert (half_model.dtype, half_model.n_vectors) == ("float16", 50)
        rounded = vectors.astype(np.float16).astype(np.float32)
        assert cache.matrix("half", doc_ids=ids)[1].tobytes() == rounded.tobytes()
        (conflict,) = report.conflicts
        assert conflict.what == "model"
        assert "shorter" in str(conflict)


def test_a_damaged_server_is_refused_as_a_whole_and_a_sound_copy_puts_it_right(
    other: Path, postgres_url: str, tmp_path: Path
) -> None:
    psycopg = pytest.importorskip("psycopg")
    with EmbeddingCache(postgres_url) as cache:
        merge(cache, other)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            done = connection.execute("UPDATE vectors SET standalone = NOT standalone WHERE dim = 8")
            assert done.rowcount >= 1
        with EmbeddingCache(tmp_path / "target.db") as target:
            before = dump(tmp_path / "target.db")
            with pytest.raises(DamagedStoreError, match=r"merging a sound copy into it.*; nothing was stored$"):
                merge(target, postgres_url)
            assert dump(tmp_path / "target.db") == before
        report = merge(cache, other)
        assert (report.n_stored, report.conflicts) == (done.rowcount, ())
        assert cache.verify() == []


def test_a_server_that_can_only_be_read_is_merged_from_and_not_into(
    other: Path, postgres_url: str, tmp_path: Path
) -> None:
    reader = f"{postgres_url}%20-cdefault_transaction_read_only%3Don"
    with EmbeddingCache(postgres_url) as cache:
        merge(cache, other)
    with EmbeddingCache(tmp_path / "b.db") as cache:
        merge(cache, reader)
        cache.put_many(["new"], ["new"], [[1.0]], model_name="new")
    with EmbeddingCache(reader) as cache, pytest.raises(ReadOnlyError, match=r"nothing was stored$"):
        merge(cache, tmp_path / "b.db")


def test_a_server_is_not_merged_into_itself(postgres_url: str) -> None:
    with EmbeddingCache(postgres_url) as cache:
        cache.put_many(["a"], ["one"], [[1.0]], model_name="m")
        with pytest.raises(SourceError, match="the very cache") as caught:
            merge(cache, postgres_url)
    assert password_of(postgres_url) not in str(caught.value)


def test_a_server_that_is_away_changes_nothing(cache: EmbeddingCache, cache_path: Path) -> None:
    before = dump(cache_path)
    with pytest.raises(EmbstoreError) as caught:
        merge(cache, "postgresql://me:s3cret@127.0.0.1:1/nowhere")
    assert "s3cret" not in str(caught.value)
    assert dump(cache_path) == before


def test_the_command_takes_urls_both_ways_and_prints_no_password(
    tmp_path: Path, postgres_url: str, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(tmp_path / "mine.db") as cache:
        cache.get_many(["a", "b"], ["one", "two"], encoder)
    told = run("merge", str(tmp_path / "mine.db"), postgres_url)
    assert "2 vectors, 2 documents and 0 texts stored" in told
    told = run("merge", postgres_url, str(tmp_path / "back.db"))
    assert "2 vectors, 2 documents and 0 texts stored" in told
    report = json.loads(run("merge", postgres_url, str(tmp_path / "back.db"), "--json"))
    assert (report["n_present"], report["n_stored"], report["ok"]) == (2, 0, True)
    assert password_of(postgres_url) not in told + json.dumps(report)
    with StoredEmbeddings(tmp_path / "back.db") as back:
        assert back.matrix("fake", doc_ids=["a", "b"])[1].tobytes() == encoder.vectors(["one", "two"]).tobytes()


@pytest.mark.parametrize("seed", test_killed.SEEDS)
def test_a_killed_merge_into_a_server_is_finished_by_the_next(source: str, postgres_url: str, seed: int) -> None:
    test_killed.check(source, postgres_url, seed)


@pytest.mark.parametrize("seed", test_killed.SEEDS[1:])
def test_a_killed_merge_from_a_server_is_finished_by_the_next(
    source: str, postgres_url: str, tmp_path: Path, seed: int
) -> None:
    with EmbeddingCache(postgres_url) as cache:
        merge(cache, source)
    test_killed.check(postgres_url, str(tmp_path / "target.db"), seed)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def password_of(url: str) -> str:
    return url.split("@")[0].rpartition(":")[2]
