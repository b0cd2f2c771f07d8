"""The files of Chroma's vector indexes, whole and damaged."""

from __future__ import annotations

import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embstore.search.collection import open_client
from embstore.search.hnsw_files import find_fault
from tests.damage import create_collection, lose, segments, tear
from tests.fakes import CountingEncoder

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")

FILES = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vector index of 300 records, some of which were deleted."""
    library = tmp_path_factory.mktemp("library")
    create_collection(library, "fake")
    with open_client(library) as client:
        collection = client.get_collection("documents", embedding_function=None)
        for start in range(0, 300, 20):
            ids = [f"d{i}" for i in range(start, start + 20)]
            collection.add(ids=ids, embeddings=CountingEncoder().vectors(ids), documents=ids)
        collection.delete(ids=[f"d{i}" for i in range(0, 100, 3)])
    return segments(library)[0]


@pytest.fixture
def segment(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "segment"))


@pytest.mark.parametrize("sync_threshold", [4, 50, 1000])
def test_what_chroma_writes_has_no_fault(tmp_path: Path, sync_threshold: int) -> None:
    """Additions, deletions and upserts, over several sessions, written to files sooner and later."""
    create_collection(tmp_path, "fake", sync_threshold)
    rng, ids = random.Random(sync_threshold), [f"d{i}" for i in range(500)]
    for _ in range(4):
        with open_client(tmp_path) as client:
            collection = client.get_collection("documents", embedding_function=None)
            for _ in range(8):
                some = rng.sample(ids, rng.choice([1, 5, 60]))
                change = rng.choice([collection.add, collection.add, collection.upsert, collection.delete])
                if change == collection.delete:
                    collection.delete(ids=some)
                else:
                    change(ids=some, embeddings=CountingEncoder().vectors(some), documents=some)
        assert find_fault(segments(tmp_path)[0]) is None


def test_a_vector_index_that_was_never_written_has_no_fault(tmp_path: Path) -> None:
    create_collection(tmp_path, "fake", 1000)
    with open_client(tmp_path) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.add(ids=["a"], embeddings=CountingEncoder().vectors(["a"]), documents=["a"])
    (segment,) = segments(tmp_path)
    assert not (segment / "index_metadata.pickle").exists()
    assert find_fault(segment) is None
    assert find_fault(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_found(segment: Path, name: str, share: float) -> None:
    assert find_fault(segment) is None
    tear(segment / name, share)
    assert find_fault(segment)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_that_is_gone_is_found(segment: Path, name: str) -> None:
    (segment / name).unlink()
    assert find_fault(segment)


def change_list(segment: Path, change: Callable[[dict[str, Any]], object]) -> None:
    listed = pickle.loads((segment / "index_metadata.pickle").read_bytes())
    change(listed)
    (segment / "index_metadata.pickle").write_bytes(pickle.dumps(listed, protocol=2))


def test_a_list_of_ids_from_before_the_graph_is_found(segment: Path) -> None:
    change_list(segment, lambda listed: listed["label_to_id"].pop(listed["id_to_label"].pop("d298")))
    assert find_fault(segment) == "index_metadata.pickle is of another state than data_level0.bin"


def test_a_graph_from_before_the_list_of_ids_is_found(segment: Path) -> None:
    lose(segment, ["d298"], still_listed=True)
    assert find_fault(segment) == "index_metadata.pickle is of another state than data_level0.bin"


def test_a_list_of_ids_that_lost_count_of_the_labels_is_found(segment: Path) -> None:
    """Chroma writes it after a failure, and gives the labels of records that are there to new ones."""
    change_list(segment, lambda listed: listed.update(total_elements_added=250))
    assert find_fault(segment) == "index_metadata.pickle lost count"


def test_a_list_of_ids_that_would_run_something_is_not_run(segment: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    (segment / "index_metadata.pickle").write_bytes(pickle.dumps(Harm()))
    assert "index_metadata.pickle wants" in str(find_fault(segment))
    assert not (tmp_path / "harm").exists()


def test_random_bytes_in_the_graph_never_raise(segment: Path) -> None:
    rng, n_found = random.Random(0), 0
    for name in ("header.bin", "link_lists.bin", "data_level0.bin", "index_metadata.pickle"):
        whole = (segment / name).read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            (segment / name).write_bytes(damaged)
            n_found += find_fault(segment) is not None
        (segment / name).write_bytes(whole)
    assert 0 < n_found < 400  # most bits of a vector change nothing that can be told


def test_files_of_an_unknown_version_are_not_judged(segment: Path) -> None:
    header = bytearray((segment / "header.bin").read_bytes())
    struct.pack_into("<i", header, 0, 2)
    (segment / "header.bin").write_bytes(header)
    (segment / "data_level0.bin").unlink()
    assert find_fault(segment) is None
