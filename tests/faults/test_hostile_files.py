"""Files of somebody who means harm are refused, or their rows rejected, and nothing of theirs runs."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.tally import Tally

if not sys.platform.startswith("linux"):
    pytest.skip("memory is bounded, and what was used is told, as Linux does it", allow_module_level=True)

from tests.faults.hostile import ENDLESS, HOSTILE, PLACES, Hostile, edited, oversized
from tests.faults.reading import MEMORY_BYTES, PATIENCE_S, make_library

Read = Callable[[Path], dict[str, Any]]

OVERSIZED = tuple(oversized(10**9))
OF_TYPES = [name for name in HOSTILE if " in " in name and "." in name.rpartition(" in ")[2]]
NAMES = [*HOSTILE, *OVERSIZED, *ENDLESS, *PLACES]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library as it was made."""
    folder = tmp_path_factory.mktemp("sound") / "library"
    make_library(folder)
    return folder


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Reads a folder in a process that has little memory."""
    command = [sys.executable, "-m", "tests.faults.reading"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout

        def read_(folder: Path) -> dict[str, Any]:
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            said: dict[str, Any] = json.loads(process.stdout.readline())
            return said

        yield read_
        process.stdin.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that is one, byte by byte; not SQLite's index of a WAL, which a look at one makes."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.suffix != ".db-shm"}


def loot(path: Path) -> int:
    """What the SQL in a file has put into its table for that; 0 where SQLite itself cannot read the file."""
    if not path.is_file():
        return 0
    with edited(path) as connection, suppress(sqlite3.DatabaseError):
        return int(connection.execute("SELECT count(*) FROM loot").fetchone()[0])
    return 0


def hostile_of(name: str) -> Hostile:
    return {**HOSTILE, **ENDLESS, **PLACES}[name] if name not in OVERSIZED else oversized(10**9)[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_is_refused_or_its_rows_are(
    name: str, sound: Path, tmp_path: Path, read: Read, tally: Tally, is_whole: bool
) -> None:
    if not is_whole and (name in ENDLESS or (name in OF_TYPES and OF_TYPES.index(name) % 4)):
        pytest.skip("in `make faults`")
    hostile, folder = hostile_of(name), tmp_path / "library"
    shutil.copytree(sound, folder)
    path = folder / "embeddings.db"
    hostile.make(path)
    before = contents(folder)

    said = read(folder)

    assert "ended_by" not in said, said
    outcomes = said["outcomes"]
    leaked = {call: outcome for call, outcome in outcomes.items() if outcome[0] == "leaked"}
    n_stolen = loot(path) if name in HOSTILE else 0
    tally.add("hostile files", files=1, calls=len(outcomes), other_errors=len(leaked), statements_of_theirs=n_stolen)
    assert leaked == {}
    assert n_stolen == 0
    assert said["peak_bytes"] < MEMORY_BYTES
    assert said["seconds"] < PATIENCE_S
    opening, verified = outcomes["open"], outcomes.get("verify")
    if hostile.error:
        assert opening[:2] == ["refused", hostile.error]
        assert hostile.tells in opening[2]
        assert contents(folder) == before
        return
    assert opening == ["gave", None]
    if hostile.tells:
        assert any(hostile.tells in problem for problem in verified[1]), verified
        return
    refused = [call for call, outcome in outcomes.items() if outcome[0] == "refused"]
    assert (verified, refused) == (["gave", []], [hostile.fails] if hostile.fails else [])
