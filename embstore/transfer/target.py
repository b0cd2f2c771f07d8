"""Files and folders that appear when they are whole: written beside their place, synced, and renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from embstore.errors import EmbstoreError, TargetError
from embstore.stores.committing import sync_folder
from embstore.stores.copying import put_in_place
from embstore.stores.locations import is_url

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def new_file(path: str | Path, *, overwrite: bool, location: str, suffix: str) -> Iterator[Path]:
    """Give the path of a file to write; it gets its name, and mode 0600, when the block ends without an error.

    A file is overwritten only where its name has the suffix: what is in it is not looked at, since a database that is
    open must not be opened.

    Raises
    ------
    TargetError
        Something is there, and is not to be overwritten or is no file; or nothing can be written. What is there stays.
    """
    target = _checked(path, location, overwrite=overwrite)
    if os.path.lexists(target) and (target.is_dir() or target.suffix != suffix):
        raise _exists(target, f"something without the suffix {suffix}")
    with _errors(target):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent)
        os.close(descriptor)
        part = Path(name)
        try:
            yield part
            if overwrite:
                _sync(part)
                part.replace(target)
                _sync_folder(target.parent)
            else:
                put_in_place(part, target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool, location: str, names: Collection[str]) -> Iterator[Path]:
    """Give a folder to write files of some names into; it gets its own name when the block ends without an error.

    A folder is overwritten only where it has no other files than these.

    Raises
    ------
    TargetError
        As of `new_file`.
    """
    target = _checked(path, location, overwrite=overwrite)
    if overwrite and os.path.lexists(target):
        others = sorted({file.name for file in target.iterdir()} - {*names}) if target.is_dir() else ["no folder"]
        if others or target.is_symlink():
            raise _exists(target, f"something else than an export of this kind ({', '.join(others[:3])})")
    with _errors(target):
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent))
        try:
            yield part
            for file in part.iterdir():
                _sync(file)
            _sync_folder(part)
            _rename(part, target, overwrite=overwrite)
            _sync_folder(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _checked(path: str | Path, location: str, *, overwrite: bool) -> Path:
    target = Path(os.path.abspath(path))  # noqa: PTH100 - a link in the place of the last name is not followed
    if not target.parent.is_dir():
        raise TargetError(f"{str(target.parent)!r} is no folder; make it first", path=str(target))
    if os.path.lexists(target):
        if not is_url(location) and target.exists() and Path(location).exists() and target.samefile(location):
            raise TargetError(f"{str(target)!r} is the cache that is to be exported", path=str(target))
        if not overwrite:
            cure = "give another path, or have an export of before overwritten (overwrite=True, --overwrite)"
            raise _exists(target, "something", cure)
    return target


def _exists(target: Path, what: str, cure: str = "give another path") -> TargetError:
    return TargetError(f"at {str(target)!r} there is {what} already; {cure}", path=str(target))


def _rename(part: Path, target: Path, *, overwrite: bool) -> None:
    if not overwrite or not os.path.lexists(target):
        part.rename(target)
        return
    former = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".former", dir=target.parent)) / target.name
    target.rename(former)
    try:
        part.rename(target)
    except OSError:
        former.rename(target)
        raise
    finally:
        if os.path.lexists(target):
            shutil.rmtree(former.parent, ignore_errors=True)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        sync_folder(folder)


@contextmanager
def _errors(target: Path) -> Iterator[None]:
    try:
        yield
    except EmbstoreError:
        raise
    except FileExistsError as error:
        raise _exists(target, "something") from error
    except OSError as error:
        why = "there is no room" if error.errno in _NO_ROOM else str(error.strerror or error)
        raise TargetError(f"{str(target)!r} cannot be written: {why}", path=str(target)) from error
