"""`embstore models` and `rename-model`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embstore import EmbeddingCache, encoders
from embstore.errors import StoreError
from embstore.stores.sqlite import SQLiteStore
from tests.cli.conftest import Run
from tests.fakes import CountingEncoder, QueryEncoder


def test_models_lists_every_identity(run: Run, database: str) -> None:
    with EmbeddingCache(database) as cache:
        cache.embed_query("what?", QueryEncoder(model_name="asker"))
        infos = cache.models()
    found = json.loads(run("models", database, "--json").stdout)
    assert [(each["model_name"], each["settings"].get("role"), each["n_vectors"]) for each in found] == [
        ("fake", None, 3),
        ("asker", "query", 1),
    ]
    header, first, second = run("models", database).stdout.splitlines()
    assert header.split()[:4] == ["model_name", "role", "dim", "dtype"]
    assert first.split() == ["fake", "document", "8", "float32", "3", "3", "yes", *infos[0].created_at.split()]
    assert second.split()[:2] == ["asker", "query"]


def test_a_renamed_model_of_a_library_is_searched_under_its_new_name(
    run: Run, indexed: str, fake: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = CountingEncoder(model_name="acme/named")
    monkeypatch.setitem(encoders._loaded, "acme/named", named)
    assert run("rename-model", indexed, "fake", "acme/named").stdout == "fake is called acme/named now: 2 vectors\n"
    (hit, *_) = json.loads(run("search", indexed, "A dog barks.", "--json").stdout)
    assert hit["doc_id"] == "dog.txt"
    assert json.loads(run("index", indexed, "cat.txt", "dog.txt", "--json").stdout)["unchanged"] == 2
    assert run("reconcile", indexed).stdout == "no problems in 2 records\n"
    assert named.calls == []


def test_a_rename_that_fails_leaves_every_name(
    run: Run, indexed: str, fake: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("no", path="here")

    note = Path(indexed, "embstore-cli.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "rename_model", fail)
        run("rename-model", indexed, "fake", "other", exit_code=3)
    assert Path(indexed, "embstore-cli.json").read_bytes() == note
    assert json.loads(run("search", indexed, "A dog barks.", "--json").stdout)[0]["doc_id"] == "dog.txt"


def test_a_rename_of_a_database_tells_how_many_vectors_are_called_so(run: Run, database: str) -> None:
    told = json.loads(run("rename-model", database, "fake", "other", "--json").stdout)
    assert told == {"model_name": "other", "n_vectors": 3}
    assert "no model 'fake' is stored" in run("rename-model", database, "fake", "third", exit_code=2).stderr


def test_a_name_that_is_taken_is_wrong_input(run: Run, database: str) -> None:
    with EmbeddingCache(database) as cache:
        cache.embed(["x"], CountingEncoder(model_name="taken"))
    assert "'taken' is stored already" in run("rename-model", database, "fake", "taken", exit_code=2).stderr
    assert [model["model_name"] for model in json.loads(run("models", database, "--json").stdout)] == ["fake", "taken"]
