"""Datasets of Ray through the cache: one encode a text, whichever worker it comes to."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from embstore import EmbeddingCache, InvalidInputError, InvalidTypeError, UnsafeStoreError
from embstore.cli import main
from tests.fakes import CountingEncoder
from tests.ray_jobs import QUIET, SETTINGS, MakeEncoder, documents, know_fake, quiet, times_encoded

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
pytest.importorskip("ray.data", reason="needs the extra ray")
import pyarrow
import ray
from pyarrow import parquet

from embstore.integrations.ray import CachedEmbedder, Counts, EmbedReport, embed_dataset


@pytest.fixture
def cluster() -> Iterator[None]:
    """Ray on this machine, as one node."""
    ray.init(num_cpus=2, **SETTINGS, **QUIET)
    try:
        with quiet():
            yield
    finally:
        ray.shutdown()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the encoders of all workers write what they encode."""
    (tmp_path / "encoded").mkdir()
    return tmp_path / "encoded"


def vectors_by_id(dataset: Any) -> dict[str, np.ndarray]:
    return {row["id"]: row["vector"] for row in dataset.iter_rows()}


def test_a_dataset_is_given_vectors_each_text_encoded_once(cluster: None, cache_path: Path, log: Path) -> None:
    """All in one test: it takes seconds to start Ray."""
    rows = documents(800, n_duplicates=200)
    dataset = ray.data.from_items(rows, override_num_blocks=4)
    runs = []
    for counts in (Counts(), Counts()):
        options: dict[str, Any] = {"id_column": "id", "counts": counts, "batch_rows": 128}
        embedded = embed_dataset(dataset, cache_path, MakeEncoder(log), **options).materialize()
        runs.append(counts.report())
    assert set(times_encoded(log).values()) == {1}
    assert len(times_encoded(log)) == 600
    assert runs[0] == EmbedReport(800, 600, 200, runs[0].encode_s)
    assert runs[1] == EmbedReport(800, 0, 800, 0.0)

    fake = CountingEncoder()
    expected = {row["id"]: fake.vector(row["text"]).tobytes() for row in rows}
    assert {doc_id: vector.tobytes() for doc_id, vector in vectors_by_id(embedded).items()} == expected
    with EmbeddingCache(cache_path) as cache:
        assert cache.verify() == []
        ids, vectors = cache.matrix("fake")
    assert {doc_id: vector.tobytes() for doc_id, vector in zip(ids, vectors, strict=True)} == expected

    holey = ray.data.from_items([{"text": "a text"}, {"text": None}])
    with pytest.raises(InvalidInputError, match="'text' is null in row 1"):
        embed_dataset(holey, cache_path, MakeEncoder(log)).materialize()
    with pytest.raises(InvalidInputError, match="no column 'body' among 'id', 'text'"):
        embed_dataset(dataset, cache_path, MakeEncoder(log), text_column="body").materialize()


class Nodes:
    """What Ray says of its nodes, without a cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *alive: bool) -> None:
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": is_alive} for is_alive in alive])


def test_a_file_is_refused_on_a_cluster_of_several_nodes(
    cache_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Nodes(monkeypatch, True, True, False)
    message = r"'.*embeddings\.db' is a file, and this cluster has 2 nodes; give the URL of a PostgreSQL server"
    with pytest.raises(UnsafeStoreError, match=message):
        embed_dataset(None, cache_path, CountingEncoder)  # type: ignore[arg-type]
    with pytest.raises(UnsafeStoreError, match=message):  # in a worker, of a cluster that has grown
        CachedEmbedder(cache_path, lambda: encoder)({"text": ["one"]})
    assert (encoder.n_texts, cache_path.exists()) == (0, False)


def test_a_file_is_taken_where_one_node_is_left(
    cache_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Nodes(monkeypatch, True, False)
    with CachedEmbedder(cache_path, lambda: encoder) as embed:
        assert np.array_equal(embed({"text": ["one"]})["vector"], encoder.vectors(["one"]))


class Mapped:
    """A dataset that takes down what it is to be mapped with."""

    def __init__(self) -> None:
        self.context = SimpleNamespace()

    def map_batches(self, *_: object, **options: Any) -> Mapped:
        self.options = options
        return self


def test_a_password_is_not_shown_in_what_a_job_is_given() -> None:
    """Ray exports the arguments of what it maps with, as their str."""
    mapped: Any = Mapped()
    embed_dataset(mapped, "postgresql://me:secret@host/db", CountingEncoder)
    assert "secret" not in str(mapped.options)
    made = CachedEmbedder(**pickle.loads(pickle.dumps(mapped.options["fn_constructor_kwargs"])))
    assert made.store == "postgresql://me:secret@host/db"


def test_what_is_wrong_is_said_before_anything_is_started(cache_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="make_encoder is CountingEncoder; give the name of a model"):
        embed_dataset(None, cache_path, CountingEncoder())  # type: ignore[arg-type]
    for options in ({"workers": 0}, {"batch_rows": 0}):
        with pytest.raises(InvalidInputError, match="must be at least 1"):
            embed_dataset(ray.data.Dataset, cache_path, CountingEncoder, **options)  # type: ignore[arg-type]


# --- the command ----------------------------------------------------------------------------


@pytest.fixture
def cluster_with_model() -> Iterator[None]:
    # Where the hook is from has to be said: it is imported before a worker knows the paths of this process.
    from_here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment = {"worker_process_setup_hook": know_fake, "env_vars": from_here}
    ray.init(num_cpus=3, runtime_env=environment, **SETTINGS, **QUIET)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)  # each job starts processes, which take a minute on a machine that is busy
def test_the_command_embeds_files_by_workers(
    cluster_with_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses the cluster that is there, and leaves it there."""
    monkeypatch.chdir(tmp_path)
    rows = documents(3_000, n_duplicates=1_000)
    write_rows("rows.parquet", rows)
    options = ["rows.parquet", "--ray", "--workers", "2", "--model", "fake", "--store", "cache.db", "--id-column", "id"]

    told = json.loads(run("embed", *options, "-o", "out.parquet", "--json").stdout)
    assert (told["n_texts"], told["n_encoded"], told["n_hits"]) == (3_000, 2_000, 1_000)
    table = parquet.read_table("out.parquet")
    assert table.schema.field("vector").type.list_size == 8
    given = {row["id"]: (row["text"], row["vector"]) for row in table.to_pylist()}
    fake = CountingEncoder()
    assert given == {row["id"]: (row["text"], fake.vector(row["text"]).tolist()) for row in rows}
    with EmbeddingCache("cache.db") as cache:
        assert (len(cache), cache.verify()) == (3_000, [])

    assert run("embed", *options).stdout.endswith(" s: 0 encoded, 3,000 from the cache\n")
    again = run("embed", *options, "-o", "out.parquet", exit_code=3)
    assert "there is something already" in again.stderr

    assert "no column 'body' among 'id', 'text'" in run("embed", *options, "--text-column", "body", exit_code=2).stderr
    assert "'missing.parquet' does not exist" in run("embed", "missing.parquet", *options[1:], exit_code=2).stderr
    write_rows("rows.parquet", [*rows, {"id": "last", "text": None}])
    failed = run("embed", *options, "-o", "other.parquet", exit_code=2)
    assert failed.stderr.startswith("embstore: error: column 'text' is null in row ")
    assert failed.stderr.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache.db", "out.parquet", "rows.parquet"]
    assert ray.is_initialized()


def write_rows(file: str, rows: list[dict[str, Any]]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def run(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result
