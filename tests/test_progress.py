"""Bars are for people who look at a terminal, and cost nobody else a thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

SILENT = """
import sys, threading
from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

with EmbeddingCache(sys.argv[1]) as cache:
    cache.get_many(["a", "b"], ["one", "two"], CountingEncoder())
    cache.backup(sys.argv[1] + ".copy")
print([thread.name for thread in threading.enumerate()], "tqdm" in sys.modules)
"""


def test_a_process_without_a_terminal_makes_no_bar(cache_path: Path) -> None:
    command = [sys.executable, "-c", SILENT, cache_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("['MainThread'] False\n", "")


@pytest.mark.parametrize(
    ("is_terminal", "progress", "is_shown"),
    [
        (True, None, True),
        (True, False, False),
        (False, None, False),
        (False, True, True),
    ],
)
def test_a_bar_is_shown_on_a_terminal_or_where_it_is_asked_for(
    cache: EmbeddingCache,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
    progress: bool | None,
    is_shown: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    cache.get_many(["a", "b"], ["one", "two"], CountingEncoder(), progress=progress)
    assert ("Encoding: 100%" in capsys.readouterr().err) == is_shown


def test_a_program_without_any_output_is_served(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as pythonw.exe has it
    assert cache.get_many(["a"], ["one"], CountingEncoder()).shape == (1, 8)
