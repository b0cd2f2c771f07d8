"""Jobs of Ray on a cluster of three nodes whose store is on a PostgreSQL server, with what happens to clusters."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from embstore import EmbeddingCache, UnsafeStoreError
from tests.fakes import CountingEncoder
from tests.postgres import NoServerError, Server, own_server
from tests.ray_jobs import QUIET, SETTINGS, MakeEncoder, documents, encoded, quiet, times_encoded

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
pytest.importorskip("ray.data", reason="needs the extra ray")
pytest.importorskip("psycopg", reason="needs the extra postgres")
import ray
from ray.cluster_utils import Cluster

from embstore.integrations.ray import CachedEmbedder, Counts, embed_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine takes minutes to start nodes and workers

N_DOCUMENTS, N_DUPLICATES = 20_000, 5_000
N_TEXTS = N_DOCUMENTS - N_DUPLICATES
ROWS = documents(N_DOCUMENTS, N_DUPLICATES)
random.Random(7).shuffle(ROWS)  # so that two workers are at the same text at once, some hundred times
LEASE_S = 5.0

# A worker that is lost has encoded at most two groups of a second: one that is being stored, and the next.
MOST_UNSTORED = 2 * 1000


@pytest.fixture
def nodes() -> Iterator[list[Any]]:
    """The nodes of a cluster beside its head: each has room for one worker, and the head for what reads."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **SETTINGS})
    store_memory = SETTINGS["object_store_memory"]
    try:
        added = [cluster.add_node(num_cpus=2, object_store_memory=store_memory, wait=True) for _ in range(2)]
        ray.init(address=cluster.address, **QUIET)
        with quiet():
            yield [cluster, *added]
    finally:
        ray.shutdown()
        cluster.shutdown()


@dataclass
class Job:
    """A job on the rows above, each text of which takes a millisecond."""

    url: str
    log: Path

    def run(self, meanwhile: Callable[[], None] | None = None, after: int = 4_000) -> tuple[Any, Any]:
        """Run it, with something done when so many texts were encoded; give its dataset and what it has cost."""
        counts = Counts()
        dataset = ray.data.from_items(ROWS, override_num_blocks=40)
        embedded = embed_dataset(
            dataset,
            self.url,
            MakeEncoder(self.log, text_s=0.001),
            workers=2,
            batch_rows=512,
            ray_options={"num_cpus": 2},
            id_column="id",
            counts=counts,
            lease_s=LEASE_S,
        )
        done = threading.Thread(target=self._do, args=(meanwhile, after)) if meanwhile else None
        if done:
            done.start()
        embedded = embedded.materialize()
        if done:
            done.join()
        return embedded, counts.report()

    def _do(self, meanwhile: Callable[[], None], after: int) -> None:
        while len(encoded(self.log)) < after:
            time.sleep(0.02)
        meanwhile()

    def stored(self) -> set[str]:
        """The hashes of the texts that are stored."""
        with EmbeddingCache(self.url) as cache:
            return {document.content_hash for document in cache.documents()}

    def assert_whole(self, embedded: Any) -> None:
        """Each row has the vector of its text, and so has the store, which is sound."""
        fake = CountingEncoder()
        expected = {row["id"]: fake.vector(row["text"]).tobytes() for row in ROWS}
        given = {row["id"]: np.asarray(row["vector"]).tobytes() for row in embedded.iter_rows()}
        assert given == expected
        with EmbeddingCache(self.url) as cache:
            ids, vectors = cache.matrix("fake")
            assert cache.verify() == []
        assert {doc_id: vector.tobytes() for doc_id, vector in zip(ids, vectors, strict=True)} == expected


@pytest.fixture
def durable_postgres() -> Iterator[Server]:
    """A server that keeps what it has acknowledged, also where it crashes."""
    try:
        with own_server(durable=True) as server:
            yield server
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the encoders of all workers write what they encode."""
    (tmp_path / "encoded").mkdir()
    return tmp_path / "encoded"


def files_with(text: str) -> list[Path]:
    """Files of Ray, its logs among them, that hold a text."""
    node = ray._private.worker.global_worker.node
    files = (file for file in Path(node.get_session_dir_path()).rglob("*") if file.is_file())
    return [file for file in files if text.encode() in file.read_bytes()]


def test_each_text_is_encoded_once_and_by_a_second_job_not_at_all(
    nodes: list[Any], postgres_url: str, log: Path, tmp_path: Path
) -> None:
    job = Job(postgres_url, log)
    embedded, report = job.run()
    job.assert_whole(embedded)
    assert (report.n_texts, report.n_encoded, report.n_hits) == (N_DOCUMENTS, N_TEXTS, N_DUPLICATES)
    assert set(times_encoded(log).values()) == {1}
    assert len(list(log.iterdir())) == 2  # both workers had a share

    embedded, report = job.run()
    job.assert_whole(embedded)
    assert (report.n_texts, report.n_encoded) == (N_DOCUMENTS, 0)
    assert len(encoded(log)) == N_TEXTS

    assert files_with(urlsplit(postgres_url).password or "") == []

    dataset, path = ray.data.from_items(ROWS[:10]), tmp_path / "embeddings.db"
    with pytest.raises(UnsafeStoreError, match="this cluster has 3 nodes"):
        embed_dataset(dataset, path, MakeEncoder(log))
    by_hand = dataset.map_batches(
        CachedEmbedder,
        fn_constructor_kwargs={"store": path, "make_encoder": MakeEncoder(log)},
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    by_hand.context.raise_original_map_exception = True
    with pytest.raises(UnsafeStoreError, match="this cluster has 3 nodes"):
        by_hand.materialize()
    assert not path.exists()


def test_a_node_that_is_lost_loses_nothing_and_what_was_stored_is_not_encoded_again(
    nodes: list[Any], postgres_url: str, log: Path, record_property: Callable[[str, object], None]
) -> None:
    job = Job(postgres_url, log)
    seen: dict[str, Any] = {}
    cluster, lost, _ = nodes

    def lose_a_node() -> None:
        assert len(list(log.iterdir())) == 2  # the one that is lost is at work
        seen["stored"] = job.stored()
        cluster.remove_node(lost, allow_graceful=False)
        seen["lost at"] = time.time()

    embedded, _ = job.run(lose_a_node)
    job.assert_whole(embedded)
    times = times_encoded(log)
    assert len(times) == N_TEXTS
    again = [key for began, key in encoded(log) if began > seen["lost at"] and key in seen["stored"]]
    assert again == []
    twice = sum(times.values()) - N_TEXTS
    record_property("stored when the node was lost", len(seen["stored"]))
    record_property("encoded again, which were not stored", twice)
    assert twice <= MOST_UNSTORED
    assert max(times.values()) <= 2

    assert job.run()[1].n_encoded == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_restarted_costs_no_encode(
    nodes: list[Any], mode: str, durable_postgres: Server, log: Path
) -> None:
    job = Job(durable_postgres.url, log)
    embedded, _ = job.run(lambda: durable_postgres.restart(mode))
    job.assert_whole(embedded)
    assert len(times_encoded(log)) == N_TEXTS
    assert set(times_encoded(log).values()) == {1}
