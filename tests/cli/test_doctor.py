"""`embstore doctor`: how an installation and a file are, with nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from embstore import EmbeddingCache, doctor
from embstore.stores import opening
from embstore.stores.schema import SCHEMA_VERSION
from embstore.stores.sqlite_errors import sqlite3
from tests.cli.conftest import Run
from tests.files import define

GOLDEN = Path(__file__).parent.parent / "golden"


def states(run: Run, *arguments: str, exit_code: int = 0) -> dict[str, tuple[str, str]]:
    """By subject: state and what was told."""
    told = json.loads(run("doctor", *arguments, "--json", exit_code=exit_code).stdout)
    assert told["ok"] == (exit_code == 0)
    return {each["subject"]: (each["state"], each["what"]) for each in told["findings"]}


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with a terabyte free, whatever this machine has."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * 10**12, 10**12, 10**12))


def test_a_sound_file_has_no_problem_and_stays_as_it_is(run: Run, database: str, here: Path) -> None:
    before = Path(database).read_bytes()
    found = states(run, database)
    assert found["file"] == ("ok", f"{here / database}: {len(before) / 1e6:,.2f} MB")
    assert found["schema version"] == ("ok", str(SCHEMA_VERSION))
    assert found["page size"] == ("ok", "65536 bytes")
    assert found["journal mode"] == ("ok", "delete")
    assert found["free disk"] == ("ok", "1,000,000 MB")
    assert found["model"] == ("ok", "fake: 3 vectors of 8 values as float32")
    assert found["permissions"][0] == found["file system"][0] == "ok"
    assert Path(database).read_bytes() == before
    assert [file.name for file in here.iterdir()] == [database]


def test_an_installation_is_looked_at_without_a_file(run: Run) -> None:
    found = states(run)
    assert found["embstore"][1].endswith(f"schema version {SCHEMA_VERSION}")
    assert found["SQLite"][1].startswith(sqlite3.sqlite_version)
    assert {"file", "model", "free disk"} & found.keys() == set()
    lines = run("doctor").stdout.splitlines()
    assert lines[0].split()[:2] == ["ok", "embstore"]


def test_the_wal_reset_bug_is_noted_where_this_sqlite_has_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, state in {(3, 50, 6): "note", (3, 50, 7): "ok", (3, 36, 0): "problem"}.items():
        monkeypatch.setattr(doctor.sqlite3, "sqlite_version_info", version)
        assert states(run, exit_code=int(state == "problem"))["SQLite"][0] == state


def test_extras_are_told_with_their_versions_and_their_cure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy>=2",
        'chromadb<2,>=1.5.9; extra == "chroma"',
        'filelock>=3.12; extra == "chroma"',
        'httpx<1,>=0.27; extra == "openai"',
        'model2vec>=9; extra == "model2vec"',
        "pytest>=9; extra == 'dev'",
        'embstore[chroma]; extra == "demo"',
    ]
    versions = {"chromadb": "1.5.9", "httpx": "0.26.0", "embstore": "0.1.0"}
    monkeypatch.setattr(doctor, "_requirements", lambda: lines)
    monkeypatch.setattr(doctor, "_version_of", versions.get)
    found = {name: what for name, what in states(run, exit_code=1).items() if name.startswith("extra")}
    assert found == {
        "extra chroma": ("note", 'chromadb 1.5.9; filelock not installed: pip install "embstore[chroma]"'),
        "extra openai": ("problem", 'httpx 0.26.0 is not <1,>=0.27: pip install "embstore[openai]"'),
        "extra model2vec": ("note", 'model2vec not installed: pip install "embstore[model2vec]"'),
    }


def test_an_older_file_is_not_migrated(run: Run) -> None:
    shutil.copyfile(GOLDEN / "schema_1.db", "old.db")
    before = Path("old.db").read_bytes()
    found = states(run, "old.db")
    assert found["schema version"][0] == "note"
    assert "`embstore migrate`" in found["schema version"][1]
    assert Path("old.db").read_bytes() == before


def test_a_file_of_a_newer_embstore_is_a_problem(run: Run, database: str) -> None:
    define(Path(database).absolute(), "PRAGMA user_version = 99")
    state, what = states(run, database, exit_code=1)["file"]
    assert state == "problem"
    assert "pip install --upgrade embstore" in what


def test_wal_mode_is_a_problem_on_an_affected_sqlite_and_a_note_on_others(
    run: Run, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(Path(database).absolute(), "PRAGMA journal_mode = WAL")
    monkeypatch.setattr(opening, "wal_is_fixed", lambda _: False)
    assert "PRAGMA journal_mode=DELETE" in states(run, database, exit_code=1)["file"][1]
    monkeypatch.setattr(opening, "wal_is_fixed", lambda _: True)
    assert states(run, database)["journal mode"][0] == "note"


def test_a_network_file_system_is_a_problem(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "network_filesystem", lambda _: "nfs4")
    assert states(run, database, exit_code=1)["file system"][0] == "problem"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_permissions_that_let_anybody_write_are_a_problem(run: Run, database: str) -> None:
    Path(database).chmod(0o646)
    assert states(run, database, exit_code=1)["permissions"][1].startswith("-rw-r--rw-: anybody can change it")


def test_a_file_that_can_only_be_read_is_noted(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.W_OK)
    assert states(run, database)["permissions"][0] == "note"


def test_a_full_disk_is_a_problem(run: Run, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, state in {10**6: "problem", 2 * 10**8: "ok"}.items():
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(10**9, 0, free))
        assert states(run, database, exit_code=int(state == "problem"))["free disk"][0] == state


def test_a_model_that_was_never_compared_is_noted(run: Run) -> None:
    with EmbeddingCache("put.db") as cache:
        cache.put_many(["a"], ["text"], [[1.0, 2.0]], model_name="given")
    assert states(run, "put.db")["model"][0] == "note"


def test_other_pages_than_ours_are_noted(run: Run, database: str) -> None:
    define(Path(database).absolute(), "PRAGMA page_size = 4096; VACUUM")
    assert states(run, database)["page size"][0] == "note"
    run("compact", database)
    assert states(run, database)["page size"][0] == "ok"
