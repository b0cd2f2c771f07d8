"""Library folders of somebody who means harm: what lies in one beside the cache file is read with care, too."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embstore import CachedSemanticSearchEngine
from embstore.cli import main
from embstore.cli.library import NOTE_NAME
from embstore.search.hnsw_files import find_fault
from embstore.search.note import HOLDER_NAME, HolderNote, read_note
from tests.damage import create_collection, written_segment
from tests.fakes import CountingEncoder
from tests.faults.tally import Tally

pytestmark = pytest.mark.timeout(60)

DEEP = "[" * 100_000 + "]" * 100_000


def sparse(path: Path) -> None:
    """A file of 8 GB that takes no room."""
    with path.open("wb") as file:
        file.truncate(2**33)


def pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    os.mkfifo(path)


NOTES: dict[str, Callable[[Path], object]] = {
    "a pipe": pipe,
    "a folder": Path.mkdir,
    "enormous": sparse,
    "deep": lambda path: path.write_text(f'{{"models": {DEEP}, "failed": {DEEP}}}'),
    "a list": lambda path: path.write_text("[1]"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "of other types": lambda path: path.write_text('{"models": 7, "indexes": [], "failed": {"a": 1}, "pid": []}'),
}


@pytest.mark.parametrize("kind", NOTES)
def test_a_hostile_note_of_who_holds_a_folder_says_nothing(kind: str, tmp_path: Path, tally: Tally) -> None:
    NOTES[kind](tmp_path / HOLDER_NAME)
    tally.add("hostile folders", files=1)
    assert read_note(tmp_path).get("failed", {}) in ({}, {"a": 1})
    assert HolderNote(tmp_path).failed == set()


@pytest.mark.parametrize("kind", NOTES)
def test_a_hostile_note_of_the_commands_is_an_error_with_the_cure(
    kind: str, library: Path, encoder: CountingEncoder, tally: Tally
) -> None:
    with CachedSemanticSearchEngine(encoder, path=library, index="exact") as engine:
        engine.index_documents(["text"], ["a"])
    NOTES[kind](library / NOTE_NAME)
    tally.add("hostile folders", files=1)
    result = CliRunner().invoke(main, ["search", str(library), "query"])
    assert result.exit_code == 2
    assert f"{NOTE_NAME}' cannot be read" in result.output
    assert "delete it and say which model by --model" in result.output


class Evil:
    """What runs code where it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


def test_a_pickle_in_the_place_of_chromas_runs_nothing(library: Path, tmp_path: Path, tally: Tally) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    encoder, loot = CountingEncoder(), tmp_path / "loot"
    texts = [f"text {i}" for i in range(60)]
    create_collection(library, "fake")
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        engine.index_documents(texts, texts)
    segment = written_segment(library)
    (segment / "index_metadata.pickle").write_bytes(pickle.dumps(Evil(os.mkdir, str(loot))))
    assert f"wants {os.mkdir.__module__}.mkdir" in (find_fault(segment) or "")
    with CachedSemanticSearchEngine(encoder, path=library) as engine:
        assert [hit.doc_id for hit in engine.search("text 7", n_results=1)] == ["text 7"]
    tally.add("hostile folders", files=1, pickles_run=int(loot.exists()))
    assert not loot.exists()


def test_the_pickle_would_run_what_it_names(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(os.mkdir, str(tmp_path / "loot"))))
    assert (tmp_path / "loot").is_dir(), sys.platform
