"""What FILES on a command line stand for: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from embstore.errors import InvalidInputError

_LOOKED_AT_BYTES = 8_000


def expanded(named: Iterable[Path], *, leave_out: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Find the files that were named.

    Parameters
    ----------
    named : iterable of Path
        A folder stands for all files in it and below, a pattern such as ``notes/**/*.md`` for what it matches. Hidden
        files and folders are left out of both, and so are files that are no text, which have a NUL in their first
        8,000 bytes, where they are no data files either.
    leave_out : Path, optional
        A folder that is passed over: a library may lie beside its documents.

    Returns
    -------
    files : list of Path
        In the order named; those of a folder or a pattern sorted.
    no_texts : list of Path
        What was left out because it is no text.

    Raises
    ------
    InvalidInputError
        A file is not there, or a folder or a pattern has none.
    """
    files: list[Path] = []
    no_texts: list[Path] = []
    for path in named:
        if path.is_file():
            files.append(path)
            continue
        found = [file for file in _found(path) if leave_out is None or not _is_below(file, leave_out)]
        if not found:
            raise InvalidInputError(f"no file is found by {str(path)!r}", path=str(path))
        for file in found:
            (files if is_data(file) or _is_text(file) else no_texts).append(file)
    return files, no_texts


def is_data(file: Path) -> bool:
    """Tell whether a file holds several documents, one a row."""
    return file.suffix.lower() in (".jsonl", ".csv", ".tsv", ".parquet")


def _found(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in _below(path) if file.is_file())
    if glob.has_magic(str(path)):
        matched = map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute one
        return sorted(file for file in matched if file.is_file())
    what = "is no file and no folder" if path.exists() else "does not exist"
    raise InvalidInputError(f"{str(path)!r} {what}", path=str(path))


def _below(folder: Path) -> Iterator[Path]:
    """Walk a folder. One that cannot be read is an error: its documents would count as gone."""

    def fail(error: OSError) -> None:
        raise InvalidInputError(f"{error.filename}: {error.strerror}", path=str(error.filename)) from error

    for at, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in names if not name.startswith("."))


def _is_below(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents


def _is_text(file: Path) -> bool:
    """Tell a text by the rule that git has: no NUL near the beginning."""
    try:
        with file.open("rb") as opened:
            return b"\0" not in opened.read(_LOOKED_AT_BYTES)
    except OSError:
        return True  # reading it says what is wrong
