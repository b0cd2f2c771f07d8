"""What is opened, what is refused with its bytes as they were, and what a new file is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    EmbstoreError,
    InvalidInputError,
    InvalidTypeError,
    NewerStoreError,
    NotAStoreError,
    ReadOnlyError,
    StoreError,
    StoreFullError,
    StorePathError,
    UnsafeStoreError,
)
from embstore.stores import opening
from embstore.stores.companions import check_companions
from embstore.stores.filesystem import network_filesystem
from embstore.stores.sqlite_errors import sqlite3
from tests.fakes import CountingEncoder, HookedEncoder
from tests.files import define, dump, rows

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and signals")


@pytest.fixture
def made(cache_path: Path, encoder: CountingEncoder) -> Path:
    """A closed file with three documents."""
    with EmbeddingCache(cache_path) as cache:
        cache.get_many(["a", "b", "c"], ["one", "two", "three"], encoder)
    return cache_path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, byte by byte; nobody may have one open."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- new files ------------------------------------------------------------------------------


@posix
def test_a_new_file_is_for_its_owner_alone(cache: EmbeddingCache) -> None:
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600


def test_nothing_lies_beside_the_file_at_rest(cache_path: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
        assert cache.verify() == []
        assert [file.name for file in cache_path.parent.iterdir()] == [cache_path.name]
    assert [file.name for file in cache_path.parent.iterdir()] == [cache_path.name]


def test_missing_folders_are_made(tmp_path: Path, encoder: CountingEncoder) -> None:
    path = tmp_path / "new" / "folders" / "embeddings.db"
    with EmbeddingCache(path) as cache:
        cache.get("a", "text", encoder)
        assert cache.verify() == []
    assert path.is_file()


@pytest.mark.parametrize("name", ["a b.db", "a?mode=ro.db", "50%.db", "#1.db", "größer 🙂.db", "no suffix", "'\".db"])
def test_any_file_name_works(name: str, tmp_path: Path, encoder: CountingEncoder) -> None:
    for _ in range(2):
        with EmbeddingCache(tmp_path / name) as cache:
            cache.get("a", "text", encoder)
            assert cache.verify() == []
    assert encoder.n_texts == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_relative_path_stays_what_it_was_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: CountingEncoder
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with EmbeddingCache("embeddings.db") as cache:
        monkeypatch.chdir(tmp_path / "elsewhere")
        cache.get("a", "text", encoder)
        assert cache.stats().n_documents == 1
        assert cache.path == tmp_path / "embeddings.db"
        assert cache.verify() == []


@posix
def test_a_link_leads_to_its_file(made: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(made)
    with EmbeddingCache(link) as cache:
        assert (len(cache), cache.verify()) == (3, [])


def test_the_connection_is_set_up_for_safety(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    pragmas = ("synchronous", "journal_mode", "foreign_keys", "trusted_schema", "cell_size_check", "mmap_size")
    with cache._store.writing() as connection:  # type: ignore[attr-defined]
        found = [connection.execute(f"PRAGMA {pragma}").fetchone() for pragma in pragmas]
    assert found == [(3,), ("delete",), (1,), (0,), (1,), (0,)]


# --- refused, bytes untouched ---------------------------------------------------------------


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"These are not the bytes of a database. " * 100)


def short(path: Path) -> None:
    path.write_bytes(b"a note\n")  # a file of one single byte is an empty one to SQLite


def another_applications(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE books (title TEXT)")
        connection.execute("INSERT INTO books VALUES ('one')")
    connection.close()


def another_application_id(path: Path) -> None:
    another_applications(path)
    define(path, "PRAGMA application_id = 252006674")


def of_ours(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with EmbeddingCache(path) as cache:
            cache.get("a", "text", CountingEncoder())
        for statement in statements:
            define(path, statement)

    return make


def new_file(*statements: str) -> Callable[[Path], None]:
    """A file without tables but that of sqlite-utils."""

    def make(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, "
                "applied_at TEXT)"
            )
            for statement in statements:
                connection.execute(statement)

    return make


REFUSED: dict[str, tuple[Callable[[Path], None], type[StoreError], str]] = {
    "not SQLite": (not_sqlite, NotAStoreError, "not an SQLite database"),
    "a short text": (short, NotAStoreError, "not an SQLite database"),
    "another application's": (another_applications, NotAStoreError, "another application"),
    "another application_id": (another_application_id, NotAStoreError, "another application.*252006674"),
    "another application_id and our tables": (of_ours("PRAGMA application_id = 1"), NotAStoreError, "another app"),
    "no application_id and our tables": (of_ours("PRAGMA application_id = 0"), NotAStoreError, "another app"),
    "a newer version": (of_ours("PRAGMA user_version = 99"), NewerStoreError, "version 99.*upgrade embstore"),
    "no version": (of_ours("PRAGMA user_version = 0"), NotAStoreError, "changed"),
    "a negative version": (of_ours("PRAGMA user_version = -1"), NotAStoreError, "changed"),
    "a trigger": (
        of_ours("CREATE TRIGGER sneaky AFTER INSERT ON vectors BEGIN DELETE FROM documents; END"),
        NotAStoreError,
        "trigger.*'sneaky'.*drop it",
    ),
    "a trigger on the view": (
        of_ours("CREATE TRIGGER sneaky INSTEAD OF DELETE ON embeddings BEGIN DELETE FROM vectors; END"),
        NotAStoreError,
        "trigger.*'sneaky'",
    ),
    "a trigger elsewhere": (
        of_ours("CREATE TABLE n (x)", "CREATE TRIGGER sneaky AFTER INSERT ON n BEGIN SELECT 1; END"),
        NotAStoreError,
        "trigger.*'sneaky'",
    ),
    "a trigger whose type is written otherwise": (
        of_ours(
            "CREATE TRIGGER sneaky AFTER INSERT ON vectors BEGIN DELETE FROM documents; END",
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET type = 'Trigger' WHERE name = 'sneaky'",
        ),
        NotAStoreError,
        "trigger.*'sneaky'",
    ),
    "a trigger on the migrations of a file without tables": (
        new_file(
            "CREATE TRIGGER idx__sqlite_migrations_migration_set_name AFTER INSERT ON _sqlite_migrations "
            "BEGIN DELETE FROM _sqlite_migrations; END"
        ),
        NotAStoreError,
        "trigger",
    ),
    "migrations that were never run": (
        new_file(
            "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('embstore', 'm001_initial'), "
            "('embstore', 'm002_speeds_and_texts'), ('embstore', 'm003_float16'), "
            "('embstore', 'm004_bytes_and_usage'), ('embstore', 'm005_leases')"
        ),
        NotAStoreError,
        "list of migrations.*restore",
    ),
    "an index on an expression": (of_ours("CREATE INDEX i ON vectors (-dim)"), NotAStoreError, "expression.*'i'"),
    "a partial index": (of_ours("CREATE INDEX i ON vectors (dim) WHERE dim > 8"), NotAStoreError, "expression.*'i'"),
    "a table that is deleted from with ours": (
        of_ours("CREATE TABLE n (x REFERENCES vectors ON DELETE CASCADE)"),
        NotAStoreError,
        "refers to one of ours.*'n'",
    ),
    "a column more": (of_ours("ALTER TABLE models ADD COLUMN note TEXT"), NotAStoreError, "changed"),
    "a column renamed": (of_ours("ALTER TABLE documents RENAME COLUMN checksum TO c"), NotAStoreError, "changed"),
    "a missing index": (of_ours("DROP INDEX documents_by_vector"), NotAStoreError, "changed"),
    "a missing view": (of_ours("DROP VIEW embeddings"), NotAStoreError, "changed"),
    "a missing table": (of_ours("DROP VIEW embeddings", "DROP TABLE documents"), NotAStoreError, "changed"),
    "another view": (
        of_ours("DROP VIEW embeddings", "CREATE VIEW embeddings AS SELECT 1 AS doc_id"),
        NotAStoreError,
        "changed",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_not_ours_is_refused_with_its_bytes_as_they_were(
    kind: str, cache_path: Path, tmp_path: Path
) -> None:
    make, error, message = REFUSED[kind]
    make(cache_path)
    before, changed_at = contents(tmp_path), cache_path.stat().st_mtime_ns
    with pytest.raises(error, match=message) as caught:
        EmbeddingCache(cache_path)
    assert caught.value.path == str(cache_path)
    assert contents(tmp_path) == before
    assert cache_path.stat().st_mtime_ns == changed_at


@posix
@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_a_pipe_beside_a_file_is_not_waited_for(suffix: str, made: Path) -> None:
    os.mkfifo(f"{made}{suffix}")
    with pytest.raises(StorePathError, match=f"{suffix}' is no file.*take it away"):
        EmbeddingCache(made)


def test_a_journal_that_another_process_takes_away_while_it_is_looked_at_is_no_error(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, exists = made.with_name(f"{made.name}-journal"), Path.exists
    journal.touch()

    def exists_for_the_last_time(path: Path) -> bool:
        there = exists(path)
        if path == journal:
            journal.unlink(missing_ok=True)
        return there

    monkeypatch.setattr(Path, "exists", exists_for_the_last_time)
    check_companions(made)


def test_a_journal_that_would_have_sqlite_delete_a_file_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "embeddings.db-journal").write_bytes(bytes(512) + bytes.fromhex("d9d505f920a163d7"))
    before = contents(tmp_path)
    with pytest.raises(UnsafeStoreError, match=r"several files.*delete a file"):
        EmbeddingCache(made)
    assert contents(tmp_path) == before


def test_a_folder_is_refused_with_a_path_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(StorePathError, match=r"not a file.*embeddings\.db"):
        EmbeddingCache(tmp_path)
    assert contents(tmp_path) == {}


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorePathError, match="file"):
        EmbeddingCache(tmp_path / "file" / "embeddings.db")
    assert contents(tmp_path) == {"file": b"x"}


@posix
def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(StorePathError):
        EmbeddingCache(link)
    assert [file.name for file in tmp_path.iterdir()] == ["link.db"]


@pytest.mark.parametrize("path", [":memory:", "", "a\0b"])
def test_what_names_no_file_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorePathError, match="temporary file"):
        EmbeddingCache(path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("path", [None, 1, b"embeddings.db"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidTypeError, match=type(path).__name__):
        EmbeddingCache(path)


@pytest.mark.parametrize(
    ("timeout_s", "error"),
    [("1", InvalidTypeError), (None, InvalidTypeError), (-1, InvalidInputError), (float("nan"), InvalidInputError)],
)
def test_a_wait_that_is_no_number_of_seconds_is_refused_before_a_file_is_made(
    timeout_s: Any, error: type[EmbstoreError], cache_path: Path
) -> None:
    with pytest.raises(error, match="timeout_s"):
        EmbeddingCache(cache_path, timeout_s=timeout_s)
    assert not cache_path.exists()


@pytest.mark.parametrize(
    ("refused", "error", "message"),
    [
        (errno.EACCES, StorePathError, r"cannot be created: Refused.*can be written"),
        (errno.ENOSPC, StoreFullError, r"no room to create .*free some"),
    ],
)
def test_a_file_that_cannot_be_created_is_told(
    refused: int, error: type[StoreError], message: str, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if str(path) == str(cache_path):
            raise OSError(refused, "Refused", str(path))
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(opening.os, "open", refuse)
    with pytest.raises(error, match=message):
        EmbeddingCache(cache_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(StorePathError, match="cannot be created"):
        EmbeddingCache(folder / "embeddings.db")


def test_an_sqlite_that_is_too_old_is_told(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MINIMUM_SQLITE", (99, 0, 0))
    with pytest.raises(UnsafeStoreError, match=r"too old.*pysqlite3"):
        EmbeddingCache(cache_path)
    assert not cache_path.exists()


# --- read-only ------------------------------------------------------------------------------


@pytest.fixture
def read_only(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file as it is for a user who may only read it, also where root runs the tests."""
    monkeypatch.setattr(opening.os, "access", lambda path, mode: not mode & os.W_OK)
    return made


def test_a_file_that_can_only_be_read_answers_hits_without_recording_them(
    read_only: Path, encoder: CountingEncoder
) -> None:
    before = dump(read_only)
    with EmbeddingCache(read_only) as cache:
        second = CountingEncoder()
        assert np.array_equal(cache.get("new id", "one", second), encoder.vector("one"))
        assert np.array_equal(cache.embed(["two", "one"], second), encoder.vectors(["two", "one"]))
        assert sorted(cache.matrix("fake")[0]) == ["a", "b", "c"]
        assert (second.calls, len(cache), cache.verify()) == ([], 3, [])
    assert dump(read_only) == before


def test_a_miss_in_a_file_that_can_only_be_read_is_told_before_the_model_is_called(read_only: Path) -> None:
    encoder = CountingEncoder()
    with EmbeddingCache(read_only) as cache:
        with pytest.raises(ReadOnlyError, match=r"1 of 2 texts are not in it \(the first: 'new'\)"):
            cache.embed(["one", "new"], encoder)
        with pytest.raises(ReadOnlyError):
            cache.get("a", "one", encoder, model_name="another model")
    assert (encoder.calls, encoder.n_canaries) == ([], 0)


WRITES: dict[str, Callable[[EmbeddingCache], object]] = {
    "put_many": lambda cache: cache.put_many(["a"], ["one"], np.ones((1, 8)), model_name="fake"),
    "invalidate": lambda cache: cache.invalidate("a"),
    "clear": lambda cache: cache.clear(),
    "clear a model": lambda cache: cache.clear(model_name="fake"),
    "clear a collection": lambda cache: cache.clear(collection=""),
    "prune": lambda cache: cache.prune(),
    "rename_model": lambda cache: cache.rename_model("fake", "new"),
    "compact": lambda cache: cache.compact(),
}


@pytest.mark.parametrize("write", WRITES)
def test_nothing_can_be_changed_in_a_file_that_can_only_be_read(write: str, read_only: Path) -> None:
    before = read_only.read_bytes()
    with EmbeddingCache(read_only) as cache:
        with pytest.raises(ReadOnlyError, match="can only be read"):
            WRITES[write](cache)
        assert cache.prune(dry_run=True).n_vectors == 0
    assert read_only.read_bytes() == before


def test_a_new_file_where_nothing_can_be_written_is_no_cache(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_path.touch()
    monkeypatch.setattr(opening.os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ReadOnlyError, match="needs the migration"):
        EmbeddingCache(cache_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_the_permissions_of_a_file_decide(made: Path) -> None:
    made.chmod(0o400)
    with EmbeddingCache(made) as cache:
        assert cache.get("a", "one", CountingEncoder()).shape == (8,)
        with pytest.raises(ReadOnlyError):
            cache.clear()


# --- what a process that was killed left -----------------------------------------------------


def test_a_journal_in_which_nothing_was_yet_is_taken_away(made: Path, tmp_path: Path) -> None:
    """SQLite has nothing to roll back then, and leaves the journal where it is until the next write."""
    before = dump(made)
    made.with_name(f"{made.name}-journal").write_bytes(bytes(512))
    with EmbeddingCache(made) as cache:
        assert (len(cache), cache.verify()) == (3, [])
    assert [file.name for file in tmp_path.iterdir()] == [made.name]
    assert dump(made) == before


def test_a_journal_that_cannot_be_taken_away_prevents_no_reading(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    made.with_name(f"{made.name}-journal").write_bytes(bytes(512))
    monkeypatch.setattr(opening, "immediate", full)
    with EmbeddingCache(made) as cache:
        assert len(cache) == 3


def test_the_journal_of_somebody_who_writes_is_left_alone_and_not_waited_for(made: Path) -> None:
    journal = made.with_name(f"{made.name}-journal")
    with EmbeddingCache(made) as writer, writer.store.writing():
        writer.invalidate("a")
        before = journal.read_bytes()
        with EmbeddingCache(made, timeout_s=0) as cache:
            assert len(cache) == 3
        assert journal.read_bytes() == before


# --- WAL ------------------------------------------------------------------------------------


@pytest.fixture
def wal(made: Path) -> Path:
    """A file that somebody put in WAL mode; closed."""
    define(made, "PRAGMA journal_mode = WAL")
    return made


def test_a_wal_file_is_refused_with_the_cure_on_an_affected_sqlite(
    wal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "wal_is_fixed", lambda version: False)
    before = contents(tmp_path)
    with pytest.raises(UnsafeStoreError, match=r"WAL mode.*sqlite3 .*PRAGMA journal_mode=DELETE"):
        EmbeddingCache(wal)
    assert contents(tmp_path) == before


def test_the_cure_makes_a_wal_file_usable(wal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "wal_is_fixed", lambda version: False)
    define(wal, "PRAGMA journal_mode = DELETE")
    with EmbeddingCache(wal) as cache:
        assert (len(cache), cache.verify()) == (3, [])


def test_a_wal_file_is_used_and_stays_one_on_a_fixed_sqlite(
    wal: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "wal_is_fixed", lambda version: True)
    with EmbeddingCache(wal) as cache:
        cache.get("new", "new", encoder)
        assert (len(cache), cache.verify()) == (4, [])
    assert rows(wal, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.0", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.52.0", True),
        ("3.53.0", True),
    ],
)
def test_the_versions_with_the_fix_of_wal_are_known(version: str, fixed: bool) -> None:
    assert opening.wal_is_fixed(tuple(map(int, version.split(".")))) == fixed


# --- network file systems -------------------------------------------------------------------


def test_a_network_file_system_is_refused_unless_allowed(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: CountingEncoder
) -> None:
    monkeypatch.setattr(opening, "network_filesystem", lambda path: "nfs4")
    with pytest.raises(UnsafeStoreError, match=r"nfs4.*allow_network_filesystem=True"):
        EmbeddingCache(cache_path)
    assert not cache_path.exists()
    with EmbeddingCache(cache_path, allow_network_filesystem=True) as cache:
        cache.get("a", "text", encoder)
        assert cache.verify() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's table of mounts")
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/embeddings.db", None),
        ("/data/share/embeddings.db", "nfs4"),
        ("/data/share", "nfs4"),
        ("/data/sharex/embeddings.db", None),
        ("/data/share/local/embeddings.db", None),
        ("/data/with space/x.db", "cifs"),
        ("/data/s3/x.db", "fuse.s3fs"),
        ("/data/fuse/x.db", None),
        ("/data/over/x.db", "nfs4"),
    ],
)
def test_the_innermost_mount_of_a_path_decides(path: str, kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [
        ("/", "ext4"),
        ("/data/share", "nfs4"),
        ("/data/share/local", "ext4"),
        ("/data/with\\040space", "cifs"),
        ("/data/s3", "fuse.s3fs"),
        ("/data/fuse", "fuse.ntfs"),
        ("/data/over", "ext4"),
        ("/data/over", "nfs4"),
    ]
    table = "".join(f"30 1 0:1 / {point} rw,relatime shared:1 - {kind} source rw\n" for point, kind in mounts)
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, **options: table if self.name == "mountinfo" else real(self, **options)
    )
    assert network_filesystem(Path(path)) == kind


# --- after a crash --------------------------------------------------------------------------

CRASH = """
import os
import signal
import sys

import numpy as np

from embstore import EmbeddingCache
from embstore.codec import vectors_to_blobs

with EmbeddingCache(sys.argv[1]) as cache:
    for i in range(5):
        cache.put_many([f"acknowledged {i}"], [f"text {i}"], np.full((1, 4), float(i)), model_name="m")
    print("acknowledged", flush=True)
    with cache._store.writing() as connection:
        connection.execute("PRAGMA cache_size = 2")  # so that the file itself is written before the commit
        connection.execute("DELETE FROM documents")
        ids = [f"lost {i}" for i in range(2000)]
        cache.put_many(ids, ids, np.ones((2000, 64)), model_name="never committed")
        print("written", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_a_transaction_that_a_kill_interrupted_is_rolled_back_on_opening(made: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(made)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "acknowledged\nwritten\n"), done.stderr
    assert sorted(contents(tmp_path)) == [made.name, f"{made.name}-journal"]
    assert b"never committed" in made.read_bytes()
    with EmbeddingCache(made) as cache:
        ids, vectors = cache.matrix("m")
        assert (ids, vectors[:, 0].tolist()) == ([f"acknowledged {i}" for i in range(5)], [0, 1, 2, 3, 4])
        assert (len(cache), cache.verify()) == (8, [])
    assert sorted(contents(tmp_path)) == [made.name]


@posix
def test_a_commit_that_a_kill_interrupted_when_only_the_header_was_written_is_rolled_back(cache_path: Path) -> None:
    ids = [f"doc {i}" for i in range(2000)]
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        cache.put_many(ids, ids, np.ones((2000, 768)), model_name="m")
    script = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 8")
connection.execute("BEGIN IMMEDIATE")
for vector_id in range(1, 2001):
    connection.execute(
        "UPDATE vectors SET vector = CAST(vector || vector AS BLOB) WHERE vector_id = ?", (vector_id,)
    )
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(cache_path)], timeout=60)
    torn = bytearray(cache_path.read_bytes())
    torn[28:32] = (len(torn) // 65536 + 100).to_bytes(4, "big")  # the pages that the commit would have written next
    cache_path.write_bytes(torn)
    with EmbeddingCache(cache_path) as cache:
        assert sorted(cache.matrix("m")[0]) == sorted(ids)
        assert cache.verify() == []


@posix
def test_the_journal_of_another_applications_file_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    script = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA application_id = 7")
connection.execute("CREATE TABLE t (x)")
connection.execute("PRAGMA cache_size = 2")
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?)", [(bytes(5000),)] * 500)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)
    before = contents(tmp_path)
    assert sorted(before) == ["theirs.db", "theirs.db-journal"]
    with pytest.raises(NotAStoreError, match="another application"):
        EmbeddingCache(path)
    assert contents(tmp_path) == before


def test_a_copy_taken_at_rest_is_a_cache(made: Path, tmp_path: Path, encoder: CountingEncoder) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(made, copy)
    with EmbeddingCache(copy) as cache:
        encoder.calls.clear()
        cache.get_many(["a", "b", "c"], ["one", "two", "three"], encoder)
        assert (encoder.calls, cache.verify()) == ([], [])


def test_a_file_that_is_removed_while_it_is_open_harms_nothing_else(cache_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("Windows removes no open file")

    def remove(texts: list[str]) -> None:
        cache_path.unlink()

    with EmbeddingCache(cache_path) as cache:
        encoder = HookedEncoder(remove)
        try:
            vectors = cache.embed(["text"], encoder)
        except StoreError:
            return
        assert np.array_equal(vectors, encoder.vectors(["text"]))
