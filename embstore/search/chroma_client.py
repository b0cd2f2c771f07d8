"""Chroma's clients: imported on first use, always opened with the same settings, their exceptions made ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embstore.errors import EmbstoreError, MissingExtraError, SearchIndexError

if TYPE_CHECKING:
    from chromadb.api.client import Client


def import_chromadb() -> Any:
    """Import chromadb.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import chromadb
    except ImportError as error:
        raise MissingExtraError("chromadb", "chroma", "semantic search") from error
    return chromadb


def open_client(folder: Path) -> Client:
    """Open a client on a folder, always with the same settings: Chroma refuses two kinds in a process.

    Raises
    ------
    SearchIndexError
        The folder holds no database of Chroma's, or another client has it open in this process.
    """
    chromadb = import_chromadb()
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    with chroma_errors(f"open the library folder {str(folder)!r}"):
        return cast("Client", chromadb.PersistentClient(folder, settings=settings))


@contextmanager
def chroma_errors(doing: str) -> Iterator[None]:
    """Make a SearchIndexError of whatever Chroma raises."""
    try:
        yield
    except EmbstoreError:
        raise
    except Exception as error:
        raise SearchIndexError(f"Chroma could not {doing}: {type(error).__name__}: {error}") from error
