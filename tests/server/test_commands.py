"""The commands on the URL of a server: each that takes a database takes one."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner

from embstore import EmbeddingCache
from embstore.cli import main
from tests.fakes import CountingEncoder

pytest.importorskip("psycopg", reason="needs the extra postgres")

import psycopg

from tests.server.proxy import Pooler, standing_before


def run(*arguments: object, exit_code: int = 0) -> str:
    """Run a command, and give what it says; it shows no password."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    passwords = {urlsplit(str(argument)).password for argument in arguments} - {None}
    assert not any(str(password) in result.output for password in passwords)
    return result.output


@pytest.fixture
def filled(postgres_url: str) -> str:
    with EmbeddingCache(postgres_url) as cache:
        cache.get_many(["a", "b", "c"], ["text a", "text b", "text a"], CountingEncoder(model_name="m"))
    return postgres_url


def test_what_is_stored_is_told(filled: str, tmp_path: Path) -> None:
    assert json.loads(run("stats", filled, "--json"))["n_documents"] == 3
    assert "3 documents with 3 ids" in run("stats", filled)
    assert [document["doc_id"] for document in json.loads(run("ls", filled, "--json"))] == ["a", "b", "c"]
    assert "m" in run("models", filled)
    assert '"doc_id": "b"' in run("show", filled, "b", "--json")
    assert "no problems in 3 documents" in run("verify", filled)
    run("report", filled, "-o", tmp_path / "report.html")
    assert urlsplit(filled).password not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_stored_is_changed(filled: str, tmp_path: Path) -> None:
    run("rename-model", filled, "m", "other")
    run("convert", filled, "other", "--dtype", "float16", "--compact")
    with EmbeddingCache(filled) as cache:
        cache.invalidate("b")
        cache.embed(["query"], CountingEncoder(model_name="other"))
        assert [(model.model_name, model.dtype) for model in cache.models()] == [("other", "float16")]
    assert "1 vector" in run("prune", filled, "--standalone")
    assert "freed" in run("compact", filled)
    run("export", filled, tmp_path / "out", "--to", "npy")
    assert (tmp_path / "out").is_dir()


def test_a_file_goes_to_a_server_and_back(filled: str, tmp_path: Path) -> None:
    run("merge", filled, tmp_path / "copy.db")
    with EmbeddingCache(filled) as cache, EmbeddingCache(tmp_path / "copy.db") as copy:
        ids, vectors = cache.matrix("m")
        copied_ids, copied = copy.matrix("m", doc_ids=ids)
        assert (copied_ids, copied.tobytes()) == (ids, vectors.tobytes())
        copy.put_many(["new"], ["new text"], np.ones((1, 8), np.float32), model_name="m")
    run("merge", tmp_path / "copy.db", filled)
    with EmbeddingCache(filled) as cache:
        assert (len(cache), cache.verify()) == (4, [])


def test_what_only_a_file_has_names_what_does_it_for_a_server(filled: str, tmp_path: Path) -> None:
    assert "pg_dump" in run("backup", filled, tmp_path / "copy.db", exit_code=3)
    assert "pg_dump" in run("repair", filled, "-o", tmp_path / "new.db", exit_code=3)
    assert list(tmp_path.iterdir()) == []


def test_a_command_makes_no_tables_but_migrate_does(postgres_url: str) -> None:
    for command in ("stats", "ls", "verify", "models", "compact", "prune"):
        assert "`embstore migrate` makes them" in run(command, postgres_url, exit_code=2)
    with psycopg.connect(postgres_url) as connection:
        query = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        assert connection.execute(query).fetchone() == (0,)
    assert json.loads(run("migrate", postgres_url, "--dry-run", "--json")) == {
        "from_version": 0,
        "to_version": 1,
        "migrated": False,
    }
    assert "became 1" in run("migrate", postgres_url)
    assert "nothing to migrate" in run("migrate", postgres_url)
    assert "0 documents" in run("stats", postgres_url)


def test_doctor_tells_how_a_server_is(filled: str) -> None:
    told = {finding["subject"]: finding for finding in json.loads(run("doctor", filled, "--json"))["findings"]}
    assert told["server"]["what"].startswith("PostgreSQL")
    assert (told["schema version"]["what"], told["pooler"]["what"]) == ("1", "none, as far as can be told")
    assert told["permissions"]["what"].endswith("can read, write and migrate")
    assert told["model"]["what"].startswith("m: 2 vectors of 8 values as float32")
    with standing_before(Pooler(filled, 1)) as pooler:
        assert "there is one; leave prepare_threshold=none" in run("doctor", pooler.url)
    timed = run("doctor", f"{filled}%20-cstatement_timeout%3D5000")
    assert "5s: a matrix, a verify or a prune that takes longer is cancelled" in timed
    nowhere = filled.replace(str(urlsplit(filled).port), "1")
    assert "cannot be reached" in run("doctor", nowhere, exit_code=1)


def test_doctor_of_a_server_without_tables_makes_none(postgres_url: str) -> None:
    assert "`embstore migrate` makes them" in run("doctor", postgres_url)
    assert "`embstore migrate` makes them" in run("doctor", postgres_url)
