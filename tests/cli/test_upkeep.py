"""`embstore prune`, `migrate` and `plan`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from embstore import EmbeddingCache
from embstore.stores.condition import read_condition
from embstore.stores.schema import SCHEMA_VERSION
from tests.cli.conftest import Run
from tests.fakes import CountingEncoder

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def old() -> str:
    """A file of the first schema version."""
    shutil.copyfile(GOLDEN / "schema_1.db", "old.db")
    return "old.db"


def test_prune_removes_the_vectors_of_former_texts(run: Run, database: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(database) as cache:
        cache.get("a", "one, edited", encoder)
        cache.embed(["a query"], encoder)
    assert run("prune", database, "--dry-run").stdout == "1 vector of 0.00 MB would be removed\n"
    would = json.loads(run("prune", database, "--standalone", "--dry-run", "--json").stdout)
    assert would == {"n_vectors": 2, "vector_bytes": 64, "removed": False}
    assert json.loads(run("stats", database, "--json").stdout)["n_vectors"] == 5
    assert run("prune", database).stdout == "1 vector of 0.00 MB removed\n"
    assert json.loads(run("prune", database, "--standalone", "--json").stdout)["removed"] is True
    assert json.loads(run("stats", database, "--json").stdout)["n_vectors"] == 3


def test_migrate_says_from_which_version_to_which(run: Run, old: str) -> None:
    before = Path(old).read_bytes()
    told = json.loads(run("migrate", old, "--dry-run", "--json").stdout)
    assert told == {"from_version": 1, "to_version": SCHEMA_VERSION, "migrated": False}
    assert run("migrate", old, "--dry-run").stdout == f"schema version 1 would become {SCHEMA_VERSION}\n"
    assert Path(old).read_bytes() == before
    assert run("migrate", old).stdout == f"schema version 1 became {SCHEMA_VERSION}\n"
    assert read_condition(old).schema_version == SCHEMA_VERSION
    again = json.loads(run("migrate", old, "--json").stdout)
    assert again == {"from_version": SCHEMA_VERSION, "to_version": SCHEMA_VERSION, "migrated": False}
    assert run("migrate", old).stdout.endswith("nothing to migrate\n")


def test_a_file_that_can_only_be_read_is_not_migrated(run: Run, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.W_OK)
    assert "has schema version 1 and can only be read" in run("migrate", old, exit_code=3).stderr


def test_a_file_of_another_program_is_not_migrated(run: Run, here: Path) -> None:
    (here / "letter.db").write_text("Dear reader, " * 100, encoding="utf-8")
    assert "is not an SQLite database" in run("migrate", "letter.db", exit_code=3).stderr


def test_a_plan_is_that_of_a_dry_run(run: Run, indexed: str, here: Path, fake: CountingEncoder) -> None:
    (here / "new.txt").write_text("A fish swims.", encoding="utf-8")
    arguments = (indexed, "cat.txt", "new.txt", "--remove-missing")
    plan = json.loads(run("plan", *arguments, "--json").stdout)
    assert plan == json.loads(run("index", *arguments, "--dry-run", "--json").stdout)
    assert (plan["new"], plan["unchanged"], plan["to_remove"], plan["to_encode"]) == (1, 1, 1, 1)
    assert run("plan", *arguments).stdout.startswith("2 documents: 1 new, 0 changed")
    assert fake.n_texts == 2
