"""The commands as a person or a script meets them: output, exit codes, and what they leave on the disk."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from embstore import CachedSemanticSearchEngine, EmbeddingCache, encoders
from embstore.cli import commands, main
from embstore.cli import library as lib
from embstore.truncation import truncated
from tests.fakes import CountingEncoder

TEXTS = {"cat.txt": "A cat sleeps.", "dog.md": "# A dog\n\nIt barks.", "fish.txt": "A fish swims."}

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, encoder: CountingEncoder) -> CountingEncoder:
    """What `--model fake` loads."""
    monkeypatch.setitem(encoders._loaded, "fake", encoder)
    return encoder


@pytest.fixture
def run(fake: CountingEncoder) -> Run:
    """Run a command in this process."""

    def run(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def files(here: Path) -> list[str]:
    """Three text files."""
    for name, text in TEXTS.items():
        (here / name).write_text(text, encoding="utf-8")
    return list(TEXTS)


@pytest.fixture
def library(run: Run, files: list[str]) -> Iterator[str]:
    """A folder with the three files indexed, which must be sound when the test is over."""
    run("index", "library", *files, "--model", "fake")
    yield "library"
    with EmbeddingCache(Path("library", "embeddings.db")) as cache:
        assert cache.verify() == []


@pytest.fixture
def database(encoder: CountingEncoder) -> str:
    """A database file with three documents and nothing beside it."""
    with EmbeddingCache("cache.db") as cache:
        cache.get_many(["a", "b", "c"], ["one", "two", "three"], encoder)
    return "cache.db"


def error_of(result: Result) -> str:
    """The error of a command: one line, and nothing on the standard output."""
    assert result.stdout == ""
    assert result.stderr.startswith("embstore: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("embstore: error: ").rstrip("\n")


def write_jsonl(name: str, *lines: Any) -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    Path(name).write_text(text, encoding="utf-8")
    return name


def cli_process(*arguments: str, **kwargs: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    program = [sys.executable, "-c", "from embstore.cli import main; main()", *arguments]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def test_indexed_files_are_found_by_search_without_naming_the_model(
    run: Run, library: str, fake: CountingEncoder
) -> None:
    (hit,) = json.loads(run("search", library, "A cat sleeps.", "-n", "1", "--json").stdout)
    assert hit == {
        "doc_id": "cat.txt",
        "document": "A cat sleeps.",
        "metadata": {"source": "cat.txt"},
        "score": pytest.approx(1.0, abs=1e-6),
    }
    assert fake.n_texts == 3  # the query is a text that was encoded as a document


def test_search_prints_place_score_id_and_first_line(run: Run, library: str) -> None:
    lines = run("search", library, TEXTS["dog.md"]).stdout.splitlines()
    assert lines[:2] == ["  1. 1.000  dog.md", "            # A dog"]
    assert len(lines) == 6


def test_index_tells_what_it_did(run: Run, library: str, files: list[str], fake: CountingEncoder) -> None:
    Path("cat.txt").write_text("A cat wakes up.", encoding="utf-8")
    report = json.loads(run("index", library, *files, "--json").stdout)
    assert report.pop("seconds") > 0
    assert report.pop("documents_per_s") > 0
    assert report == {
        "total": 3,
        "added": 0,
        "updated": 1,
        "metadata_updated": 0,
        "unchanged": 2,
        "encoded": 1,
        "from_cache": 0,
        "removed": 0,
        "n_cut": None,  # the model shows no tokenizer
    }
    told = run("index", library, *files).stdout
    assert told.startswith("3 documents in ")
    assert told.endswith("3 unchanged; 0 encoded, 0 from the cache\n")
    assert fake.n_texts == 4


def test_a_dry_run_tells_what_would_be_done(run: Run, library: str, files: list[str], fake: CountingEncoder) -> None:
    Path("cat.txt").write_text("A cat wakes up.", encoding="utf-8")
    Path("new.txt").write_text("A cat wakes up.", encoding="utf-8")
    before = run("ls", library, "--json").stdout
    arguments = ("index", library, "cat.txt", "new.txt", "dog.md", "--dry-run", "--remove-missing")
    plan = json.loads(run(*arguments, "--json").stdout)
    assert plan.pop("estimated_s") > 0
    assert plan == {
        "total": 3,
        "new": 1,
        "changed": 1,
        "metadata_only": 0,
        "unchanged": 1,
        "duplicates": 1,
        "to_remove": 1,
        "to_encode": 1,
        "n_cut": None,
    }
    assert run(*arguments).stdout == (
        "3 documents: 1 new, 1 changed, 0 with new metadata, 1 unchanged, 1 with the text of another; "
        "1 document to remove; 1 text to encode in about 0 s\n"
    )
    assert run("ls", library, "--json").stdout == before
    assert len(json.loads(run("search", library, "cat", "--json").stdout)) == 3
    assert fake.n_texts == 4  # three documents and the query


def test_a_dry_run_on_a_library_that_is_not_there_makes_none(
    run: Run, files: list[str], here: Path, fake: CountingEncoder
) -> None:
    plan = json.loads(run("index", "library", *files, "--model", "fake", "--dry-run", "--json").stdout)
    assert (plan["new"], plan["to_encode"], plan["estimated_s"]) == (3, 3, None)
    assert sorted(file.name for file in here.iterdir()) == sorted(files)
    assert (fake.calls, fake.n_canaries) == ([], 0)


def test_a_dry_run_makes_no_collection_and_asks_the_cache_of_the_library(
    run: Run, library: str, files: list[str]
) -> None:
    Path("new.txt").write_text("new", encoding="utf-8")
    arguments = (library, *files, "new.txt", "--model", "fake", "--collection", "second")
    plan = json.loads(run("index", *arguments, "--dry-run", "--json").stdout)
    assert (plan["new"], plan["to_encode"]) == (4, 1)
    assert not lib.has_collection(Path(library), "second")
    report = json.loads(run("index", *arguments, "--json").stdout)
    assert (report["added"], report["encoded"]) == (4, 1)
    assert lib.has_collection(Path(library), "second")


@pytest.mark.parametrize("command", [("search", "cat"), ("reconcile",)])
@pytest.mark.parametrize("options", [(), ("--model", "fake")])
def test_a_collection_that_is_not_there_is_wrong_input_and_is_not_made(
    run: Run, library: str, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    name, *query = command
    error = error_of(run(name, library, *query, "--collection", "nots", *options, exit_code=2))
    assert "has no documents in the collection 'nots'" in error
    assert not lib.has_collection(Path(library), "nots")


def test_files_that_are_gone_are_removed_where_that_is_asked_for(run: Run, library: str, files: list[str]) -> None:
    assert json.loads(run("index", library, *files[:2], "--json").stdout)["removed"] == 0
    told = run("index", library, *files[:2], "--remove-missing").stdout
    assert "2 unchanged, 1 removed; 0 encoded" in told
    assert len(json.loads(run("search", library, "cat", "--json").stdout)) == 2


def test_more_than_may_be_removed_is_wrong_input(run: Run, library: str, files: list[str]) -> None:
    error = error_of(run("index", library, files[0], "--remove-missing", exit_code=2))
    assert "2 of the 3 in the collection would be removed, more than max_removed=0.5 allows" in error
    assert len(json.loads(run("search", library, "cat", "--json").stdout)) == 3
    report = run("index", library, files[0], "--remove-missing", "--max-removed", "0.7", "--json").stdout
    assert json.loads(report)["removed"] == 2


def test_each_line_of_a_jsonl_file_is_a_document(run: Run) -> None:
    lines = write_jsonl(
        "notes.jsonl",
        {"id": "a", "text": "one\u2028line", "metadata": {"year": 2026, "tags": ["x", "y"]}},
        "",
        {"id": "b", "text": "two"},
        {"id": "c", "text": "three", "metadata": None},
    )
    assert json.loads(run("index", "library", lines, "--model", "fake", "--json").stdout)["added"] == 3
    (hit,) = json.loads(run("search", "library", "one\u2028line", "-n", "1", "--json").stdout)
    assert (hit["doc_id"], hit["metadata"]) == ("a", {"year": 2026, "tags": ["x", "y"]})


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_text(run: Run) -> None:
    Path("unix.txt").write_bytes("é\nline".encode())
    Path("windows.txt").write_bytes(b"\xef\xbb\xbf" + "é\r\nline".encode())
    report = json.loads(run("index", "library", "unix.txt", "windows.txt", "--model", "fake", "--json").stdout)
    assert report["encoded"] == 1


def test_collections_of_a_library_have_their_own_documents_and_models(
    run: Run, library: str, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(encoders._loaded, "other", CountingEncoder(dim=4, model_name="other"))
    run("index", library, files[0], "--model", "other", "--collection", "second")
    found = json.loads(run("search", library, "anything", "--collection", "second", "--json").stdout)
    assert [hit["doc_id"] for hit in found] == [files[0]]
    assert len(json.loads(run("search", library, "anything", "--json").stdout)) == 3


def test_a_library_made_from_python_is_searched_with_its_one_model(run: Run, fake: CountingEncoder) -> None:
    engine = CachedSemanticSearchEngine(fake, path="library")
    engine.index_documents(["A cat sleeps."], ids=["cat"])
    engine.close()
    (hit,) = json.loads(run("search", "library", "A cat sleeps.", "--json").stdout)
    assert hit["doc_id"] == "cat"


def test_a_library_with_an_exact_index_is_searched_without_chroma(run: Run, files: list[str], here: Path) -> None:
    run("index", "library", *files, "--model", "fake", "--index", "exact")
    assert sorted(path.name for path in Path("library").iterdir()) == ["embeddings.db", "embstore-cli.json"]
    (hit,) = json.loads(run("search", "library", "A cat sleeps.", "-n", "1", "--json").stdout)
    assert (hit["doc_id"], hit["score"]) == ("cat.txt", pytest.approx(1.0))
    assert json.loads(run("index", "library", *files, "--json").stdout)["unchanged"] == 3
    plan = json.loads(run("index", "library", files[0], "--remove-missing", "--dry-run", "--json").stdout)
    assert plan["to_remove"] == 2
    program = """
import sys
sys.modules["chromadb"] = sys.modules["filelock"] = None
from embstore import encoders
from embstore.cli import main
from tests.fakes import CountingEncoder
encoders._loaded["fake"] = CountingEncoder()
main()
"""
    command = [sys.executable, "-c", program, "search", "library", "A cat sleeps.", "-n", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.startswith("  1. 1.000  cat.txt"), done.stderr


def test_a_dry_run_of_a_new_exact_library_makes_nothing(run: Run, files: list[str]) -> None:
    arguments = ("index", "library", *files, "--model", "fake", "--index", "exact", "--dry-run", "--json")
    assert json.loads(run(*arguments).stdout)["new"] == 3
    assert not Path("library").exists()


def test_a_collection_keeps_its_index(run: Run, library: str, files: list[str], fake: CountingEncoder) -> None:
    error = error_of(run("index", library, *files, "--index", "exact", exit_code=2))
    assert error.startswith("the collection 'documents' in 'library' has the index 'chroma'")
    run("index", library, *files, "--index", "exact", "--collection", "second", "--model", "fake")
    assert fake.n_texts == 3
    assert "has the index 'exact'" in error_of(
        run("index", library, *files, "--index", "chroma", "--collection", "second", exit_code=2)
    )
    for collection in ("documents", "second"):
        assert len(json.loads(run("search", library, "cat", "--collection", collection, "--json").stdout)) == 3


def hit_scores(result: Result) -> dict[str, float]:
    return {hit["doc_id"]: hit["score"] for hit in json.loads(result.stdout)}


@pytest.mark.parametrize("kind", ["chroma", "exact"])
def test_a_collection_is_searched_by_as_many_values_as_it_was_indexed_with(
    kind: str, run: Run, files: list[str], fake: CountingEncoder
) -> None:
    run("index", "library", *files, "--model", "fake", "--index", kind, "--truncate-dim", "2")
    report = json.loads(run("index", "library", *files, "--json").stdout)
    assert (report["unchanged"], report["encoded"]) == (3, 0)
    assert json.loads(run("index", "library", *files, "--dry-run", "--json").stdout)["unchanged"] == 3
    assert json.loads(run("reconcile", "library", *files, "--json").stdout)["ok"]
    rows = truncated(fake.vectors(list(TEXTS.values())), 2).astype(float)
    expected = pytest.approx(dict(zip(TEXTS, (rows @ rows[0]).tolist(), strict=True)), abs=1e-5)
    for options in ((), ("--truncate-dim", "2")):
        assert hit_scores(run("search", "library", "A cat sleeps.", "--json", *options)) == expected
    assert fake.n_texts == 3


def test_other_lengths_are_other_collections_of_chroma_and_encode_nothing(
    run: Run, library: str, files: list[str], fake: CountingEncoder
) -> None:
    for command in (("index", library, *files), ("search", library, "cat"), ("reconcile", library)):
        error = error_of(run(*command, "--truncate-dim", "2", exit_code=3))
        assert "holds vectors with truncate_dim=None, and truncate_dim=2 is asked for; use truncate_dim=None" in error
    second = ("--collection", "second")
    run("index", library, *files, *second, "--model", "fake", "--truncate-dim", "2")
    assert fake.n_texts == 3
    assert "truncate_dim=2, and truncate_dim=3" in error_of(
        run("search", library, "cat", *second, "--truncate-dim", "3", exit_code=3)
    )
    for options in ((), second):
        assert len(hit_scores(run("search", library, "cat", *options, "--json"))) == 3


def test_an_exact_collection_is_searched_by_any_number_of_values(run: Run, files: list[str]) -> None:
    run("index", "library", *files, "--model", "fake", "--index", "exact")
    found = [hit_scores(run("search", "library", "cat", "--json", "--truncate-dim", n)) for n in ("1", "2", "8")]
    assert all(abs(score) == pytest.approx(1) for score in found[0].values())
    assert found[2] == pytest.approx(hit_scores(run("search", "library", "cat", "--json")), abs=1e-6)
    assert found[1] != found[2]


def test_more_values_than_there_are_is_wrong_input(run: Run, files: list[str]) -> None:
    arguments = ("index", "library", *files, "--model", "fake", "--truncate-dim")
    error = error_of(run(*arguments, "9", exit_code=2))
    assert error == "truncate_dim is 9, and vectors of model 'fake' have 8 values; give 1 to 8"
    assert "--truncate-dim" in error_of(run(*arguments, "0", exit_code=2))
    run(*arguments, "8")


def test_an_exact_library_made_from_python_is_searched_as_such(run: Run, fake: CountingEncoder) -> None:
    with CachedSemanticSearchEngine(fake, path="library", index="exact") as engine:
        engine.index_documents(["A cat sleeps."], ids=["cat"])
    (hit,) = json.loads(run("search", "library", "A cat sleeps.", "--json").stdout)
    assert hit["doc_id"] == "cat"
    assert [path.name for path in Path("library").iterdir()] == ["embeddings.db"]


def test_the_index_of_an_empty_collection_is_noted(run: Run) -> None:
    run("index", "library", write_jsonl("none.jsonl"), "--model", "fake", "--index", "exact")
    run("search", "library", "cat", "--model", "fake", exit_code=1)
    assert not Path("library", "chroma.sqlite3").exists()


def test_an_unknown_index_is_refused(run: Run, files: list[str]) -> None:
    error = error_of(run("index", "library", *files, "--index", "faiss", exit_code=2))
    assert "'faiss' is not one of 'chroma', 'exact'" in error


def test_a_new_library_is_indexed_with_the_default_model(
    run: Run, files: list[str], monkeypatch: pytest.MonkeyPatch, fake: CountingEncoder
) -> None:
    monkeypatch.setitem(encoders._loaded, "all-MiniLM-L6-v2", fake)
    run("index", "library", *files)
    assert fake.n_texts == 3


def test_a_model_folder_is_found_again_from_elsewhere(
    run: Run, files: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "folder").mkdir()
    (here / "elsewhere").mkdir()
    for name in ("folder", str(here / "folder")):
        monkeypatch.setitem(encoders._loaded, name, CountingEncoder(model_name="named-otherwise"))
    run("index", "library", *files, "--model", "folder")
    monkeypatch.chdir(here / "elsewhere")
    hits = json.loads(run("search", str(here / "library"), "A cat sleeps.", "--json").stdout)
    assert "A cat sleeps." in {hit["document"] for hit in hits}


def test_stats_counts_documents_vectors_and_models(run: Run, database: str) -> None:
    found = json.loads(run("stats", database, "--json").stdout)
    (model,) = found["models"]
    assert (found["n_documents"], found["n_doc_ids"], found["n_vectors"]) == (3, 3, 3)
    assert (model["model_name"], model["dim"], model["n_vectors"]) == ("fake", 8, 3)
    told = run("stats", database).stdout.splitlines()
    assert told[0].endswith(f"{database}: {Path(database).stat().st_size / 1e6:.2f} MB")
    assert told[1].startswith("3 documents with 3 ids; 3 vectors, 0 of no document")
    assert told[4].split()[:5] == ["fake", "8", "float32", "3", "3"]
    assert told[-2].split() == ["model_name", "hits", "encoded", "encode_s", "saved_s"]
    assert told[-1].split()[:3] == ["fake", "0", "3"]


def test_index_stores_a_new_model_in_the_format_that_is_asked_for(run: Run, files: list[str]) -> None:
    run("index", "library", *files, "--model", "fake", "--index", "exact", "--dtype", "float16")
    run("index", "library", files[0], "--model", "fake")
    (model,) = json.loads(run("stats", "library", "--json").stdout)["models"]
    assert (model["dtype"], model["settings"]) == ("float16", {"dtype": "float16"})
    assert {row["dtype"] for row in json.loads(run("ls", "library", "--json").stdout)} == {"float16"}
    assert run("ls", "library").stdout.splitlines()[1].split()[1:3] == ["8", "float16"]
    run("search", "library", "cat")


def test_backup_copies_the_database_of_a_library(run: Run, database: str, here: Path) -> None:
    said = run("backup", database, "copy.db").stdout
    assert said == f"{(here / 'copy.db').stat().st_size / 1e6:.2f} MB copied\n"
    assert run("ls", "copy.db").stdout == run("ls", database).stdout
    done = run("backup", database, "another.db", "--json")
    size_bytes = (here / "another.db").stat().st_size
    assert json.loads(done.stdout) == {"path": "another.db", "size_bytes": size_bytes, "problems": []}
    assert "copy.db' exists already" in error_of(run("backup", database, "copy.db", exit_code=3))
    assert "does not exist" in error_of(run("backup", "nothing.db", "new.db", exit_code=2))


def test_backup_says_which_damage_it_copied(run: Run, database: str) -> None:
    with sqlite3.connect(lib.database_in(Path(database))) as connection:
        connection.execute("UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = 1")
    connection.close()
    said = run("backup", database, "copy.db", exit_code=1).stdout.splitlines()
    assert said[:-1] == run("verify", database, exit_code=1).stdout.splitlines()
    assert said[-1].endswith(" MB copied, with the damage above")
    (problem,) = json.loads(run("backup", database, "another.db", "--json", exit_code=1).stdout)["problems"]
    assert problem["key"] == "vector_id 1"


def test_compact_gives_unused_space_back(run: Run, database: str) -> None:
    with EmbeddingCache(lib.database_in(Path(database))) as cache:
        ids = [f"doc {i}" for i in range(100)]
        cache.put_many(ids, ids, np.ones((100, 1024)), model_name="big")
        cache.clear(model_name="big")
        before = run("ls", database).stdout
    freed_bytes = json.loads(run("compact", database, "--json").stdout)["freed_bytes"]
    assert freed_bytes > 100 * 1024 * 4
    assert run("compact", database).stdout == "0.00 MB freed\n"
    assert (run("ls", database).stdout, run("verify", database).exit_code) == (before, 0)


def test_convert_stores_vectors_in_another_format(run: Run, database: str, fake: CountingEncoder) -> None:
    n_texts = fake.n_texts
    done = run("convert", database, "fake", "--dtype", "float16", "--json")
    assert json.loads(done.stdout) == {"n_converted": 3, "freed_bytes": 0}
    assert run("convert", database, "fake", "--dtype", "float16").stdout == "0 vectors converted to float16\n"
    done = run("convert", database, "fake", "--dtype", "float32", "--settings", '{"dtype": "float16"}', "--compact")
    assert done.stdout.startswith("3 vectors converted to float32; ")
    assert "MB freed" in done.stdout
    assert (run("verify", database).exit_code, fake.n_texts) == (0, n_texts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody", "--dtype", "float16"), "'nobody'"),
        (("fake", "--dtype", "float16", "--role", "query"), "in the role 'query'"),
        (("fake", "--dtype", "float16", "--settings", '{"a": 1}'), "with settings"),
        (("fake", "--dtype", "float16", "--settings", "{"), "is no JSON"),
        (("fake", "--dtype", "float16", "--settings", "[]"), "is no JSON object"),
        (("fake", "--dtype", "int8"), "'int8' is not one of"),
        (("fake",), "Missing option '--dtype'"),
    ],
)
def test_what_cannot_be_converted_is_told(run: Run, database: str, arguments: tuple[str, ...], said: str) -> None:
    assert said in error_of(run("convert", database, *arguments, exit_code=2))


def test_a_damaged_vector_is_not_converted(run: Run, database: str) -> None:
    with sqlite3.connect(database) as opened:
        opened.execute("UPDATE vectors SET checksum = 0")
    assert "nothing was converted" in error_of(run("convert", database, "fake", "--dtype", "float16", exit_code=3))


def test_a_library_is_named_by_its_folder_or_its_file(run: Run, library: str) -> None:
    by_folder = run("stats", library, "--json").stdout
    assert run("stats", f"{library}/embeddings.db", "--json").stdout == by_folder


def test_ls_lists_documents(run: Run, database: str) -> None:
    rows = json.loads(run("ls", database, "--json").stdout)
    assert [row["doc_id"] for row in rows] == ["a", "b", "c"]
    assert rows[0].keys() == {"doc_id", "collection", "model_name", "settings", "dim", "content_hash", "dtype"}
    header, *lines = run("ls", database, "--limit", "2").stdout.splitlines()
    assert header.split() == ["content_hash", "dim", "dtype", "model_name", "collection", "doc_id"]
    assert [line.split()[-1] for line in lines] == ["a", "b"]


def test_ls_filters_by_collection_and_model(run: Run, library: str) -> None:
    assert len(json.loads(run("ls", library, "--collection", "documents", "--model", "fake", "--json").stdout)) == 3
    assert json.loads(run("ls", library, "--collection", "another", "--json").stdout) == []


def test_a_name_that_would_steer_a_terminal_is_printed_harmlessly(run: Run, encoder: CountingEncoder) -> None:
    with EmbeddingCache("cache.db") as cache:
        cache.get("a\x1b[2J\nb", "text", encoder)
    assert run("ls", "cache.db").stdout.splitlines()[1].endswith("a\ufffd[2J\ufffdb")


def test_reconcile_says_that_all_is_well(run: Run, library: str, files: list[str], fake: CountingEncoder) -> None:
    for arguments in ([], files, ["--repair"]):
        assert run("reconcile", library, *arguments).stdout == "no problems in 3 records\n"
    assert json.loads(run("reconcile", library, "--json").stdout)["ok"] is True
    assert fake.n_texts == 3


def test_reconcile_names_what_differs_repairs_what_it_can_and_tells_what_is_left(
    run: Run, library: str, files: list[str], here: Path, fake: CountingEncoder
) -> None:
    (here / "dog.md").write_text(TEXTS["cat.txt"], encoding="utf-8")
    (here / "fish.txt").write_text("Another fish.", encoding="utf-8")
    given = ["dog.md", "fish.txt"]
    assert run("reconcile", library, *given, exit_code=1).stdout == (
        "dog.md: the source has another text\n"
        "fish.txt: the source has another text (needs the model)\n"
        "cat.txt: not in the source\n"
        "3 documents with problems in 3 records\n"
    )
    assert run("reconcile", library, *given, "--repair", exit_code=1).stdout == (
        "dog.md: the source has another text (repaired)\n"
        "fish.txt: the source has another text (needs the model)\n"
        "cat.txt: not in the source\n"
        "2 documents with problems in 3 records; 1 document repaired\n"
    )
    report = json.loads(run("reconcile", library, *given, "--json", exit_code=1).stdout)
    assert (report["outdated"], report["extra"], report["left"]) == (["fish.txt"], ["cat.txt"], ["fish.txt", "cat.txt"])
    assert fake.n_texts == 3
    run("index", library, *given, "--remove-missing")
    assert run("reconcile", library, *given).stdout == "no problems in 2 records\n"


def test_verify_says_that_all_is_well(run: Run, database: str) -> None:
    assert run("verify", database).stdout == "no problems in 3 documents\n"
    assert json.loads(run("verify", database, "--json").stdout) == []


def test_demo_runs_with_any_model_and_keeps_what_it_made(run: Run, fake: CountingEncoder) -> None:
    found = json.loads(run("demo", "--model", "fake", "--path", "kept", "--json").stdout)
    assert [each["encoded"] for each in found["runs"]] == [1_000, 10, 0]
    assert found["broken_promises"] == []
    assert [len(answer["hits"]) for answer in found["answers"]] == [3, 3, 3]
    assert json.loads(run("stats", "kept", "--json").stdout)["n_documents"] == 1_000
    assert error_of(run("demo", "--model", "fake", "--path", "kept", exit_code=2)).startswith("'kept' is there already")


def test_version_and_help_need_no_file(run: Run) -> None:
    told = run("--help").stdout
    for line in ("0  done", "1  the answer is no", "2  wrong usage or input", "3  the store, the model"):
        assert line in told
    for command in main.list_commands(click.Context(main)):
        assert run(command, "--help").stdout.startswith("Usage: ")


def test_verify_names_damaged_rows(run: Run, database: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE vector_id = 2")
    connection.close()
    (problem,) = json.loads(run("verify", database, "--json", exit_code=1).stdout)
    assert problem.keys() == {"table", "key", "what"}
    assert problem["table"] == "vectors"
    assert run("verify", database, exit_code=1).stdout.startswith("vectors ")


def test_verify_names_the_cure(run: Run, database: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE vectors SET checksum = 0 WHERE vector_id = 2")
    connection.close()
    assert f"embstore repair {database} -o NEW" in run("verify", database, exit_code=1).stderr


def test_repair_saves_what_is_undamaged_and_names_the_rest(run: Run, database: str, here: Path) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE vectors SET checksum = 0 WHERE vector_id = 2")
        (doc_id,) = connection.execute("SELECT doc_id FROM documents WHERE vector_id = 2").fetchone()
    connection.close()
    lines = run("repair", database, "-o", "new.db", exit_code=1).stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["lost:", "vectors"], ["lost:", "documents"]]
    assert f"doc_id {doc_id!r}" in lines[1]
    assert lines[-1] == f"{here / 'new.db'}: 2 vectors, 2 documents, 0 texts kept; lost: 1 vectors, 1 documents"
    assert run("verify", "new.db").stdout == "no problems in 2 documents\n"
    told = json.loads(run("repair", "new.db", "-o", "newer.db", "--json").stdout)
    assert (told["n_vectors"], told["lost"], told["n_lost"], told["ok"]) == (2, [], {}, True)
    assert "is there already" in run("repair", database, "-o", "new.db", exit_code=3).stderr


def test_repair_tells_what_it_cannot_know(run: Run, database: str) -> None:
    data = bytearray(Path(database).read_bytes())
    data[:512] = bytes(512)
    Path("ruin.db").write_bytes(data)
    assert "some of it may be back" in run("repair", "ruin.db", "-o", "new.db").stdout
    Path("short.db").write_bytes(Path(database).read_bytes()[:-65536])
    assert "1 page of the file" in run("repair", "short.db", "-o", "newer.db", exit_code=1).stdout


def test_a_search_that_finds_nothing(run: Run) -> None:
    run("index", "library", write_jsonl("none.jsonl"), "--model", "fake")
    assert run("search", "library", "cat", "--model", "fake", exit_code=1).stdout == ""
    assert json.loads(run("search", "library", "cat", "--model", "fake", "--json", exit_code=1).stdout) == []


@pytest.mark.parametrize("command", ["stats", "ls", "verify", "search", "reconcile"])
def test_a_path_that_is_not_there_is_not_made(run: Run, here: Path, command: str) -> None:
    query = ["cat"] if command == "search" else []
    for path in ("missing.db", "missing/library"):
        assert "does not exist" in error_of(run(command, path, *query, exit_code=2))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ["stats", "ls", "verify", "search", "reconcile"])
def test_a_folder_that_is_no_library_stays_as_it_is(run: Run, here: Path, command: str) -> None:
    query = ["cat"] if command == "search" else []
    assert "has no embeddings.db" in error_of(run(command, str(here), *query, exit_code=2))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ["stats", "ls", "verify"])
def test_an_empty_file_is_not_made_a_database(run: Run, here: Path, command: str) -> None:
    (here / "empty.db").touch()
    assert "is an empty file" in error_of(run(command, "empty.db", exit_code=2))
    assert (here / "empty.db").stat().st_size == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object with id and text"),
        ({"text": "no id"}, "not an object with id and text"),
        ({"id": "x"}, "not an object with id and text"),
        ({"id": 7, "text": "number"}, "doc_id is int, not str"),
        ({"id": "", "text": "empty"}, "is empty"),
        ({"id": "\ud800", "text": "surrogate"}, "lone surrogate"),
        ({"id": "x", "text": None}, "NoneType, not str"),
        ({"id": "x", "text": "t", "title": "T"}, "unknown field 'title'"),
        ({"id": "x", "text": "t", "metadata": [1]}, "list, not a dict"),
        ({"id": "x", "text": "t", "metadata": {"a": None}}, "not NoneType"),
        ('{"id": "x", "text": "t", "metadata": {"a": NaN}}', "nan cannot be stored"),
        ({"id": "cat.txt", "text": "taken"}, "id 'cat.txt' is taken by cat.txt"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_indexed(
    run: Run, files: list[str], fake: CountingEncoder, line: Any, said: str
) -> None:
    bad = write_jsonl("bad.jsonl", {"id": "good", "text": "good"}, "", line)
    error = error_of(run("index", "library", *files, bad, "--model", "fake", exit_code=2))
    assert error.startswith("bad.jsonl:3: ")
    assert said in error
    assert not Path("library").exists()
    assert fake.calls == []


def test_a_file_given_twice_is_refused(run: Run, files: list[str]) -> None:
    error = error_of(run("index", "library", files[0], f"./{files[0]}", "--model", "fake", exit_code=2))
    assert error == "cat.txt: id 'cat.txt' is taken by cat.txt; each needs its own"
    assert not Path("library").exists()


def test_a_file_that_is_no_text_is_named(run: Run, files: list[str]) -> None:
    Path("picture.txt").write_bytes(b"\x89PNG\r\n")
    error = error_of(run("index", "library", *files, "picture.txt", "--model", "fake", exit_code=2))
    assert error.startswith("picture.txt: not UTF-8 text (invalid start byte at byte 0)")
    assert not Path("library").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'FILES...'"),
        (["missing.txt"], "'missing.txt' does not exist"),
        (["folder"], "no file is found by 'folder'"),
        (["cat.txt", "--collection", "x"], "collection_name 'x'"),
        (["cat.txt", "--unknown"], "No such option"),
        (["cat.txt", "--max-removed", "1.5"], "'--max-removed'"),
        (["cat.txt", "--dry-run", "--collection", "x"], "collection_name 'x'"),
    ],
)
def test_wrong_arguments_of_index_are_named(run: Run, files: list[str], arguments: list[str], said: str) -> None:
    Path("folder").mkdir()
    assert said in error_of(run("index", "library", "--model", "fake", *arguments, exit_code=2))
    assert not Path("library").exists()


def test_search_asks_which_of_several_models_is_meant(run: Run, library: str) -> None:
    Path(library, "embstore-cli.json").unlink()
    with EmbeddingCache(Path(library, "embeddings.db")) as cache:
        cache.get("a", "one", CountingEncoder(model_name="another"), collection="documents")
    error = error_of(run("search", library, "cat", exit_code=2))
    assert error.endswith("has documents of several models; say which by --model: another, fake")
    run("search", library, "cat", "--model", "fake")


def test_a_note_of_the_model_that_cannot_be_read_is_named(run: Run, library: str) -> None:
    Path(library, "embstore-cli.json").write_text("{")
    assert "say which model by --model" in error_of(run("search", library, "cat", exit_code=2))
    run("search", library, "cat", "--model", "fake")


def test_a_collection_without_documents_is_named(run: Run, library: str) -> None:
    error = error_of(run("search", library, "cat", "--collection", "another", exit_code=2))
    assert error == "'library' has no documents in the collection 'another'"


def test_a_file_of_another_program_is_refused_and_left_as_it_is(run: Run, here: Path) -> None:
    (here / "notes.db").write_text("not a database, only text" * 100)
    before = (here / "notes.db").read_bytes()
    for command in ("stats", "ls", "verify"):
        assert "notes.db" in error_of(run(command, "notes.db", exit_code=3))
    assert (here / "notes.db").read_bytes() == before
    assert [file.name for file in here.iterdir()] == ["notes.db"]


def test_another_model_than_the_one_of_the_collection_is_refused(
    run: Run, library: str, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(encoders._loaded, "other", CountingEncoder(model_name="other"))
    error_of(run("index", library, *files, "--model", "other", exit_code=3))
    error_of(run("search", library, "cat", "--model", "other", exit_code=3))
    assert run("search", library, "cat").exit_code == 0  # the note still says which model is the right one


def test_a_model_that_raises_is_named(run: Run, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        model_name = "broken"

        def encode(self, texts: list[str]) -> None:
            raise RuntimeError("out of memory")

    monkeypatch.setitem(encoders._loaded, "broken", Broken())
    assert "'broken' raised RuntimeError" in error_of(run("index", "library", *files, "--model", "broken", exit_code=3))


def test_a_bug_keeps_its_traceback_and_is_no_no(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.lib, "database_in", lambda path: 1 / 0)
    assert "ZeroDivisionError" in run("stats", database, exit_code=3).stderr


def test_demo_fails_where_a_promise_is_broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embstore.demo.N_FORGOTTEN", 20)
    monkeypatch.setattr(EmbeddingCache, "invalidate", lambda cache, doc_ids, **_: 0)
    result = run("demo", "--model", "fake", exit_code=3)
    assert "the demo failed: run 2 encoded 0 texts, expected are 20" in result.stderr


def test_an_interrupted_command_says_so_in_one_line(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.lib, "database_in", interrupt)
    assert "embstore: error: interrupted\n" in run("stats", database, exit_code=130).stderr


@pytest.mark.parametrize(
    ("failure", "exit_code", "said"),
    [(RuntimeError("no memory"), 3, "no memory"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_what_ends_an_index_early_says_how_far_it_came(
    run: Run,
    fake: CountingEncoder,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    exit_code: int,
    said: str,
) -> None:
    rows = [json.dumps({"id": f"{i}", "text": f"text {i}"}) for i in range(2100)]
    Path("rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    encode = fake.encode

    def failing(texts: list[str]) -> np.ndarray:
        if "text 2050" in texts:
            raise failure
        return encode(texts)

    monkeypatch.setattr(fake, "encode", failing)
    told = run("index", "library", "rows.jsonl", "--model", "fake", "--index", "exact", exit_code=exit_code).stderr
    last = told.splitlines()[-1]
    assert said in last
    assert last.endswith("; 2,000 documents were indexed before this; the same call again does the rest")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE convention")
def test_a_closed_pipe_ends_a_command_quietly(here: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache("cache.db") as cache:
        cache.get_many([f"id-{i}" for i in range(20_000)], ["text"] * 20_000, encoder)
    with cli_process("ls", "cache.db", cwd=here) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_the_script_answers_as_the_function_does(here: Path, database: str) -> None:
    with cli_process("stats", database, "--json", cwd=here) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["n_documents"] == 3
    with cli_process("stats", "missing.db", cwd=here) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "embstore: error: 'missing.db' does not exist\n"
