"""One process a library folder: its lock, and the one client that the engines of this process share.

Two processes that write to one folder of Chroma lose records without an error, and a reader beside a writer gets
stale answers. So the lock is held for as long as a client is open, also by those that only search.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from embstore.errors import LibraryLockedError, MissingExtraError, StorePathError

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from filelock import FileLock

LOCK_NAME = "embstore.lock"
HOLDER_NAME = "embstore.lock.json"
"""Who holds the lock. A file of its own, since a locked one cannot be read on Windows."""


@dataclass
class _Held:
    """A folder that this process holds."""

    lock: FileLock
    client: Client
    n_handles: int = 0


# By process too: what a forked child inherits is not its own.
_held: dict[tuple[int, Path], _Held] = {}
_guard = threading.Lock()


class LibraryHandle:
    """The share that one engine has in a library folder.

    Parameters
    ----------
    folder : Path
        Created where it is missing.
    open_client : callable
        Opens a client on the folder; called where this process has none on it yet.

    Raises
    ------
    LibraryLockedError
        Another process holds the folder; `pid`, `host`, `program` and `since` are what is known of it, or None.
    StorePathError
        The folder cannot be created or written.
    MissingExtraError
        filelock is not installed.
    """

    def __init__(self, folder: Path, open_client: Callable[[Path], Client]) -> None:
        self._folder = created_folder(folder)
        self._pid = os.getpid()
        self._closed = False
        with _guard:
            held = _held.get((self._pid, self._folder))
            if held is None:
                held = _held[self._pid, self._folder] = _hold(self._folder, open_client)
            held.n_handles += 1
        self._shared = held

    @property
    def client(self) -> Client:
        """The client that all engines of this process on this folder share.

        Raises
        ------
        LibraryLockedError
            This process was forked from the one that holds the folder.
        """
        self.check_process()
        return self._shared.client

    def check_process(self) -> None:
        """Raise LibraryLockedError in a process that was forked from the holder."""
        if os.getpid() != self._pid:
            raise LibraryLockedError(
                f"library folder {str(self._folder)!r} is open in process {self._pid}, from which this one was "
                f"forked; open the engine after the fork, or {_serve(self._folder)}",
                path=str(self._folder),
                pid=self._pid,
            )

    def close(self) -> None:
        """Give the share back; the last one of a process closes the client and releases the folder."""
        with _guard:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            self._shared.n_handles -= 1
            if self._shared.n_handles:
                return
            del _held[self._pid, self._folder]
            try:
                self._shared.client.close()
            finally:
                _release(self._folder, self._shared.lock)


def created_folder(folder: Path) -> Path:
    """Create a folder where it is missing, and give its path without links.

    Raises
    ------
    StorePathError
        It cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # Chroma's files hold the texts, for all to read
        return folder.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # a file in the way, a loop of links, a NUL in the name
        raise StorePathError(f"library folder {str(folder)!r} cannot be created: {error}", path=str(folder)) from error


def _hold(folder: Path, open_client: Callable[[Path], Client]) -> _Held:
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise MissingExtraError("filelock", "chroma", "a library folder") from error
    lock = FileLock(folder / LOCK_NAME, thread_local=False)  # it may be released by another thread
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _locked(folder) from None
    except OSError as error:
        raise StorePathError(f"library folder {str(folder)!r} cannot be written: {error}", path=str(folder)) from error
    try:
        _write_holder(folder)
        return _Held(lock, open_client(folder))
    except BaseException:
        _release(folder, lock)
        raise


def _release(folder: Path, lock: FileLock) -> None:
    with suppress(OSError):
        (folder / HOLDER_NAME).unlink(missing_ok=True)
    lock.release()


def _write_holder(folder: Path) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "program": Path(sys.argv[0]).name if sys.argv else "",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    partial = folder / f"{HOLDER_NAME}.tmp"
    with suppress(OSError):  # for people only: the lock holds without it
        partial.write_text(json.dumps(holder), encoding="utf-8")
        partial.replace(folder / HOLDER_NAME)


def _read_holder(folder: Path) -> dict[str, str | int]:
    """Read who holds a folder; {} where it is not known."""
    try:
        holder = json.loads((folder / HOLDER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none yet, or damaged
        return {}
    known = holder.items() if isinstance(holder, dict) else ()
    return {key: value for key, value in known if isinstance(value, (str, int))}


def _locked(folder: Path) -> LibraryLockedError:
    holder = _read_holder(folder)
    pid, host, program, since = (holder.get(key) for key in ("pid", "host", "program", "since"))
    who = f"process {pid}" if pid else "another process"
    details = f"{f' on {host}' if host else ''}{f' ({program})' if program else ''}{f' since {since}' if since else ''}"
    return LibraryLockedError(
        f"library folder {str(folder)!r} is open in {who}{details}; one process a folder at a time: "
        f"close it there, or {_serve(folder)}",
        path=str(folder),
        pid=pid,
        host=host,
        program=program,
        since=since,
    )


def _serve(folder: Path) -> str:
    return (
        f"share it by `chroma run --path {shlex.quote(str(folder))}` and client=chromadb.HttpClient() in every process"
    )


def _after_fork_in_child() -> None:
    """Forget what the parent holds, without letting go of it.

    The client's threads do not exist in the child, and destroying it there waits for them forever
    (tests/test_library_lock.py::test_a_forked_child_ends_normally). So its memory is never freed.
    """
    global _guard
    _guard = threading.Lock()
    if _held:
        import ctypes

        for held in _held.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
        _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
