"""`embstore embed`: Parquet files in, and out again with vectors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from embstore import EmbeddingCache
from embstore.cli import embedding_jobs
from tests.cli.conftest import Run
from tests.fakes import CountingEncoder

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")

ROWS = {"id": ["a", "b", "c", "d"], "text": ["one", "two", "one", "three"], "year": [1999, 2000, 2001, 2002]}


def write(file: str, rows: dict[str, list[Any]]) -> str:
    parquet.write_table(pyarrow.table(rows), file)
    return file


@pytest.fixture
def rows() -> str:
    return write("rows.parquet", ROWS)


def embed(run: Run, *arguments: str, **options: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        run("embed", "--store", "cache.db", "--model", "fake", *arguments, "--json", **options).stdout
    )
    return told


def test_rows_come_out_with_the_vectors_of_their_texts(run: Run, rows: str, fake: CountingEncoder) -> None:
    told = embed(run, rows, "-o", "out.parquet", "--id-column", "id")
    assert told == {
        "n_texts": 4,
        "n_encoded": 3,
        "n_hits": 1,
        "encode_s": told["encode_s"],
        "seconds": told["seconds"],
        "output": "out.parquet",
    }
    assert sorted(fake.texts) == ["one", "three", "two"]
    written = parquet.read_table("out.parquet")
    assert written.to_pydict() == {**ROWS, "vector": fake.vectors(ROWS["text"]).tolist()}
    assert written.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 8)
    with EmbeddingCache("cache.db") as cache:
        assert [document.doc_id for document in cache.documents()] == ["a", "b", "c", "d"]
        assert cache.verify() == []


def test_a_second_run_encodes_nothing_and_writes_the_same(run: Run, rows: str, fake: CountingEncoder) -> None:
    embed(run, rows, "-o", "first.parquet")
    told = embed(run, rows, "-o", "second.parquet")
    assert (told["n_encoded"], told["n_hits"], fake.n_texts) == (0, 4, 3)
    assert parquet.read_table("first.parquet").equals(parquet.read_table("second.parquet"))


def test_what_it_did_is_said_in_a_line(run: Run, rows: str) -> None:
    told = run("embed", "--store", "library", "--model", "fake", rows, "-o", "out.parquet").stdout
    assert told.startswith("4 texts in ")
    assert told.endswith(" s: 3 encoded, 1 from the cache; written to out.parquet\n")
    assert Path("library/embeddings.db").exists()


def test_without_an_output_the_store_alone_is_filled(run: Run, rows: str, fake: CountingEncoder, here: Path) -> None:
    told = embed(run, rows)
    assert (told["n_texts"], told["n_encoded"], told["output"]) == (4, 3, None)
    assert sorted(file.name for file in here.iterdir()) == ["cache.db", "rows.parquet"]
    with EmbeddingCache("cache.db") as cache:
        assert (len(cache), cache.missing(ROWS["text"], fake)) == (0, [])


def test_many_files_are_read_in_batches_in_their_order(
    run: Run, fake: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_jobs, "BATCH_ROWS", 3)
    Path("rows").mkdir()
    texts = [f"text {i}" for i in range(20)]
    write("rows/a.parquet", {"text": texts[:11]})
    write("rows/b.parquet", {"text": texts[11:]})
    assert embed(run, "rows", "-o", "out.parquet")["n_texts"] == 20
    assert parquet.read_table("out.parquet").column("text").to_pylist() == texts
    assert max(map(len, fake.calls)) == 3


def test_a_file_without_rows_comes_out_with_a_column_of_vectors(run: Run) -> None:
    empty = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    parquet.write_table(empty, "rows.parquet")
    assert embed(run, "rows.parquet", "-o", "out.parquet")["n_texts"] == 0
    assert parquet.read_schema("out.parquet").field("vector").type == pyarrow.list_(pyarrow.float32(), 8)


def test_columns_can_have_other_names(run: Run, fake: CountingEncoder) -> None:
    write("rows.parquet", {"nr": [7, 8], "body": ["one", "two"], "vector": [1, 2]})
    names = ["--text-column", "body", "--id-column", "nr", "--vector-column", "embedding"]
    embed(run, "rows.parquet", "-o", "out.parquet", "--collection", "law", "--model-name", "mine", *names)
    assert parquet.read_table("out.parquet").column("embedding").to_pylist() == fake.vectors(["one", "two"]).tolist()
    with EmbeddingCache("cache.db") as cache:
        found = [(document.collection, document.doc_id, document.model_name) for document in cache.documents()]
    assert found == [("law", "7", "mine"), ("law", "8", "mine")]


def test_an_output_is_replaced_only_where_that_is_said(run: Run, rows: str) -> None:
    embed(run, rows, "-o", "out.parquet")
    run("embed", "--store", "cache.db", "--model", "fake", rows, "-o", "out.parquet", exit_code=3)
    assert embed(run, rows, "-o", "out.parquet", "--overwrite")["n_encoded"] == 0


REFUSED: dict[str, tuple[list[str], str]] = {
    "no file": (["missing.parquet"], "'missing.parquet' does not exist"),
    "no Parquet": (["notes.txt"], "notes.txt: not a Parquet file that can be read"),
    "no text column": (
        ["rows.parquet", "--text-column", "body"],
        "no column 'body' among 'id', 'text', 'year'; say wh",
    ),
    "no id column": (
        ["rows.parquet", "--id-column", "nr"],
        "no column 'nr' among 'id', 'text', 'year'; say which by -",
    ),
    "a vector column": (
        ["rows.parquet", "--vector-column", "year"],
        "there is a column 'year' already; say another by",
    ),
    "other columns": (["rows.parquet", "others.parquet"], "others.parquet: its columns are not those of rows.parquet"),
    "the input": (["rows.parquet", "-o", "rows.parquet", "--overwrite"], "'rows.parquet' is one of FILES"),
    "workers": (["rows.parquet", "--workers", "2"], "--ray-address and --workers are of a cluster; give --ray too"),
    "an address": (["rows.parquet", "--ray-address", "auto"], "give --ray too"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_before_anything_is_encoded(
    case: str, run: Run, rows: str, fake: CountingEncoder
) -> None:
    Path("notes.txt").write_text("no table", encoding="utf-8")
    write("others.parquet", {"text": ["one"]})
    arguments, message = REFUSED[case]
    result = run("embed", "--store", "cache.db", "--model", "fake", *arguments, exit_code=2)
    assert message in result.stderr
    assert (result.stdout, fake.n_texts) == ("", 0)


def test_a_null_is_named_and_what_came_before_is_stored(
    run: Run, fake: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_jobs, "BATCH_ROWS", 2)
    write("rows.parquet", {"text": ["one", "two", "three", None]})
    result = run("embed", "--store", "cache.db", "--model", "fake", "rows.parquet", "-o", "o.parquet", exit_code=2)
    assert "rows.parquet: from row 3 on: column 'text' is null in row 1 of a batch" in result.stderr
    assert not Path("o.parquet").exists()
    assert sorted(fake.texts) == ["one", "two"]


def test_without_ray_it_is_said_what_to_install(run: Run, rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray" or "integrations" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("embed", "--store", "cache.db", "--model", "fake", rows, "--ray", exit_code=3)
    assert 'pip install "embstore[ray]"' in result.stderr
    assert not Path("cache.db").exists()
