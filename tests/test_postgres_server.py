"""The PostgreSQL servers that tests are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.postgres import NAMED, Server

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")


def test_a_test_has_a_schema_of_its_own(postgres_url: str, postgres_server_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE t (i int)")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with psycopg.connect(postgres_server_url) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT count(*) FROM t")


def test_a_server_of_a_tests_own_comes_back_as_it_was_after_a_crash(own_postgres: Server) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS i")
    own_postgres.restart("immediate")
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == [(7,)]


FAILS = """
def test_where(postgres_url):
    print("URL", postgres_url)
    assert False
"""

IS_KILLED = """
import os, signal

def test_where(postgres_url):
    os.write(2, f"URL {postgres_url}\\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_tests(source: str, folder: Path, *options: str) -> str:
    """Run a file of tests with the fixtures of these, and give what it wrote."""
    (folder / "test_one.py").write_text(source, encoding="utf-8")
    here = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(folder), *options, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(here), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(command, cwd=here, capture_output=True, text=True, env=environment)
    return ended.stdout + ended.stderr


def is_there(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def url_in(output: str) -> str:
    (url,) = [line.partition("URL ")[2] for line in output.splitlines() if "URL postgresql" in line]
    return url


@pytest.mark.skipif(NAMED in os.environ, reason=f"{NAMED} names a server, which stays")
def test_the_server_that_processes_share_is_gone_after_a_run_that_failed(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    output = run_tests(FAILS, tmp_path, "-p", "xdist", "-n", "2")
    assert "1 failed" in output, output
    assert not is_there(url_in(output))


@pytest.mark.skipif(NAMED in os.environ, reason=f"{NAMED} names a server, which stays")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_the_server_is_gone_after_a_run_that_was_killed(tmp_path: Path) -> None:
    url = url_in(run_tests(IS_KILLED, tmp_path, "-s"))
    until = time.monotonic() + 60
    while is_there(url):
        assert time.monotonic() < until
