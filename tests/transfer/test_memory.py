"""A source or a target may be larger than memory: of its vectors, and of its texts, a batch is held at once."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, transfer
from embstore.transfer import exporting, importing, parquet, safetensors_file
from tests.transfer.test_exports import FORMATS, needs

N, DIM = 1_000, 1_024
IDS = [f"doc {i}" for i in range(N)]
TEXTS = [f"{i} " + "words " * 500 for i in range(N)]
VECTORS_BYTES, TEXTS_BYTES = 4 * N * DIM, sum(map(len, TEXTS))


def peak_bytes(work: Callable[[], object]) -> int:
    """How much more than before is held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (exporting, importing, parquet, safetensors_file):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 20)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)


@pytest.fixture
def filled(cache: EmbeddingCache, vectors: np.ndarray) -> EmbeddingCache:
    cache.put_many(IDS, TEXTS, vectors, model_name="m")
    return cache


@pytest.mark.parametrize("kind", [*FORMATS, "projector"])
def test_an_export_and_its_import_hold_a_fraction_of_the_vectors(
    filled: EmbeddingCache, tmp_path: Path, kind: str
) -> None:
    needs(kind)
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet")  # its modules are no part of what is counted
    export: Any = getattr(transfer, f"export_{kind}")
    assert peak_bytes(lambda: export(filled, tmp_path / "out", "m")) < VECTORS_BYTES / 2
    if kind in FORMATS:
        with EmbeddingCache(tmp_path / "back.db") as back:
            assert peak_bytes(lambda: FORMATS[kind][1](back, tmp_path / "out")) < VECTORS_BYTES / 2


def test_a_matrix_with_its_texts_is_read_row_by_row(cache: EmbeddingCache, tmp_path: Path, vectors: np.ndarray) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    rows = (json.dumps({"id": doc_id, "text": text}) for doc_id, text in zip(IDS, TEXTS, strict=True))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    files = tmp_path / "vectors.npy", tmp_path / "rows.jsonl"
    assert peak_bytes(lambda: transfer.import_matrix(cache, *files, model_name="m")) < TEXTS_BYTES / 2
    assert cache.matrix("m", doc_ids=IDS)[1].tobytes() == vectors.tobytes()


READ = """
import sys
from pathlib import Path
import pyarrow
from embstore.transfer import parquet

path, columns = Path(sys.argv[1]), {"id": "id", "text": "text", "vector": "vector"}
assert sum(1 for _ in parquet._rows(path, parquet._open(path), columns, None)) == 8_000
print(pyarrow.default_memory_pool().max_memory())
"""


def test_a_table_of_one_group_is_read_piece_by_piece(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    vectors = np.random.default_rng(0).standard_normal((8_000, DIM)).astype(np.float32)
    ids = list(map(str, range(len(vectors))))
    arrays = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), DIM)
    table = pyarrow.table({"id": ids, "text": ids, "vector": arrays})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=len(ids))
    # By another process: what this one has held counts too.
    done = subprocess.run([sys.executable, "-c", READ, tmp_path / "t.parquet"], stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < vectors.nbytes  # as a whole it would be held one and a half times
