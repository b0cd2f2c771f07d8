"""Writing a sound file of what a damaged one still has."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embstore.errors import DamagedStoreError, NotAFileError, StoreError, StorePathError
from embstore.stores.companions import SUFFIXES, check_companions
from embstore.stores.copying import put_in_place
from embstore.stores.damaged import end_unfinished, writers_waiting
from embstore.stores.locations import is_url
from embstore.stores.lost import LostRow
from embstore.stores.opening import checked_path
from embstore.stores.pages import Pages
from embstore.stores.salvage import Salvage
from embstore.stores.sqlite import SQLiteStore
from embstore.stores.tables.carried import CarriedRows

TIMEOUT_S = 30.0  # for those who write to the damaged file

# In another process: closing a file drops the locks that this one may hold on it through SQLite.
_COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"

_UNFINISHED = ("-journal", "-wal")  # what a transaction left that did not end


@dataclass(frozen=True)
class RepairReport:
    """What `repair` did.

    Attributes
    ----------
    path : str
        The new file.
    n_models, n_vectors, n_documents, n_collections, n_texts, n_byte_values : int
        Rows that it has.
    lost : tuple of LostRow
        What is not in it, named as far as anything still names it.
    n_missing_pages : int
        How many pages the damaged file was short of: what was in them alone is lost and not named.
    may_hold_removed : bool
        It cannot be told which rows had been removed before, as where the file's first page is lost: some may be back.
    """

    path: str
    n_models: int
    n_vectors: int
    n_documents: int
    n_collections: int
    n_texts: int
    n_byte_values: int
    lost: tuple[LostRow, ...]
    n_missing_pages: int
    may_hold_removed: bool

    @property
    def ok(self) -> bool:
        """Nothing is lost."""
        return not (self.lost or self.n_missing_pages)

    @property
    def n_lost(self) -> dict[str, int]:
        """How many rows of each table are lost."""
        return dict(Counter(row.table for row in self.lost))


def repair(damaged: str | Path, repaired: str | Path) -> RepairReport:
    """Write every row of a damaged cache file that is what was written into a new file.

    The damaged file is only read. The new one appears when it is whole, with mode 0600, and `verify` finds nothing in
    it. Rows are found by the pages that hold them, whatever has become of the tables' order, and kept where their
    checksums fit. Beside the new file as much space as the damaged one has is needed meanwhile.

    Parameters
    ----------
    damaged : str or Path
        Best used by nobody; what others commit meanwhile waits.
    repaired : str or Path
        A file that is not there yet.

    Returns
    -------
    RepairReport

    Raises
    ------
    InvalidTypeError, StorePathError
        There is no damaged file, or there is a repaired one.
    DamagedStoreError
        Nothing is left of it; no file was written.
    UnsafeStoreError
        A journal lies beside it with which SQLite would delete another file.
    StoreBusyError, StoreFullError, StoreError
        No file was written.
    """
    if is_url(damaged):
        raise NotAFileError(
            "a server repairs its own files, or is restored from a backup that pg_dump made; `embstore merge URL FILE` "
            "copies what can be read of it into a cache file",
        )
    source = checked_path(damaged, allow_network_filesystem=True)
    target = checked_path(repaired, allow_network_filesystem=False)
    if not source.is_file():
        raise StorePathError(f"{str(source)!r} is no file; give the damaged database", path=str(source))
    check_companions(source)
    _check_free(target)
    with _folder_beside(target) as folder:
        copy, new = folder / "copy", folder / target.name
        _copy(source, copy)
        with _mapped(copy) as data, contextlib.closing(SQLiteStore(new)) as store, store.writing() as connection:
            pages = Pages(data)
            lost = Salvage(pages, connection).run()
            counts = CarriedRows(connection).counts()
            if not counts["models"]:
                raise DamagedStoreError(
                    f"nothing can be kept of {str(source)!r}: no row of a model is whole, or it never was a cache of "
                    f"embstore; no file was written",
                    path=str(source),
                )
        _check_sound(new)
        _finish(new, target)
    named = {f"n_{table}": n for table, n in counts.items()}
    return RepairReport(
        str(target),
        **named,
        lost=tuple(lost),
        n_missing_pages=pages.n_missing,
        may_hold_removed=not pages.are_live_known,
    )


def _check_free(target: Path) -> None:
    for suffix in ("", *SUFFIXES):  # a journal would be played back into the new file
        file = target.with_name(target.name + suffix)
        if os.path.lexists(file):
            raise StorePathError(f"{str(file)!r} is there already; give a path where nothing is", path=str(target))


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Make a folder that only this user can read, on the file system of the target; it is gone afterwards."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise StorePathError(
            f"{str(target)!r} cannot be written: {error.strerror}; give a path in a folder that can be",
            path=str(target),
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, copy: Path) -> None:
    """Copy a file, and undo in the copy what a transaction left unfinished."""
    with writers_waiting(source, TIMEOUT_S):
        there = [suffix for suffix in ("", *_UNFINISHED) if source.with_name(source.name + suffix).exists()]
        for suffix in there:
            beside = source.with_name(source.name + suffix)
            command = [sys.executable, "-I", "-S", "-c", _COPY, str(beside), str(copy.with_name(copy.name + suffix))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                why = done.stderr.strip().rpartition("\n")[2]
                raise StoreError(f"{str(beside)!r} cannot be copied beside the new file: {why}", path=str(beside))
    if len(there) > 1:
        end_unfinished(copy)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Give the bytes of a file that SQLite has not open, without reading them all at once."""
    if not path.stat().st_size:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _check_sound(new: Path) -> None:
    with contextlib.closing(SQLiteStore(new)) as store:
        problems = store.verify()
    if problems:
        raise StoreError(f"what was kept is not sound ({problems[0]}); please report this", path=str(new))


def _finish(new: Path, target: Path) -> None:
    try:
        put_in_place(new, target)
    except FileExistsError:
        _check_free(target)
        raise
