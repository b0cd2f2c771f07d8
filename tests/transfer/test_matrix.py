"""Matrices and tables come along with what their rows are; what is broken is named by file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, SourceError, content_hash
from embstore.transfer import (
    Skipped,
    export_npy,
    export_safetensors,
    import_matrix,
    import_parquet,
    import_safetensors,
    importing,
)
from tests.fakes import CountingEncoder
from tests.files import dump

IDS, TEXTS = ["a", "b", "c"], ["one", "two", "one"]


@pytest.fixture
def vectors(encoder: CountingEncoder) -> np.ndarray:
    return encoder.vectors(TEXTS)


def check_stored(cache: EmbeddingCache, vectors: np.ndarray) -> None:
    doc_ids, stored = cache.matrix("fake", doc_ids=IDS)
    assert (doc_ids, stored.tobytes()) == (IDS, vectors.tobytes())
    assert [d.content_hash for d in cache.documents()] == [content_hash(text).hex() for text in TEXTS]


def test_a_matrix_of_numpy_with_ids_and_texts(cache: EmbeddingCache, vectors: np.ndarray) -> None:
    report = import_matrix(cache, vectors.astype(np.float64), IDS, TEXTS, model_name="fake")
    assert (report.n_stored, report.n_documents, report.ok) == (2, 3, True)
    check_stored(cache, vectors)


@pytest.mark.parametrize(
    "kind", [np.ndarray.tolist, np.asmatrix, np.ndarray.__array__], ids=["list", "matrix", "array"]
)
def test_a_matrix_may_be_whatever_holds_numbers(cache: EmbeddingCache, vectors: np.ndarray, kind: Any) -> None:
    import_matrix(cache, kind(vectors), IDS, TEXTS, model_name="fake")
    check_stored(cache, vectors)


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("ids.txt", "a\nb\r\nc\n", dict(zip(IDS, TEXTS, strict=True))),
        ("ids.json", json.dumps(IDS), TEXTS),
        ("rows.jsonl", "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in zip(IDS, TEXTS, strict=True)), None),
        (
            "rows.jsonl",
            "".join(
                json.dumps({"id": i, "content_hash": content_hash(t).hex()}) + "\n"
                for i, t in zip(IDS, TEXTS, strict=True)
            ),
            None,
        ),
    ],
    ids=["lines", "list", "texts", "hashes"],
)
def test_files_of_a_matrix_and_its_ids(
    cache: EmbeddingCache, vectors: np.ndarray, tmp_path: Path, name: str, content: str, texts: Any
) -> None:
    np.save(tmp_path / "vectors.npy", np.asfortranarray(vectors.astype(">f4")))
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    import_matrix(cache, tmp_path / "vectors.npy", tmp_path / name, texts, model_name="fake")
    check_stored(cache, vectors)


def test_a_row_of_no_known_text_is_skipped(cache: EmbeddingCache, vectors: np.ndarray) -> None:
    report = import_matrix(cache, vectors, IDS, {"a": "one"}, model_name="fake")
    why = "it has neither a text nor a content_hash"
    assert report.skipped == (Skipped("the matrix: row 1", why), Skipped("the matrix: row 2", why))
    assert report.n_skipped == {why: 2}


def nan(vectors: np.ndarray) -> np.ndarray:
    return np.where(np.arange(3)[:, np.newaxis] == 2, np.nan, vectors)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: {"vectors": nan(v)}, "row 2: its vector is NaN"),
        (lambda v: {"vectors": v.astype(np.int8)}, "row 0: its vector is int8: quantised"),
        (lambda v: {"vectors": v[0]}, "shape"),
        (lambda v: {"vectors": None}, "shape"),
        (lambda v: {"vectors": [v[0], v[1][:4], v[2]]}, "no numbers"),
        (lambda v: {"vectors": v.astype(object)}, "row 0: its vector is ndarray of dtype object"),
        (lambda v: {"vectors": v[:2]}, "2 rows, and there are 3 ids"),
        (lambda v: {"texts": TEXTS[:2]}, "3 rows, and there are 2 texts"),
        (lambda v: {"ids": ["a", "", "c"]}, "row 1: .*empty"),
        (lambda v: {"ids": ["a", 1, "c"]}, "row 1: its id is no text"),
        (lambda v: {"ids": None}, "no ids"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused_and_nothing_is_stored(
    cache: EmbeddingCache, cache_path: Path, vectors: np.ndarray, change: Any, told: str
) -> None:
    arguments = {"vectors": vectors, "ids": IDS, "texts": TEXTS, **change(vectors)}
    before = dump(cache_path)
    with pytest.raises(SourceError, match=told):
        import_matrix(cache, **arguments, model_name="fake")
    assert dump(cache_path) == before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"text": "one"}', "its id is no text"),
        ('{"id": "b", "content_hash": "00"}', "no SHA-256"),
        ('{"id": "b", "text": 1}', "not str"),
        ('{"id": "b", "text": "one", "content_hash": "' + "0" * 64 + '"}', "not that of its text"),
        ('{"id": "b", "text": "one", "collection": 1}', "collection"),
    ],
)
def test_a_broken_line_is_named_and_what_came_before_is_told(
    cache: EmbeddingCache, vectors: np.ndarray, tmp_path: Path, line: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ROWS_AT_ONCE", 1)
    np.save(tmp_path / "vectors.npy", vectors[:2])
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "one"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=told) as caught:
        import_matrix(cache, tmp_path / "vectors.npy", rows, model_name="fake")
    assert str(caught.value).startswith(f"{rows}:2: ")
    assert len(cache) == (0 if told in ("no JSON", "no object") else 1)


def test_a_folder_that_is_no_export_is_refused(cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    export_npy(cache, tmp_path / "out", "fake")
    (tmp_path / "out" / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SourceError, match="whose vectors"):
        import_matrix(cache, tmp_path / "out")
    (tmp_path / "out" / "vectors.npy").unlink()
    with pytest.raises(SourceError, match=r"vectors\.npy"):
        import_matrix(cache, tmp_path / "out", model_name="fake")


# --- Parquet and safetensors -----------------------------------------------------------------


def write_parquet(path: Path, **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_table_of_another_program(cache: EmbeddingCache, vectors: np.ndarray, tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet", key=IDS, body=TEXTS, embedding=[row.tolist() for row in vectors], other=[1, 2, 3]
    )
    report = import_parquet(cache, path, id_column="key", text_column="body", model_name="fake")
    assert (report.n_stored, report.n_documents, report.ok) == (2, 3, True)
    check_stored(cache, vectors)


def test_rows_without_ids_texts_or_vectors(cache: EmbeddingCache, cache_path: Path, tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet",
        id=[None, 2, 3],
        text=["one", None, "three"],
        collection=["x", "x", None],
        vector=[[0.5], [0.5], None],
    )
    report = import_parquet(cache, path, model_name="m")
    assert report.skipped == (
        Skipped(f"{path}: row 1", "it has neither a text nor a content_hash"),
        Skipped(f"{path}: row 2", "it has no vector"),
    )
    (vector,) = dump(cache_path)["vectors"]
    assert (len(cache), vector[4], vector[6]) == (0, 1, np.float32(0.5).tobytes())  # standalone


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"vector": [[0.5], [0.5, 0.5]]}, "row 1: its vector has 2 values"),
        ({"vector": [[0.5], [None]]}, "row 1: its vector is NaN"),
        ({"vector": [[1], [2]]}, "row 0: .*quantised"),
        ({"vector": [0.5, 0.5]}, "row 0: its vector is no list"),
        ({"vector": [["a"], ["b"]]}, "row 0: its vector is"),
        ({"vector": [[0.5], [0.5]], "id": [0.5, 1.5]}, "row 0: its id"),
        ({"vector": [[0.5], [0.5]], "text": [b"a", b"b"]}, "row 0: text is bytes"),
        ({"values": [[0.5], [0.5]]}, "vector_column="),
        ({"vector": [[0.5], [0.5]], "embedding": [[0.5], [0.5]]}, "vector_column="),
        ({"vector": [{"values": 0.5}, {"values": 0.5}]}, "row 0: its vector is no list"),
    ],
)
def test_a_table_that_cannot_be_is_refused_and_nothing_is_stored(
    cache: EmbeddingCache, cache_path: Path, tmp_path: Path, columns: Any, told: str
) -> None:
    path = write_parquet(tmp_path / "t.parquet", **{"id": ["a", "b"], "text": ["one", "two"], **columns})
    before = dump(cache_path)
    with pytest.raises(SourceError, match=told) as caught:
        import_parquet(cache, path, model_name="m")
    assert str(path) in str(caught.value)
    assert dump(cache_path) == before


@pytest.mark.parametrize("column", ["id_column", "text_column", "vector_column"])
def test_a_column_that_is_named_has_to_be_there(cache: EmbeddingCache, tmp_path: Path, column: str) -> None:
    path = write_parquet(tmp_path / "t.parquet", id=["a"], text=["one"], vector=[[0.5]])
    with pytest.raises(SourceError, match=rf"has the columns id, text, vector; .*{column}="):
        import_parquet(cache, path, model_name="m", **{column: "another"})
    assert len(cache) == 0


def test_a_column_that_is_there_twice_is_refused(cache: EmbeddingCache, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    columns = [pyarrow.array(values) for values in (["a"], ["b"], ["one"], [[0.5]])]
    table = pyarrow.Table.from_arrays(columns, names=["id", "id", "text", "vector"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="rename one 'id', which is there twice"):
        import_parquet(cache, tmp_path / "t.parquet", model_name="m")


@pytest.mark.parametrize("cut", [0, 10, -10])
def test_a_cut_off_file_is_refused(cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder, cut: int) -> None:
    cache.get("a", "one", encoder)
    path = write_parquet(tmp_path / "t.parquet", id=["a"], text=["one"], vector=[[0.5]])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"t\.parquet"):
        import_parquet(cache, path, model_name="m")
    pytest.importorskip("safetensors", reason="needs the extra safetensors")
    export_safetensors(cache, tmp_path / "t.safetensors", "fake")
    (tmp_path / "t.safetensors").write_bytes((tmp_path / "t.safetensors").read_bytes()[:cut])
    for name in ("t.safetensors", "nowhere.safetensors"):
        with pytest.raises(SourceError, match=name):
            import_safetensors(cache, tmp_path / name)


def test_tensors_that_do_not_fit_together_are_refused(cache: EmbeddingCache, tmp_path: Path) -> None:
    numpy_format = pytest.importorskip("safetensors.numpy", reason="needs the extra safetensors")
    tensors = {
        "vectors": np.ones((2, 3), np.float32),
        "content_hashes": np.zeros((1, 32), np.uint8),
        "rows": np.frombuffer(b'[["", "a"]]', np.uint8),
    }
    numpy_format.save_file(tensors, tmp_path / "t.safetensors")
    with pytest.raises(SourceError, match="do not fit together"):
        import_safetensors(cache, tmp_path / "t.safetensors", model_name="m")
    with pytest.raises(SourceError, match="whose vectors"):
        import_safetensors(cache, tmp_path / "t.safetensors")
