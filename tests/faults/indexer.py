"""A process that indexes documents, editing them over and over, until it is killed.

    python -m tests.faults.indexer LIBRARY ENCODED DONE SYNC_THRESHOLD

Each text that is encoded becomes a line of ENCODED, each call that returned a line of DONE: cycle, start and stop.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

from embstore import CachedSemanticSearchEngine
from tests.damage import create_collection
from tests.scifact import LookUpEncoder, text_of

N_DOCUMENTS = 400
CALL = 20  # documents; each call stores its vectors in one group

Call = tuple[int, int, int]


def documents_of(cycle: int) -> list[str]:
    """The texts of all documents, in a cycle; from one to the next a third of them changes."""
    return [text_of(number, (cycle + number) // 3) for number in range(N_DOCUMENTS)]


def ids_of(start: int, stop: int) -> list[str]:
    return [f"doc-{number}" for number in range(start, stop)]


def next_call(call: Call | None) -> Call:
    """The call after one, or the first."""
    if call is None:
        return 0, 0, CALL
    cycle, _, stop = call
    return (cycle, stop, stop + CALL) if stop < N_DOCUMENTS else (cycle + 1, 0, CALL)


def main(library: Path, encoded: Path, done: Path, sync_threshold: int) -> None:
    if sync_threshold and not library.exists():
        create_collection(library, LookUpEncoder.model_name, sync_threshold)
    call = read_calls(done)[-1] if read_calls(done) else None
    log = os.open(done, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with CachedSemanticSearchEngine(LookUpEncoder(encoded), path=library) as engine:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for _ in count():
            call = cycle, start, stop = next_call(call)
            engine.index_documents(documents_of(cycle)[start:stop], ids_of(start, stop), progress=False)
            os.write(log, f"{cycle} {start} {stop}\n".encode())


def read_calls(done: Path) -> list[Call]:
    """The calls that returned."""
    lines = done.read_text().splitlines() if done.exists() else []
    return [(int(cycle), int(start), int(stop)) for cycle, start, stop in map(str.split, lines)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
