"""What `embstore index` reads: folders, patterns, CSV, Parquet, JSONL by columns, and a query."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from embstore import EmbeddingCache
from tests.cli.conftest import Run
from tests.fakes import CountingEncoder

Indexed = dict[str, tuple[str, dict[str, Any]]]

ROWS: Indexed = {
    "1": ('one, "quoted"\nline', {"year": "2026", "tag": "x"}),
    "2": ("two", {"year": "1999"}),
}


def write(name: str, text: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def indexed(run: Run, *arguments: str) -> Indexed:
    """Index with an exact index, and give text and metadata by id."""
    run("index", "library", *arguments, "--model", "fake", "--index", "exact")
    with EmbeddingCache(Path("library", "embeddings.db")) as cache:
        ids = [document.doc_id for document in cache.documents()]
        kept = cache.store.texts.find("documents", ids)
    return {text.doc_id: (text.text, json.loads(text.metadata)) for text in kept.values() if text is not None}


def error_of(run: Run, *arguments: str) -> str:
    """The error of an index that is to leave nothing."""
    result = run("index", "library", *arguments, "--model", "fake", "--index", "exact", exit_code=2)
    assert not Path("library").exists()
    return result.stderr


def make_csv(name: str = "rows.csv", delimiter: str = ",") -> str:
    lines = ["id,text,year,tag", '1,"one, ""quoted""\nline",2026,x', "2,two,1999,"]
    return write(name, "\n".join(lines).replace(",", delimiter).replace(f"one{delimiter}", "one,") + "\n")


def make_database(name: str = "notes.db") -> str:
    with contextlib.closing(sqlite3.connect(name)) as connection:
        connection.execute("CREATE TABLE notes (nr INTEGER PRIMARY KEY, body TEXT, year INTEGER, score REAL, tag TEXT)")
        rows = [(1, "one", 2026, 0.5, None), (2, "two", 1999, 1.0, "x")]
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
    return name


# --- folders and patterns ---------------------------------------------------------------------


def test_a_folder_stands_for_all_texts_in_it_and_below(run: Run, fake: CountingEncoder) -> None:
    write("notes/b.md", "bee")
    write("notes/deep/a.txt", "ay")
    write("notes/rows.jsonl", '{"id": "row", "text": "a row"}')
    write("notes/.hidden", "hidden")
    write("notes/.git/config", "hidden")
    write("notes/picture.png", b"\x89PNG\0\0")
    assert indexed(run, "notes") == {
        "notes/b.md": ("bee", {"source": "notes/b.md"}),
        "notes/deep/a.txt": ("ay", {"source": "notes/deep/a.txt"}),
        "row": ("a row", {}),
    }
    told = run("index", "library", "notes").stderr
    assert told == f"embstore: 1 file left out, no text: {Path('notes', 'picture.png')}\n"


def test_a_folder_that_cannot_be_read_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Any, scan: Any = os.scandir) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    write("notes/closed/a.txt", "ay")
    write("notes/b.txt", "bee")
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        assert f"{Path('notes', 'closed')}: Permission denied" in error_of(run, "notes")


def test_a_library_in_the_folder_that_is_indexed_is_left_out(run: Run, fake: CountingEncoder) -> None:
    write("a.txt", "ay")
    assert set(indexed(run, ".")) == {"a.txt"}
    report = json.loads(run("index", "library", ".", "--json").stdout)
    assert (report["total"], report["unchanged"]) == (1, 1)


def test_a_pattern_is_matched_where_no_shell_did(run: Run) -> None:
    for name in ("notes/b.md", "notes/deep/a.md", "notes/c.txt"):
        write(name, name)
    assert set(indexed(run, "notes/**/*.md")) == {"notes/b.md", "notes/deep/a.md"}


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file(run: Run) -> None:
    write("[a].txt", "brackets")
    write("a.txt", "no brackets")
    assert set(indexed(run, "[a].txt")) == {"[a].txt"}


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("empty", "no file is found by 'empty'"),
        ("*.md", "no file is found by '*.md'"),
        ("missing.txt", "'missing.txt' does not exist"),
        pytest.param(
            "pipe",
            "'pipe' is no file and no folder",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with named pipes"),
        ),
    ],
)
def test_what_names_no_file_is_wrong_input(run: Run, here: Path, named: str, said: str) -> None:
    (here / "empty").mkdir()
    if named == "pipe":
        os.mkfifo("pipe")
    assert said in error_of(run, named)


# --- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "delimiter"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_each_row_of_a_csv_file_is_a_document(run: Run, name: str, delimiter: str) -> None:
    assert indexed(run, make_csv(name, delimiter)) == ROWS


def test_columns_are_named_and_metadata_chosen(run: Run) -> None:
    write("rows.csv", "nr,body,year,secret\n7,seven,2026,no\n")
    arguments = ("--id-column", "nr", "--text-column", "body", "--metadata-column", "year")
    assert indexed(run, "rows.csv", *arguments) == {"7": ("seven", {"year": "2026"})}


def test_a_cell_may_be_longer_than_pythons_reader_takes(run: Run) -> None:
    write("rows.csv", f"id,text\na,{'word ' * 40_000}\n")
    assert len(indexed(run, "rows.csv")["a"][0]) == 200_000


def test_jsonl_is_read_by_columns_where_some_are_named(run: Run) -> None:
    write("rows.jsonl", '{"nr": 7, "body": "seven", "year": 2026, "none": null}\n')
    found = indexed(run, "rows.jsonl", "--id-column", "nr", "--text-column", "body")
    assert found == {"7": ("seven", {"year": 2026})}


def test_each_row_of_a_parquet_file_is_a_document(run: Run) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    columns = {
        "nr": [1, 2],
        "text": ["one", "two"],
        "year": [2026, None],
        "score": [0.5, 1.0],
        "tags": [["x", "y"], ["z"]],
        "on": [datetime.date(2026, 11, 29), None],
    }
    parquet.write_table(pyarrow.table(columns), "rows.parquet")
    expected = {
        "1": ("one", {"year": 2026, "score": 0.5, "tags": ["x", "y"], "on": "2026-11-29"}),
        "2": ("two", {"score": 1.0, "tags": ["z"]}),
    }
    assert indexed(run, "rows.parquet", "--id-column", "nr") == expected
    chosen = indexed(run, "rows.parquet", "--id-column", "nr", "--metadata-column", "score")
    assert chosen == {"1": ("one", {"score": 0.5}), "2": ("two", {"score": 1.0})}


def test_each_row_of_a_query_is_a_document_and_the_file_stays_as_it_is(run: Run) -> None:
    database = make_database()
    before = Path(database).read_bytes()
    query = "SELECT nr AS id, body AS text, year, score, tag FROM notes"
    assert indexed(run, database, "--sql", query) == {
        "1": ("one", {"year": 2026, "score": 0.5}),
        "2": ("two", {"year": 1999, "score": 1.0, "tag": "x"}),
    }
    assert Path(database).read_bytes() == before
    assert json.loads(run("plan", "library", database, "--sql", query, "--json").stdout)["unchanged"] == 2
    assert run("reconcile", "library", database, "--sql", query).stdout == "no problems in 2 records\n"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT body AS text FROM notes", "no column 'id' among 'text'"),
        ("SELECT nr AS id, body AS text, year, score AS year FROM notes", "two columns of one name"),
        ("SELECT nr AS id, body AS text, year, score, tag FROM note", "no such table: note"),
        ("DELETE FROM notes", "attempt to write a readonly database"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT 1 AS id, x'00' AS text", "notes.db: row 1: document '1' is bytes, not str"),
        ("SELECT 1.5 AS id, 'text' AS text", "doc_id is float, not str"),
        ("", "is no query that gives rows"),
        ("ATTACH 'made.db' AS made", "too many attached databases"),
        ("VACUUM INTO 'made.db'", "too many attached databases"),
    ],
)
def test_a_query_that_gives_no_documents_is_refused_and_makes_no_file(run: Run, query: str, said: str) -> None:
    database = make_database()
    before = Path(database).read_bytes()
    assert said in error_of(run, database, "--sql", query)
    assert (Path(database).read_bytes(), list(Path().iterdir())) == (before, [Path(database)])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.csv", "a,b\n1,2\n", "rows.csv: no column 'id' among 'a', 'b'; say which by --id-column"),
        ("rows.csv", "id,text,id\n1,2,3\n", "more than one column 'id'"),
        ("rows.csv", "id,text\n1,one\n2\n", "rows.csv: row 2 has 1 cells, the first line 2"),
        ("rows.csv", 'id,text\n1,"open\n', "rows.csv: line 2: unexpected end of data"),
        ("rows.csv", "id,text\n1,one\n1,two\n", "rows.csv: row 2: id '1' is taken by rows.csv: row 1"),
        ("rows.csv", "id,text\n,one\n", "rows.csv: row 1: doc_id is empty"),
        ("rows.csv", b"id,text\n1,\xff\n", "rows.csv: not UTF-8 text (invalid start byte at byte 10)"),
        ("rows.jsonl", b'{"id": "a", "text": "' + b"x" * 9_979 + b'\xff"}\n', "(invalid start byte at byte 10000)"),
        ("rows.parquet", "no parquet", "rows.parquet: not a Parquet file"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_indexed(run: Run, name: str, text: str | bytes, said: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    write(name, text)
    assert said in error_of(run, name)


def test_a_text_file_is_no_database_to_query(run: Run) -> None:
    write("notes.db", "text " * 200)
    assert "SQLite cannot answer --sql: file is not a database" in error_of(run, "notes.db", "--sql", "SELECT 1")


def test_an_empty_csv_file_has_no_documents(run: Run) -> None:
    write("rows.csv", "")
    assert indexed(run, "rows.csv") == {}
