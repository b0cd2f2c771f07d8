"""What a file of ours looks like, to us and to anybody with an SQLite shell."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embstore import EmbeddingCache
from embstore.stores import schema
from embstore.stores.sqlite_errors import sqlite3
from tests.fakes import CountingEncoder
from tests.files import change, connection, define, rows

SHELL = shutil.which("sqlite3")


@pytest.fixture
def made(cache_path: Path, encoder: CountingEncoder) -> Path:
    """A closed file with two documents of one text, and one more."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b"], ["größer", "größer"], encoder, collection="x")
        cache.get("c", "", encoder)
        cache.embed(["bare"], encoder)
    return cache_path


def test_the_fingerprint_of_the_present_version_is_that_of_a_new_file(made: Path) -> None:
    with connection(made) as opened:
        objects = opened.execute(schema.OBJECTS).fetchall()
    assert schema.fingerprint(objects) == schema.FINGERPRINTS[schema.SCHEMA_VERSION]
    assert sorted(schema.FINGERPRINTS) == list(range(1, schema.SCHEMA_VERSION + 1))


def test_the_header_says_whose_file_it_is(made: Path) -> None:
    pragmas = ("application_id", "user_version", "page_size", "journal_mode", "encoding")
    found = [rows(made, f"PRAGMA {pragma}")[0][0] for pragma in pragmas]
    assert found == [0x656D6273, schema.SCHEMA_VERSION, 65536, "delete", "UTF-8"]
    assert made.read_bytes()[68:72] == b"embs"


def test_the_view_shows_each_document_with_its_vector(made: Path, encoder: CountingEncoder) -> None:
    with connection(made) as opened:
        opened.row_factory = sqlite3.Row
        shown = [dict(row) for row in opened.execute("SELECT * FROM embeddings ORDER BY doc_id")]
    assert shown == [
        {
            "doc_id": doc_id,
            "content_hash": hashlib.sha256(text.encode()).hexdigest(),
            "model_name": "fake",
            "dim": 8,
            "vector": encoder.vector(text).astype("<f4").tobytes(),
            "settings": "{}",
            "collection": collection,
        }
        for doc_id, text, collection in [("a", "größer", "x"), ("b", "größer", "x"), ("c", "", "")]
    ]


def test_sqlite_utils_shows_the_rows(made: Path) -> None:
    command = [sys.executable, "-m", "sqlite_utils", "rows", str(made), "embeddings", "-c", "doc_id", "-c", "dim"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    expected = [{"doc_id": doc_id, "dim": 8} for doc_id in "abc"]
    assert sorted(json.loads(done.stdout), key=lambda row: row["doc_id"]) == expected


@pytest.mark.skipif(SHELL is None, reason="there is no sqlite3 shell here")
def test_the_sqlite3_shell_shows_the_rows(made: Path) -> None:
    query = "SELECT doc_id, content_hash, length(vector) FROM embeddings ORDER BY doc_id"
    done = subprocess.run([SHELL or "", str(made), query], capture_output=True, text=True, timeout=60, check=True)
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in ("größer", "größer", "")]
    assert done.stdout.splitlines() == [f"{doc_id}|{key}|32" for doc_id, key in zip("abc", hashes, strict=True)]


def test_a_look_from_outside_leaves_the_file_as_it_is(made: Path, encoder: CountingEncoder) -> None:
    before = made.read_bytes()
    with EmbeddingCache(made) as cache:
        assert (len(cache), cache.verify()) == (3, [])
        cache.matrix("fake")
        cache.stats()
    assert made.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO documents VALUES (1, '', '', 1, 0)",
        "INSERT INTO documents VALUES (1, '', x'00', 1, 0)",
        "INSERT INTO documents VALUES (1, '', 'x', 'one', 0)",
        "INSERT INTO documents VALUES (1, 'x', 'a', 1, 0)",
        "INSERT INTO documents VALUES (1, NULL, 'n', 1, 0)",
        "INSERT INTO vectors VALUES (9, 1, x'00', 1, 0, 0, x'00000000')",
        "INSERT INTO vectors VALUES (9, 1, zeroblob(32), 2, 0, 0, x'00')",
        "INSERT INTO vectors VALUES (9, 1, zeroblob(32), 0, 0, 0, x'')",
        "INSERT INTO vectors VALUES (9, 1, zeroblob(32), 1, 2, 0, zeroblob(4))",
        "INSERT INTO vectors SELECT 9, model_id, content_hash, dim, standalone, checksum, vector FROM vectors",
        "INSERT INTO models VALUES (9, '', '{}', 1, 'float32', NULL, '', 0)",
        "INSERT INTO models VALUES (9, 'm', '{}', 1, 'int8', NULL, '', 0)",
        "INSERT INTO models VALUES (9, 'm', '{}', 1, 'float32', x'00', '', 0)",
        "INSERT INTO models VALUES (9, 'fake', '{}', 8, 'float32', NULL, '', 0)",
        "INSERT INTO documents VALUES (7, '', 'x', 1, 0)",
        "INSERT INTO documents VALUES (1, '', 'x', 99, 0)",
        "DELETE FROM vectors",
        "DELETE FROM models",
    ],
)
def test_rows_that_make_no_sense_are_refused_by_the_database(statement: str, made: Path) -> None:
    with connection(made, "rw") as opened:
        opened.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            opened.execute(statement)


def test_an_id_that_begins_with_a_nul_is_no_empty_one(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("\0", "text", encoder)
    assert [row.doc_id for row in cache.documents()] == ["\0"]


def test_tables_views_and_indexes_beside_ours_are_ignored(made: Path, encoder: CountingEncoder) -> None:
    define(made, "CREATE TABLE notes (doc_id TEXT, note TEXT)")
    define(made, "CREATE VIEW noted AS SELECT * FROM embeddings JOIN notes USING (doc_id)")
    define(made, "CREATE INDEX by_dim ON vectors (dim)")
    define(made, "INSERT INTO notes VALUES ('a', 'mine')")
    define(made, "ANALYZE")
    with EmbeddingCache(made) as cache:
        cache.get("d", "new", encoder)
        cache.invalidate("c")
        assert cache.verify() == []
    assert rows(made, "SELECT doc_id, note FROM noted") == [("a", "mine")]


def test_a_trigger_is_found_by_verify_too(made: Path) -> None:
    with EmbeddingCache(made) as cache:
        define(made, "CREATE TRIGGER later AFTER INSERT ON vectors BEGIN DELETE FROM vectors; END")
        assert [problem.table for problem in cache.verify()] == ["schema"]


def test_a_changed_view_is_found_by_verify(made: Path) -> None:
    with EmbeddingCache(made) as cache:
        define(made, "DROP VIEW embeddings")
        assert [str(problem) for problem in cache.verify()] == ["schema: the tables or views were changed"]


def test_a_changed_version_is_found_by_verify(made: Path) -> None:
    with EmbeddingCache(made) as cache:
        define(made, "PRAGMA user_version = 99")
        assert [problem.table for problem in cache.verify()] == ["schema"]


def test_change_needs_a_row_to_change(made: Path) -> None:
    with pytest.raises(AssertionError):
        change(made, "UPDATE vectors SET checksum = 0 WHERE vector_id = 99")
