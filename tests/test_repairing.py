"""Of a damaged file everything is saved that is undamaged, and what is not is named."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    DamagedStoreError,
    EmbeddingCache,
    InvalidTypeError,
    LostRow,
    ModelIdentity,
    RepairReport,
    StoreBusyError,
    StorePathError,
    content_hash,
    repair,
)
from embstore.stores.sqlite import SQLiteStore
from embstore.stores.sqlite_errors import sqlite3
from embstore.stores.tables.carried import CarriedRows
from embstore.stores.texts import StoredText
from tests.fakes import CountingEncoder
from tests.files import change, connection, define, dump, flip_bit, rows
from tests.test_damage import small_pages

N = 60
GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A sound file, yet, of pages so small that its tables are trees; with free pages that were documents."""
    path = small_pages(tmp_path, N)
    with EmbeddingCache(path) as cache:
        removed = [f"removed {i}" for i in range(N)]
        cache.get_many(removed, removed, CountingEncoder())
        cache.embed(["bare"], CountingEncoder(model_name="other", seed=1))
        texts = cache.store.texts
        texts.ensure_collection("notes", ModelIdentity("fake"))
        texts.put("notes", [StoredText(f"doc {i}", content_hash(f"text {i}"), "{}", f"text {i}") for i in range(N)])
        cache.store.byte_values.mset({f"key {i}": bytes([i]) * 9 * i for i in range(N)})
    with connection(path, "rw") as connected:
        connected.execute("PRAGMA secure_delete = OFF")
        connected.execute("DELETE FROM documents WHERE doc_id LIKE 'removed%'")
        connected.execute(
            "DELETE FROM vectors WHERE vector_id NOT IN (SELECT vector_id FROM documents) AND NOT standalone"
        )
        connected.commit()
    with EmbeddingCache(path) as cache:
        assert cache.verify() == []
    assert rows(path, "PRAGMA freelist_count") > [(9,)]
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "repaired.db"


def is_as_before(path: Path, before: dict[str, list[tuple[object, ...]]]) -> bool:
    """Has the file all rows of another, but for the notes of migrations and ids that were given once?"""
    now = dump(path)
    return all(now[table] == there for table, there in before.items() if "sqlite" not in table)


def page_of(path: Path, name: str) -> slice:
    """Where the root of a table or index lies."""
    ((number, size),) = rows(
        path, "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = ?", name
    )
    return slice((number - 1) * size, number * size)


def zero(path: Path, where: slice) -> None:
    data = bytearray(path.read_bytes())
    data[where] = bytes(where.stop - where.start)
    path.write_bytes(data)


def test_bytes_by_key_that_are_damaged_are_named_and_the_others_saved(damaged: Path, new: Path) -> None:
    change(damaged, "UPDATE byte_values SET value = x'00' WHERE key = 'key 5'")
    change(damaged, "UPDATE usage SET n_hits = n_hits + 1 WHERE model_id = 1")
    define(damaged, "CREATE TABLE notes (note TEXT, value BLOB, n INTEGER)")  # of somebody's, with such rows
    define(damaged, "CREATE INDEX by_note ON notes (note)")
    change(damaged, "INSERT INTO notes VALUES ('a', x'00', 1)")
    report = repair(damaged, new)
    assert (report.lost, report.n_byte_values) == ((LostRow("byte_values", key="key 5"),), N - 1)
    assert rows(new, "SELECT key, value FROM byte_values WHERE key = 'key 6'") == [("key 6", bytes([6]) * 54)]
    assert rows(new, "SELECT * FROM usage") == rows(damaged, "SELECT * FROM usage WHERE model_id <> 1")


def test_a_sound_file_is_saved_whole_and_left_as_it_is(damaged: Path, new: Path) -> None:
    before, bytes_before = dump(damaged), damaged.read_bytes()
    assert repair(damaged, new) == RepairReport(str(new), 2, 32, 80, 1, N, N, (), 0, may_hold_removed=False)
    assert is_as_before(new, before)
    assert damaged.read_bytes() == bytes_before
    assert sorted(path.name for path in new.parent.iterdir()) == ["repaired.db", "small.db"]
    if os.name == "posix":
        assert stat.S_IMODE(new.stat().st_mode) == 0o600
    with EmbeddingCache(new) as cache:
        assert cache.verify() == []


TREES = ["vectors", "texts", "documents_by_vector", "sqlite_autoindex_vectors_1", "sqlite_autoindex_texts_1"]


@pytest.mark.parametrize("tree", TREES)
def test_a_damaged_tree_costs_no_row(tree: str, damaged: Path, new: Path) -> None:
    before = dump(damaged)
    zero(damaged, page_of(damaged, tree))
    report = repair(damaged, new)
    assert report.may_hold_removed is False
    assert report.lost == ()
    assert is_as_before(new, before)


def test_the_documents_that_were_in_a_damaged_page_are_named(damaged: Path, new: Path) -> None:
    before = dump(damaged)
    zero(damaged, page_of(damaged, "documents"))  # other than in tables with a rowid, pages above others hold rows, too
    report = repair(damaged, new)
    lost = {(row.collection, row.doc_id) for row in report.lost}
    assert {row.table for row in report.lost} == {"documents"}
    assert 0 < len(lost) < 5
    assert dump(new)["documents"] == [row for row in before["documents"] if row[1:3] not in lost]


@pytest.mark.parametrize("n_bytes", [16, 100])
def test_a_damaged_header_costs_no_row_and_brings_back_none(n_bytes: int, damaged: Path, new: Path) -> None:
    before = dump(damaged)
    zero(damaged, slice(0, n_bytes))
    report = repair(damaged, new)
    assert (report.lost, report.may_hold_removed) == ((), False)
    assert is_as_before(new, before)


def test_without_the_first_page_what_was_removed_may_be_back(damaged: Path, new: Path) -> None:
    before = dump(damaged)
    zero(damaged, slice(0, 1024))
    report = repair(damaged, new)
    assert report.may_hold_removed
    after = dump(new)
    assert set(before["vectors"]) < set(after["vectors"])
    assert set(before["documents"]) <= set(after["documents"])


@pytest.mark.parametrize("offset", [35, 39])  # the first free page, and how many there are
def test_where_the_list_of_free_pages_is_damaged_what_was_removed_stays_removed(
    offset: int, damaged: Path, new: Path
) -> None:
    before = dump(damaged)
    flip_bit(damaged, offset)
    assert not repair(damaged, new).may_hold_removed
    assert is_as_before(new, before)


def test_a_damaged_vector_is_named_with_its_documents(damaged: Path, new: Path) -> None:
    before = dump(damaged)
    vector = CountingEncoder().vector("text 3").tobytes()
    flip_bit(damaged, damaged.read_bytes().index(vector) + 5)
    report = repair(damaged, new)
    of_model = {"model": "fake", "content_hash": None}
    assert report.lost == (
        LostRow("vectors", "fake", content_hash("text 3").hex()),
        LostRow("documents", **of_model, collection="", doc_id="doc 6"),
        LostRow("documents", **of_model, collection="", doc_id="doc 7"),
    )
    assert report.n_lost == {"vectors": 1, "documents": 2}
    assert str(report.lost[1]) == "documents doc_id 'doc 6', collection '', model 'fake'"
    assert str(report.lost[0]) == f"vectors model 'fake', {content_hash('text 3').hex()}"
    kept = [row for row in before["documents"] if row[1:3] not in (("", "doc 6"), ("", "doc 7"))]
    assert dump(new)["documents"] == kept
    encoder = CountingEncoder()
    with EmbeddingCache(new) as cache:
        vectors = cache.get_many(["doc 6", "doc 8"], ["text 3", "text 4"], encoder)
        assert np.array_equal(vectors, encoder.vectors(["text 3", "text 4"]))
        assert encoder.calls == [["text 3"]]


def test_a_damaged_document_is_named_and_its_vector_is_kept(damaged: Path, new: Path) -> None:
    change(damaged, "UPDATE documents SET checksum = checksum + 1 WHERE doc_id = 'doc 6' AND collection = ''")
    report = repair(damaged, new)
    assert report.lost == (LostRow("documents", "fake", None, "", "doc 6"),)
    assert report.n_vectors == 32


def test_a_document_whose_id_can_nowhere_be_read_is_counted(tmp_path: Path, new: Path) -> None:
    path = tmp_path / "embeddings.db"
    with EmbeddingCache(path) as cache:  # ids that overflow the pages of the table and of its index
        cache.get_many(["x" * 100_000, "b"], ["one", "two"], CountingEncoder())
    content = path.read_bytes()
    assert content.count(b"x" * 50_000) == 2
    path.write_bytes(content.replace(b"x" * 50_000, b"\xff" * 50_000))
    report = repair(path, new)
    assert (report.ok, report.lost, report.n_documents, report.n_vectors) == (False, (LostRow("documents"),), 1, 2)


def test_a_document_keeps_its_content_whatever_vector_it_points_at(damaged: Path, new: Path) -> None:
    before = dump(damaged)
    change(damaged, "UPDATE documents SET vector_id = 1 WHERE doc_id = 'doc 6' AND collection = ''")
    assert repair(damaged, new).lost == ()
    assert is_as_before(new, before)


def test_of_a_damaged_model_the_vectors_are_kept_and_the_canary_is_written_anew(damaged: Path, new: Path) -> None:
    ((canary,),) = rows(damaged, "SELECT canary FROM models WHERE model_name = 'fake'")
    flip_bit(damaged, damaged.read_bytes().index(canary) + 3)
    before, encoder = dump(damaged), CountingEncoder()
    assert repair(damaged, new).lost == (LostRow("canaries", "fake"),)
    assert [dump(new)[table] for table in ("vectors", "documents")] == [before["vectors"], before["documents"]]
    with EmbeddingCache(new) as cache:
        cache.get("doc 6", "text 3", encoder)
        assert cache.verify() == []
    assert rows(new, "SELECT canary FROM models WHERE model_name = 'fake'") == [(canary,)]


@pytest.mark.parametrize("column", ["model_name", "settings"])
def test_a_model_whose_row_and_index_differ_is_lost_with_all_that_is_its(column: str, damaged: Path, new: Path) -> None:
    ((rowid, name, settings),) = rows(damaged, "SELECT model_id, model_name, settings FROM models WHERE model_id = 1")
    data = damaged.read_bytes()
    row = data.index(f"{name}{settings}".encode() + b"\x08float32")
    flip_bit(damaged, row + (0 if column == "model_name" else len(name)), 1)
    report = repair(damaged, new)
    assert report.n_lost == {"models": 1, "vectors": 31, "documents": 80}
    assert report.lost[0] == LostRow("models", f"model_id {rowid}")
    assert rows(new, "SELECT model_name FROM models") == [("other",)]


def test_lost_texts_are_named_and_the_others_are_found(damaged: Path, new: Path) -> None:
    change(damaged, "UPDATE texts SET text = 'text 0' WHERE doc_id = 'doc 5'")
    assert repair(damaged, new).lost == (LostRow("texts", collection="notes", doc_id="doc 5"),)
    with EmbeddingCache(new) as cache:
        texts = cache.store.texts
        assert len(texts.read("notes", texts.text_ids("notes"))) == N - 1


def test_texts_of_a_lost_collection_are_named(damaged: Path, new: Path) -> None:
    change(damaged, "UPDATE collections SET checksum = 0")
    report = repair(damaged, new)
    assert report.lost[0] == LostRow("collections", collection="notes")
    assert (report.n_lost, report.n_texts) == ({"collections": 1, "texts": N}, 0)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_is_saved_in_that_of_today(version: int, tmp_path: Path, new: Path) -> None:
    old = tmp_path / "old.db"
    old.write_bytes((GOLDEN / f"schema_{version}.db").read_bytes())
    assert repair(old, new).lost == ()
    with EmbeddingCache(old):  # migrates it
        pass
    assert is_as_before(new, dump(old))


def test_a_page_that_was_written_to_two_places_brings_no_damaged_row(damaged: Path, new: Path) -> None:
    before, data = dump(damaged), bytearray(damaged.read_bytes())
    encoder = CountingEncoder()
    one, other = (data.index(encoder.vector(text).tobytes()) for text in ("text 3", "text 20"))
    page, target = one // 1024 * 1024, other // 1024 * 1024
    assert page != target
    data[target : target + 1024] = data[page : page + 1024]
    data[one] ^= 1
    damaged.write_bytes(data)
    report = repair(damaged, new)
    assert content_hash("text 20").hex() in {row.content_hash for row in report.lost}
    assert content_hash("text 3").hex() not in {row.content_hash for row in report.lost}
    after = {row[1:] for row in dump(new)["vectors"]}
    assert after < {row[1:] for row in before["vectors"]}


def test_of_a_file_that_was_cut_off_the_rest_is_saved(damaged: Path, new: Path) -> None:
    before, data = dump(damaged), damaged.read_bytes()
    damaged.write_bytes(data[: len(data) - 10 * 1024 - 5])
    report = repair(damaged, new)
    assert report.n_missing_pages == 10
    assert not report.ok
    after = dump(new)
    assert all(set(after[table]) <= set(before[table]) for table in ("vectors", "byte_values"))
    assert any(len(after[table]) < len(before[table]) for table in ("vectors", "texts", "byte_values"))


def test_of_two_rows_with_one_key_neither_is_kept(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "new.db")) as store, store.writing() as connected:
        carried = CarriedRows(connected)
        carried.put_model((1, "fake", "{}", 1, "float32", None, "2026-01-01T00:00:00+00:00", 0))
        first, second = (bytes(32), 1, 0, 7, bytes(4)), (bytes(32), 1, 0, 8, b"\x01\0\0\0")
        key = (1, bytes(32))
        carried.put("vectors", (1, 1, *first), key, first[2:])
        carried.put("vectors", (2, 1, *first), key, first[2:])
        assert carried.has("vectors", key)
        carried.put("vectors", (3, 1, *second), key, second[2:])
        carried.put("vectors", (4, 1, *first), key, first[2:])
        assert not carried.has("vectors", key)


def test_what_was_not_committed_is_undone_in_the_new_file_alone(damaged: Path, new: Path) -> None:
    before = dump(damaged)
    code = (
        "import os, sqlite3, sys\n"
        "connected = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connected.execute('PRAGMA cache_size = 1')\n"
        "connected.execute('BEGIN IMMEDIATE')\n"
        "connected.execute('DELETE FROM documents')\n"
        "connected.execute('DELETE FROM texts')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(damaged)], check=True)
    journal = damaged.with_name(f"{damaged.name}-journal")
    left = damaged.read_bytes(), journal.read_bytes()
    assert repair(damaged, new).lost == ()
    assert is_as_before(new, before)
    assert (damaged.read_bytes(), journal.read_bytes()) == left


def test_a_cache_of_this_process_keeps_its_locks(damaged: Path, new: Path) -> None:
    code = (
        "import sqlite3, sys\n"
        "try:\n"
        "    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')\n"
        "except sqlite3.OperationalError as error:\n"
        "    sys.stdout.write(str(error))\n"
    )
    with EmbeddingCache(damaged) as cache, cache.store.writing():
        repair(damaged, new)
        told = subprocess.run([sys.executable, "-c", code, str(damaged)], check=True, capture_output=True, text=True)
        assert told.stdout == "database is locked"


def test_a_file_that_is_being_written_is_waited_for(damaged: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embstore.repairing.TIMEOUT_S", 0.0)
    with connection(damaged, "rw") as writer:
        writer.isolation_level = None
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusyError, match=r"small\.db"):
            repair(damaged, new)
        writer.execute("ROLLBACK")
    assert not new.exists()


def test_nobody_commits_while_the_file_is_copied(damaged: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = subprocess.run

    def write_and_copy(*arguments: Any, **options: Any) -> Any:
        with closing(sqlite3.connect(damaged, timeout=0, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM texts")
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                writer.execute("COMMIT")
            writer.execute("ROLLBACK")
        return copy(*arguments, **options)

    monkeypatch.setattr("embstore.repairing.subprocess.run", write_and_copy)
    assert repair(damaged, new).ok


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_nothing_that_is_there_is_replaced(suffix: str, damaged: Path, new: Path) -> None:
    there = new.with_name(new.name + suffix)
    there.write_bytes(b"mine")
    with pytest.raises(StorePathError, match="is there already; give a path where nothing is"):
        repair(damaged, new)
    assert there.read_bytes() == b"mine"


def test_what_appears_meanwhile_is_not_replaced(damaged: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def appear(path: Path) -> None:
        new.write_bytes(b"mine")

    monkeypatch.setattr("embstore.repairing._check_sound", appear)
    with pytest.raises(StorePathError, match="is there already"):
        repair(damaged, new)
    assert new.read_bytes() == b"mine"


@pytest.mark.parametrize("content", [b"", b"no database", bytes(100_000), b"\x0d" * 70_000, b"\xff" * 70_000])
def test_a_file_of_which_nothing_is_left_makes_no_new_one(content: bytes, tmp_path: Path, new: Path) -> None:
    ruin = tmp_path / "ruin.db"
    ruin.write_bytes(content)
    with pytest.raises(DamagedStoreError, match="nothing can be kept"):
        repair(ruin, new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ruin.db"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path, new: Path) -> None:
    with pytest.raises(StorePathError, match=r"missing\.db.*is no file"):
        repair(tmp_path / "missing.db", new)
    with pytest.raises(InvalidTypeError):
        repair(None, new)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_wal_mode_is_saved_with_what_is_in_its_wal(damaged: Path, new: Path) -> None:
    with connection(damaged, "rw") as writer:
        writer.isolation_level = None
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE encodings SET seconds = seconds WHERE 0")
        with connection(damaged, "rw") as other:
            other.execute("DELETE FROM documents WHERE doc_id = 'doc 6'")
            other.commit()
            assert repair(damaged, new).n_documents == 78
    assert sqlite3.sqlite_version_info >= (3, 37)
