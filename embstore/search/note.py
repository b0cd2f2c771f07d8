"""The note that the holder of a library folder keeps in it: who it is, and which collections Chroma failed in.

It goes when the folder is closed. One that stays tells that the holder did not come to that, or that it left
collections behind that were not found sound since.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOLDER_NAME = "embstore.lock.json"
"""A file of its own, since a locked one cannot be read on Windows."""

MAX_NOTE_BYTES = 2**24


class HolderNote:
    """The note of this process, to be made once it holds the lock.

    Attributes
    ----------
    was_left : bool
        Whether the last holder left its note.
    failed : set of str
        Collections in which Chroma failed and that were not mended since. What Chroma says later shows no damage.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HOLDER_NAME
        self.was_left = self._path.exists()
        names = read_note(folder).get("failed")
        self.failed = {str(name) for name in names} if isinstance(names, list) else set()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")

    def write(self) -> None:
        """Write it as a whole, as far as the folder lets it be written: the lock holds without it."""
        note = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "program": Path(sys.argv[0]).name if sys.argv else "",
            "since": self._since,
            "failed": sorted(self.failed),
        }
        partial = self._path.with_name(f"{HOLDER_NAME}.tmp")
        with suppress(OSError):
            with open(partial, "w", encoding="utf-8", opener=_private) as file:
                json.dump(note, file)
            partial.replace(self._path)

    def remove(self) -> None:
        """Take it away."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_small(file: Path) -> str:
    """Read a note, of which no honest one is long.

    Raises
    ------
    OSError
        It is not there, or no file: a pipe would be waited for.
    ValueError
        It is longer than 16 MiB, or not UTF-8.
    """
    if file.exists() and not file.is_file():
        raise OSError(f"{str(file)!r} is no file")
    with file.open("rb") as opened:
        content = opened.read(MAX_NOTE_BYTES + 1)
    if len(content) > MAX_NOTE_BYTES:
        raise ValueError(f"{str(file)!r} has more than {MAX_NOTE_BYTES} bytes")
    return content.decode()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_note(folder: Path) -> dict[str, Any]:
    """Read the note of whoever holds a folder; {} where there is none, or a damaged one."""
    try:
        note = json.loads(read_small(folder / HOLDER_NAME))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
