"""Opening a server: what must be as it is, who may do what, and what is said where something is wrong."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pytest

from embstore import (
    EmbeddingCache,
    EmbstoreError,
    MissingExtraError,
    NewerStoreError,
    NotAFileError,
    NotAStoreError,
    ReadOnlyError,
    ServerUnreachableError,
    StoreBusyError,
    StorePathError,
    TooManyConnectionsError,
    UnsafeStoreError,
    repair,
)
from tests.fakes import CountingEncoder
from tests.postgres import new_schema

pytest.importorskip("psycopg", reason="needs the extra postgres")

import psycopg

from embstore.stores.postgres.schema import SCHEMA_VERSION, TABLES

PASSWORD = "s3cret/password@1?"


def changed(url: str, **parts: Any) -> str:
    return urlunsplit(urlsplit(url)._replace(**parts))


def with_netloc(url: str, user: str | None = None, password: str | None = None, port: int | None = None) -> str:
    parts = urlsplit(url)
    place = f"{parts.hostname}:{port or parts.port}"
    return changed(url, netloc=f"{user or parts.username}:{password or parts.password}@{place}")


def execute(url: str, *statements: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def schema_of(url: str) -> str:
    return str(execute(url, "SELECT current_schema()")[0][0])


def put_one(url: str, name: str, ready: Any, failed: Any) -> None:
    try:
        ready.wait()
        with EmbeddingCache(url) as cache:
            cache.put_many([name], [name], np.ones((1, 4), np.float32), model_name="m")
    except BaseException as error:
        failed.put(repr(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_schema_is_made_once_by_whoever_comes_first(postgres_url: str) -> None:
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") and sys.platform == "linux" else "spawn")
    ready, failed = context.Barrier(8), context.SimpleQueue()
    processes = [context.Process(target=put_one, args=(postgres_url, f"{i}", ready, failed)) for i in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert failed.empty(), failed.get()
    with EmbeddingCache(postgres_url) as cache:
        assert (len(cache), cache.verify()) == (8, [])
    versions = execute(postgres_url, "SELECT version FROM embstore_migrations ORDER BY version")
    assert [version for (version,) in versions] == list(range(SCHEMA_VERSION + 1))


def test_what_was_begun_is_migrated_to_the_end_and_what_is_newer_is_refused(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE embstore_migrations (version INTEGER PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())",
        "INSERT INTO embstore_migrations (version) VALUES (0)",
    )
    with EmbeddingCache(postgres_url) as cache:
        cache.put_many(["a"], ["text"], np.ones((1, 4), np.float32), model_name="m")
        execute(postgres_url, "INSERT INTO embstore_migrations (version) VALUES (99)")
        with pytest.raises(NewerStoreError, match="99"):  # also where it was opened before
            cache.put_many(["b"], ["text"], np.ones((1, 4), np.float32), model_name="m")
        assert len(cache) == 1
    with pytest.raises(NewerStoreError, match="upgrade embstore"):
        EmbeddingCache(postgres_url)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE documents (id INTEGER, body TEXT)"],
        ["CREATE VIEW embeddings AS SELECT 1 AS id"],
        ["CREATE TABLE embstore_migrations (id INTEGER)"],
    ],
)
def test_tables_of_others_are_left_alone(postgres_url: str, statements: list[str]) -> None:
    execute(postgres_url, *statements)
    with pytest.raises(NotAStoreError, match="not the one that embstore makes"):
        EmbeddingCache(postgres_url)
    count = (
        "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')"
    )
    assert execute(postgres_url, count) == [(1,)]


@pytest.mark.parametrize(
    "change", ["DROP TABLE usage", "ALTER TABLE vectors RENAME vector TO v", "DROP VIEW embeddings"]
)
def test_a_changed_table_is_refused_and_other_tables_are_ignored(postgres_url: str, change: str) -> None:
    EmbeddingCache(postgres_url).close()
    execute(postgres_url, "CREATE TABLE others (id INTEGER)")
    EmbeddingCache(postgres_url).close()
    execute(postgres_url, change)
    with pytest.raises(NotAStoreError):
        EmbeddingCache(postgres_url)


def test_the_columns_that_are_expected_are_those_of_the_migrations(postgres_url: str) -> None:
    EmbeddingCache(postgres_url).close()
    columns = execute(
        postgres_url,
        "SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns "
        "WHERE table_schema = current_schema() GROUP BY table_name",
    )
    assert dict(columns) == TABLES


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server_url: str) -> None:
    name = f"embstore_latin_{secrets.token_hex(4)}"
    execute(
        postgres_server_url,
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    try:
        with pytest.raises(UnsafeStoreError, match=r"LATIN1.*ENCODING 'UTF8'"):
            EmbeddingCache(changed(postgres_server_url, path=f"/{name}"))
    finally:
        execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def failing(postgres_server_url: str) -> dict[str, tuple[str, type[EmbstoreError]]]:
    """URLs that cannot be opened, each with the secret password in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = postgres_server_url
    quoted = "s3cret%2Fpassword%401%3F"
    nobody = with_netloc(url, password=quoted)
    return {
        "nobody listens": (with_netloc(nobody, port=port), ServerUnreachableError),
        "no such host": (nobody.replace("127.0.0.1", "nowhere.invalid"), ServerUnreachableError),
        "wrong password": (nobody, ServerUnreachableError),
        "no such user": (with_netloc(url, user="nobody_here", password=quoted), ServerUnreachableError),
        "no such database": (f"{changed(url, path='/nothing')}?sslpassword={quoted}", StorePathError),
        "no such schema": (f"{url}?options=-csearch_path%3Dnothing&sslpassword={quoted}", NotAStoreError),
    }


@pytest.mark.parametrize(
    "case",
    ["nobody listens", "no such host", "wrong password", "no such user", "no such database", "no such schema"],
)
def test_what_cannot_be_opened_says_why_at_once_and_tells_no_secret(
    failing: dict[str, tuple[str, type[EmbstoreError]]], case: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, kind = failing[case]
    caplog.set_level(logging.DEBUG)
    with pytest.raises(kind) as caught:
        EmbeddingCache(url)
    assert caught.value.path.startswith("postgresql://")
    secrets_told = [PASSWORD, "s3cret", urlsplit(url).password or PASSWORD]
    shown = ["".join(traceback.format_exception(caught.value)), repr(caught.value.facts), caplog.text]
    frames = traceback.walk_tb(caught.value.__traceback__)
    ours = [frame.f_locals for frame, _ in frames if "embstore" in frame.f_code.co_filename]
    assert ours
    assert not any(secret in text for secret in secrets_told for text in shown)
    cause = caught.value.__cause__
    assert cause is None or cause.__traceback__ is None or case == "no such schema"


@dataclass
class Roles:
    """The URLs of a schema for its owner, a writer, a reader and a stranger, made as docs/postgres.md says."""

    owner: str
    writer: str
    reader: str
    stranger: str


def grants() -> list[str]:
    """The statements of docs/postgres.md that make the roles."""
    page = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```sql")[1:]]
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in " ".join(lines).split(";") if statement.strip()]


@pytest.fixture
def roles(postgres_server_url: str) -> Iterator[Roles]:
    mark = secrets.token_hex(4)
    names = {name: f"{name}_{mark}" for name in ("embeddings_owner", "embeddings_writer", "embeddings_reader")}
    stranger, schema = f"stranger_{mark}", f"embeddings_{mark}"
    statements = [statement.replace("SCHEMA embeddings", f"SCHEMA {schema}") for statement in grants()]
    for name, marked in names.items():
        statements = [statement.replace(name, marked) for statement in statements]
    statements = [statement.replace("'...'", f"'{mark}'") for statement in statements]
    statements.append(f"CREATE ROLE {stranger} LOGIN PASSWORD '{mark}'")
    try:
        execute(postgres_server_url, *statements)
        urls = [
            f"{with_netloc(postgres_server_url, user=name, password=mark)}?options=-csearch_path%3D{schema}"
            for name in (*names.values(), stranger)
        ]
        yield Roles(*urls)
    finally:
        with contextlib.suppress(psycopg.Error):
            execute(postgres_server_url, f"DROP SCHEMA {schema} CASCADE")
        for name in (*names.values(), stranger):
            with contextlib.suppress(psycopg.Error):
                execute(postgres_server_url, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def test_each_role_can_do_what_the_documentation_says_and_no_more(roles: Roles) -> None:
    with pytest.raises(ReadOnlyError, match="let its owner run `embstore migrate`"):
        EmbeddingCache(roles.writer)
    with EmbeddingCache(roles.owner) as cache:
        assert not cache.store.read_only
        assert cache.compact() >= 0
    encoder = CountingEncoder()
    with EmbeddingCache(roles.writer, lease_s=5) as cache:
        cache.get_many(["a", "b"], ["text a", "text b"], encoder)
        cache.embed(["a query"], encoder)
        cache.store.byte_values.mset({"key": b"value"})
        assert cache.invalidate("b") == 1
        assert cache.prune(standalone=True).n_vectors == 1
        cache.rename_model("fake", "other")
        cache.rename_model("other", "fake")
        assert cache.convert("fake", dtype="float16") == 1
        assert cache.verify() == []
        with pytest.raises(ReadOnlyError, match="owner"):
            cache.compact()
    with EmbeddingCache(roles.reader) as cache:
        assert cache.store.read_only
        n_texts = encoder.n_texts
        cache.get("a", "text a", encoder)
        assert encoder.n_texts == n_texts
        assert (cache.matrix("fake")[0], cache.verify(), cache.stats().n_documents) == (["a"], [], 1)
        for call in (lambda: cache.get("c", "text c", encoder), cache.clear, cache.compact):
            with pytest.raises(ReadOnlyError):
                call()
        assert encoder.n_texts == n_texts
    with pytest.raises((NotAStoreError, ReadOnlyError)):
        EmbeddingCache(roles.stranger)


def test_a_role_that_only_reads_by_its_settings_is_taken_at_its_word(postgres_url: str) -> None:
    EmbeddingCache(postgres_url).close()
    reads = f"{postgres_url}%20-cdefault_transaction_read_only%3Don"
    with EmbeddingCache(reads) as cache:
        assert cache.store.read_only
        with pytest.raises(ReadOnlyError, match="can only be read"):
            cache.clear()


def test_a_statement_that_takes_too_long_and_a_lock_that_others_keep_are_errors(postgres_url: str) -> None:
    EmbeddingCache(postgres_url).close()
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE")
        hurried = EmbeddingCache(f"{postgres_url}%20-cstatement_timeout%3D200")
        with hurried as cache, pytest.raises(StoreBusyError, match="longer than this role"):
            len(cache)
        with EmbeddingCache(postgres_url, timeout_s=0.1) as cache:
            for call in (
                lambda: len(cache),
                lambda: cache.put_many(["a"], ["a"], np.ones((1, 4), "f4"), model_name="m"),
            ):
                with pytest.raises(StoreBusyError, match=r"0\.1 s"):
                    call()


def test_more_threads_than_connections_wait_for_each_other(postgres_url: str) -> None:
    with EmbeddingCache(f"{postgres_url}&pool_size=1", timeout_s=0.2) as cache:
        assert len(cache) == 0
        with cache.store.reading():
            assert len(cache) == 0  # of this thread, which has one
            failed: list[BaseException] = []

            def count() -> None:
                try:
                    len(cache)
                except TooManyConnectionsError as error:
                    failed.append(error)

            thread = threading.Thread(target=count)
            thread.start()
            thread.join()
        assert [type(error) for error in failed] == [TooManyConnectionsError]
        assert "pool_size=" in str(failed[0])
        assert len(cache) == 0


def test_a_server_that_takes_no_more_connections_says_so(postgres_server_url: str) -> None:
    role = f"few_{secrets.token_hex(4)}"
    with new_schema(postgres_server_url) as url:
        execute(
            url,
            f"CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 1",
            f"GRANT CREATE, USAGE ON SCHEMA {schema_of(url)} TO {role}",
        )
        limited = with_netloc(url, user=role, password="p")
        try:
            with psycopg.connect(limited), pytest.raises(TooManyConnectionsError, match="takes no more connections"):
                EmbeddingCache(limited, timeout_s=0.1)
            EmbeddingCache(limited, timeout_s=0.1).close()
        finally:
            execute(url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_what_only_a_file_has_is_refused_with_what_to_do(postgres_url: str, tmp_path: Path) -> None:
    calls: list[Callable[[EmbeddingCache], object]] = [
        lambda cache: cache.path,
        lambda cache: cache.backup(tmp_path / "copy.db"),
        lambda cache: repair(postgres_url, tmp_path / "repaired.db"),
    ]
    with EmbeddingCache(postgres_url) as cache:
        for call, cure in zip(calls, ("location", "pg_dump.*embstore merge", "pg_dump.*embstore merge"), strict=True):
            with pytest.raises(NotAFileError, match=cure):
                call(cache)
        assert urlsplit(postgres_url).password not in f"{cache!r} {cache.location} {cache.stats()}"
    assert list(tmp_path.iterdir()) == []


def test_without_psycopg_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("embstore.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[postgres\]"'):
        EmbeddingCache("postgresql://h/d")


def test_a_timeout_may_be_as_long_or_short_as_it_likes(postgres_url: str) -> None:
    for timeout_s in (0, 1e300):
        with EmbeddingCache(postgres_url, timeout_s=timeout_s) as cache:
            cache.put_many(["a"], ["text"], np.ones((1, 4), np.float32), model_name="m")
            assert len(cache) == 1


def test_an_interrupt_leaves_no_transaction(postgres_url: str) -> None:
    with EmbeddingCache(f"{postgres_url}&pool_size=1", timeout_s=1) as cache:

        def put_and_stop() -> None:
            cache.put_many(["a"], ["text"], np.ones((1, 4), np.float32), model_name="m")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache.store.write(put_and_stop)
        assert len(cache) == 0
        with pytest.raises(KeyboardInterrupt), cache.store.reading():
            raise KeyboardInterrupt
        cache.put_many(["a"], ["text"], np.ones((1, 4), np.float32), model_name="m")
        assert (len(cache), cache.verify()) == (1, [])
