"""What a process pays before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.competitors import EmbstoreCache
from benchmarks.corpus import make_documents
from benchmarks.results import OURS, CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn

IMPORT, STATS = "import", "command"
ROUNDS = 3  # times those of other cases: a round is short


def run(settings: Settings, folder: Path) -> CaseResult:
    result = CaseResult("a new process", "ms")
    filling = EmbstoreCache(folder, make_documents(settings.scaled(1_000)))
    filling.open()
    filling.fill()
    filling.close()
    python = [sys.executable, "-c"]
    commands: list[tuple[str, str, list[str | Path]]] = [
        (OURS, IMPORT, [*python, "import embstore"]),
        ("numpy, sqlite3", IMPORT, [*python, "import numpy, sqlite3"]),
    ]
    program = _program()
    if program is None:
        result.notes.append("skipped: embstore stats (the command embstore is not beside this Python)")
    else:
        commands.append((OURS, STATS, [program, "stats", folder / "embeddings.db"]))
        commands.append(("numpy, sqlite3, click", STATS, [*python, "import numpy, sqlite3, click"]))
    # Modules are compiled in the round that does not count, as those of a wheel are when it is installed.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    turns = [Turn(name, 1000, partial(_call, command, environment), group) for name, group, command in commands]
    # The microseconds of a thousandth are milliseconds; documents there are none.
    result.rows = [replace(row, n=0) for row in in_turn(turns, ROUNDS * settings.rounds)]
    ours = partial(result.find, OURS)
    result.ratio("import embstore / import numpy, sqlite3", ours(IMPORT), result.find("numpy, sqlite3", IMPORT))
    bare = result.find("numpy, sqlite3, click", STATS)
    result.ratio("embstore stats / import numpy, sqlite3, click", ours(STATS), bare)
    return result


def _program() -> Path | None:
    folder = Path(sys.executable).parent
    return next((file for file in (folder / "embstore", folder / "embstore.exe") if file.exists()), None)


def _call(command: list[str | Path], environment: dict[str, str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
