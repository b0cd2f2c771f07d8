"""`embstore show`: all that is known of one document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, content_hash
from embstore.errors import LibraryLockedError
from embstore.search import lock
from tests.cli.conftest import Run
from tests.fakes import CountingEncoder

TEXT = "A cat sleeps.\nIt purrs."


def test_a_document_of_a_library_is_shown_with_its_text(run: Run, indexed: str, fake: CountingEncoder) -> None:
    (shown,) = json.loads(run("show", indexed, "cat.txt", "--values", "3", "--json").stdout)
    assert shown == {
        "doc_id": "cat.txt",
        "collection": "documents",
        "content_hash": content_hash(TEXT).hex(),
        "model_name": "fake",
        "settings": {},
        "dim": 8,
        "dtype": "float32",
        "vector": fake.vector(TEXT)[:3].tolist(),
        "metadata": {"source": "cat.txt"},
        "text": TEXT,
    }


def test_it_is_shown_to_people_a_line_a_field(run: Run, indexed: str) -> None:
    lines = run("show", indexed, "cat.txt").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("doc_id", "collection", "content_hash", "model_name", "settings", "vector", "metadata", "text"),
    ]
    assert lines[-2:] == ["metadata      source=cat.txt", "text          A cat sleeps. It purrs."]
    assert lines[5].startswith("vector        8 values of float32: ")
    assert lines[5].endswith(", ...")


def test_a_text_of_another_content_than_the_cache_has_is_not_shown(
    run: Run, indexed: str, fake: CountingEncoder
) -> None:
    with EmbeddingCache(Path(indexed, "embeddings.db")) as cache:
        cache.get("cat.txt", "Another text.", fake, collection="documents")
    (shown,) = json.loads(run("show", indexed, "cat.txt", "--json").stdout)
    assert (shown["content_hash"], shown["text"]) == (content_hash("Another text.").hex(), None)


def test_a_database_has_no_texts_to_show(run: Run, database: str) -> None:
    (shown,) = json.loads(run("show", database, "a", "--json").stdout)
    assert (shown["doc_id"], shown["text"], shown["metadata"]) == ("a", None, None)
    assert "text          not kept here" in run("show", database, "a").stdout


def test_each_model_and_collection_of_an_id_is_shown(run: Run, database: str, encoder: CountingEncoder) -> None:
    other = CountingEncoder(dim=4, model_name="other")
    with EmbeddingCache(database, dtype="float16") as cache:
        cache.get("a", "one", other)
        cache.get("a", "four", encoder, collection="second")
    shown = json.loads(run("show", database, "a", "--json").stdout)
    assert [(each["model_name"], each["collection"], each["dtype"]) for each in shown] == [
        ("fake", "", "float32"),
        ("fake", "second", "float32"),
        ("other", "", "float16"),
    ]
    assert np.array_equal(shown[1]["vector"], encoder.vector("four")[:5])
    (only,) = json.loads(run("show", database, "a", "--model", "other", "--json").stdout)
    assert only == shown[2]
    (only,) = json.loads(run("show", database, "a", "--collection", "second", "--json").stdout)
    assert only == shown[1]


def test_a_document_of_no_collection_in_a_library_is_shown(run: Run, indexed: str, fake: CountingEncoder) -> None:
    with EmbeddingCache(Path(indexed, "embeddings.db")) as cache:
        cache.get("loose", "loose", fake)
    (shown,) = json.loads(run("show", indexed, "loose", "--json").stdout)
    assert (shown["collection"], shown["text"]) == ("", None)


def test_a_document_that_is_not_there_is_wrong_input(run: Run, database: str) -> None:
    result = run("show", database, "z", exit_code=2)
    assert "no document 'z' is stored" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("indexed", ["chroma"], indirect=True)
def test_a_library_that_another_process_has_open_is_shown_without_its_text(
    run: Run, indexed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LibraryLockedError("open elsewhere")

    monkeypatch.setattr(lock, "LibraryHandle", refuse)
    result = run("show", indexed, "cat.txt", "--json")
    assert json.loads(result.stdout)[0]["text"] is None
    assert "another process has open" in result.stderr
