"""Where a store is: the path of a file, or the URL of a server."""

from __future__ import annotations

from pathlib import Path

from embstore.errors import NotAFileError

SCHEMES = ("postgresql://", "postgres://")


def is_url(location: object) -> bool:
    """Tell whether a store is on a server."""
    return isinstance(location, str) and location.startswith(SCHEMES)


def absolute(location: str | Path) -> str:
    """Give a location that means the same in every folder."""
    return str(location) if is_url(location) else str(Path(location).absolute())


def without_secrets(location: str | Path) -> str:
    """Give a location that may be shown and kept; that of a server opens where libpq finds the password by itself.

    Raises
    ------
    InvalidInputError, MissingExtraError
        A URL cannot be read.
    """
    if not is_url(location):
        return str(location)
    from embstore.stores.postgres.url import read_url

    return read_url(str(location)).location


def folder_of(location: str | Path) -> Path:
    """Give the folder of a file, and the current one for a server."""
    return Path.cwd() if is_url(location) else Path(location).absolute().parent


def name_of(location: str | Path) -> str:
    """Give the name of a file or a folder, or of a database on a server."""
    if is_url(location):
        return str(location).partition("?")[0].rpartition("/")[2] or "postgresql"
    return Path(location).resolve().name


def file_of(location: str) -> Path:
    """Give the file that a store is in.

    Raises
    ------
    NotAFileError
        It is on a server.
    """
    if is_url(location):
        raise NotAFileError(f"{location!r} is on a server, and in no file; ask for its `location`", path=location)
    return Path(location)
