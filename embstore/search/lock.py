"""One process a library folder: its lock, and the one client that the engines of this process share.

Two processes that write to one folder of Chroma lose records without an error, and a reader beside a writer gets
stale answers. So the lock is held for as long as a client is open, also by those that only search.
"""

from __future__ import annotations

import atexit
import os
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embstore.errors import LibraryLockedError, MissingExtraError, StorePathError
from embstore.search.note import HolderNote, read_note

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from filelock import FileLock

LOCK_NAME = "embstore.lock"

Check = Callable[[Path, frozenset[str]], set[str] | None]
"""Looks at a folder that no client has open, and is told in which collections Chroma has failed before.

It gives the names of the collections that need mending, or None where that is not known.
"""


@dataclass
class _Held:
    """A folder that this process holds.

    Attributes
    ----------
    suspects : set of str or None
        The collections that need mending; None: any of them may.
    """

    lock: FileLock
    note: HolderNote
    client: Client
    suspects: set[str] | None
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
    check : callable, optional
        Called before that, where the last holder did not close the folder.

    Raises
    ------
    LibraryLockedError
        Another process holds the folder; `pid`, `host`, `program` and `since` are what is known of it, or None.
    StorePathError
        The folder cannot be created or written.
    MissingExtraError
        filelock is not installed.
    """

    def __init__(self, folder: Path, open_client: Callable[[Path], Client], check: Check = lambda *_: None) -> None:
        self._folder = created_folder(folder)
        self._open_client = open_client
        self._pid = os.getpid()
        self._closed = False
        with _guard:
            held = _held.get((self._pid, self._folder))
            if held is None:
                held = _held[self._pid, self._folder] = _hold(self._folder, open_client, check)
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

    @property
    def was_unclean(self) -> bool:
        """Whether the last process that held the folder ended without closing it, or left damage in it."""
        return self._shared.note.was_left

    def is_suspect(self, collection_name: str) -> bool:
        """Tell whether a collection needs mending, as far as is known."""
        return self._shared.suspects is None or collection_name in self._shared.suspects

    def suspect(self, collection_name: str) -> None:
        """Note, in the folder too, that Chroma failed in a collection: what it says later does not show the damage."""
        self._shared.note.failed.add(collection_name)
        self._shared.note.write()
        if self._shared.suspects is not None:
            self._shared.suspects.add(collection_name)

    def settle(self, collection_name: str) -> None:
        """Note that a collection was found sound, or was mended."""
        self._shared.note.failed.discard(collection_name)
        self._shared.note.write()
        if self._shared.suspects is not None:
            self._shared.suspects.discard(collection_name)

    def check(self, check: Check) -> None:
        """Close the client, look at the folder, and open another client.

        Raises
        ------
        LibraryLockedError
            Other handles of this process use the client.
        """
        with _guard:
            held = self._shared
            if held.n_handles > 1:
                raise LibraryLockedError(
                    f"library folder {str(self._folder)!r} is in use by other engines of this process; close them",
                    path=str(self._folder),
                    pid=self._pid,
                )
            held.client.close()
            try:
                held.suspects = check(self._folder, frozenset(held.note.failed))
            finally:
                held.client = self._open_client(self._folder)

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
            _close(self._shared)


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


def _hold(folder: Path, open_client: Callable[[Path], Client], check: Check) -> _Held:
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise MissingExtraError("filelock", "chroma", "a library folder") from error
    with suppress(OSError):  # it is there, or FileLock says what is wrong
        os.close(os.open(folder / LOCK_NAME, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    lock = FileLock(folder / LOCK_NAME, thread_local=False)  # it may be released by another thread
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _locked(folder) from None
    except OSError as error:
        raise StorePathError(f"library folder {str(folder)!r} cannot be written: {error}", path=str(folder)) from error
    note = HolderNote(folder)
    try:
        note.write()
        suspects = check(folder, frozenset(note.failed)) if note.was_left else set()
        return _Held(lock, note, open_client(folder), suspects)
    except BaseException:
        _release(lock, note, is_sound=not note.was_left)
        raise


def _close(held: _Held) -> None:
    try:
        held.client.close()
    finally:
        _release(held.lock, held.note, is_sound=held.suspects == set())


def _close_at_exit() -> None:
    """Close what a program that just ends has left open: that is no unclean end."""
    while _held:
        with suppress(Exception):
            _close(_held.popitem()[1])


def _release(lock: FileLock, note: HolderNote, *, is_sound: bool) -> None:
    if is_sound:
        note.remove()
    lock.release()


def _locked(folder: Path) -> LibraryLockedError:
    note = read_note(folder)
    known = {key: value for key, value in note.items() if isinstance(value, (str, int))}
    pid, host, program, since = (known.get(key) for key in ("pid", "host", "program", "since"))
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


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
