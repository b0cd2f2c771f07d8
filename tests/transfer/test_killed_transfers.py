"""Imports and exports that are killed at any moment: a batch is stored whole or not at all, a target likewise."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, content_hash, transfer
from tests.faults.victims import Victim
from tests.transfer.test_exports import FORMATS, needs
from tests.transfer.test_llm import SCHEMA
from tests.transfer.traveller import ROWS, export_again_and_again, import_batches

N = 600
IDS, TEXTS = [f"doc {i:03}" for i in range(N)], [f"text {i}" for i in range(N)]
VECTORS = np.random.default_rng(3).standard_normal((N, 32)).astype(np.float32)

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]


def npy_folder(folder: Path) -> tuple[Any, ...]:
    folder.mkdir()
    for doc_id, vector in zip(IDS, VECTORS, strict=True):
        np.save(folder / f"{doc_id}.npy", vector)
    index = {doc_id: content_hash(text).hex() for doc_id, text in zip(IDS, TEXTS, strict=True)}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return (folder,)


def langchain(folder: Path) -> tuple[Any, ...]:
    folder.mkdir()
    for text, vector in zip(TEXTS, VECTORS, strict=True):
        (folder / content_hash(text).hex()).write_text(json.dumps(vector.tolist()), encoding="utf-8")
    return (folder,)


def llm(folder: Path) -> tuple[Any, ...]:
    path = folder.with_suffix(".db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO collections (name, model) VALUES ('', 'm')")
        rows = (
            (doc_id, vector.tobytes(), text, hashlib.md5(text.encode()).digest())
            for doc_id, text, vector in zip(IDS, TEXTS, VECTORS, strict=True)
        )
        connection.executemany("INSERT INTO embeddings VALUES (1, ?, ?, ?, NULL, ?, NULL, 0)", rows)
    return (path,)


def matrix(folder: Path) -> tuple[Any, ...]:
    return VECTORS, IDS, TEXTS


def of_an_export(kind: str) -> Callable[[Path], tuple[Any, ...]]:
    def make(folder: Path) -> tuple[Any, ...]:
        needs(kind)
        with EmbeddingCache(folder.with_suffix(".db")) as cache:
            cache.put_many(IDS, TEXTS, VECTORS, model_name="m")
            FORMATS[kind][0](cache, folder, "m")
        return (folder,)

    return make


SOURCES: dict[str, Callable[[Path], tuple[Any, ...]]] = {
    "import_npy_folder": npy_folder,
    "import_langchain": langchain,
    "import_llm": llm,
    "import_matrix": matrix,
    "import_parquet": of_an_export("parquet"),
    "import_safetensors": of_an_export("safetensors"),
}


@pytest.fixture(scope="module", params=list(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, tuple[Any, ...]]:
    return request.param, SOURCES[request.param](tmp_path_factory.mktemp("sources") / "source")


@pytest.mark.parametrize("seed", SEEDS)
def test_an_import_that_is_killed_is_finished_by_the_next(
    source: tuple[str, tuple[Any, ...]], tmp_path: Path, seed: int
) -> None:
    (kind, arguments), target, moment = source, tmp_path / "target.db", random.Random(seed)
    n_told = moment.randrange(N // ROWS)
    with Victim(import_batches, kind, target, arguments, may_end=True) as victim:
        victim.wait_for(1 + n_told)
        time.sleep(moment.uniform(0, 0.01))
        n_batches = victim.kill().count("batch")
    import_ = getattr(transfer, kind)
    with EmbeddingCache(target) as cache:
        n_there = sum(model.n_vectors for model in cache.models())
        assert (cache.verify(), n_there % ROWS) == ([], 0)
        assert n_batches * ROWS <= n_there <= (n_batches + 1) * ROWS
        report = import_(cache, *arguments, model_name="m")
        assert (report.n_stored, report.n_present, report.ok) == (N - n_there, n_there, True)
        again = import_(cache, *arguments, model_name="m")
        assert (again.n_stored, again.n_present, again.n_documents) == (0, N, 0)
        found, vectors = cache.stored_vectors([content_hash(text) for text in TEXTS], Nobody(), model_name="m")
        assert found.all()
        assert vectors.tobytes() == VECTORS.tobytes()
        assert cache.verify() == []


class Nobody:
    """Names a model that encodes nothing here."""

    def encode(self, texts: list[str]) -> np.ndarray:
        raise AssertionError(f"{len(texts)} texts are not stored")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [*FORMATS, "projector"])
def test_an_export_that_is_killed_leaves_what_was_there_or_what_is_new(kind: str, tmp_path: Path, seed: int) -> None:
    needs(kind)
    source, folder, moment = tmp_path / "source.db", tmp_path / "exports", random.Random(seed)
    folder.mkdir()
    target = folder / f"out.{kind}"
    with EmbeddingCache(source) as cache:
        cache.put_many(IDS, TEXTS, VECTORS, model_name="m")
    with Victim(export_again_and_again, f"export_{kind}", source, target) as victim:
        victim.wait_for(1 + moment.randrange(3))
        time.sleep(moment.uniform(0, 0.05))
        n_whole = len(victim.kill()) - 1
    former = list(folder.glob(".out*.former/*"))
    assert {file.suffix for file in folder.iterdir()} <= {target.suffix, ".part", ".former"}
    if n_whole:  # killed between the two steps of replacing a folder, the former one has another name for good
        assert target.exists() or len(former) == 1
    whole = target if target.exists() else former[0] if former else None
    if whole is not None:
        check_export(kind, whole, tmp_path / "back.db")
    with EmbeddingCache(source) as cache:
        assert getattr(transfer, f"export_{kind}")(cache, target, "m", overwrite=True).n_rows == N
        assert cache.verify() == []


def check_export(kind: str, target: Path, back: Path) -> None:
    if kind == "projector":
        values = np.loadtxt(target / "vectors.tsv", delimiter="\t").astype(np.float32)
        assert values.tobytes() == VECTORS.tobytes()
        return
    with EmbeddingCache(back) as cache:
        assert FORMATS[kind][1](cache, target).n_stored == N
        assert cache.matrix("m", doc_ids=IDS)[1].tobytes() == VECTORS.tobytes()
