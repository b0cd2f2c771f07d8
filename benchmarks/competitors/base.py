"""What each competitor can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.corpus import Documents

# What each gives its encoder and its store at once, where it can be told: the same for all.
BATCH = 1_000


class Competitor(ABC):
    """A cache in a folder. Opening and closing are not timed, filling and reading are.

    Attributes
    ----------
    name : str
    requires : tuple of str
        Modules without which it is skipped.
    durable : "yes", "survives kill" or "no"
        After `fill`: fsynced; in the hands of the operating system, so that a kill -9 loses nothing that was
        acknowledged; neither.
    most_documents : int, optional
        Where more would take too long; its figures are then of so many.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    durable: ClassVar[str] = "no"
    most_documents: ClassVar[int | None] = None

    def __init__(self, folder: Path, documents: Documents) -> None:
        """Take a folder of its own, and the documents that will be filled in and asked for."""
        self.folder = folder
        self.documents = documents

    @abstractmethod
    def open(self) -> None:
        """Create the cache, or open what was filled before."""

    @abstractmethod
    def fill(self) -> None:
        """Encode and store all documents, each new."""

    @abstractmethod
    def read(self, documents: Documents) -> Any:
        """Give the vectors of documents by their texts, in this order, as it gives them best."""

    def get(self, doc_id: str, text: str) -> Any:
        """Give the vector of one document."""
        return self.read(Documents([doc_id], [text], self.documents.vectors[:1]))

    def close(self) -> None:  # noqa: B027 - some have nothing to close
        """Let go of the files."""

    @classmethod
    def share(cls, documents: Documents) -> Documents:
        """Give as many of the documents as it takes part with."""
        return documents if cls.most_documents is None else documents.first(cls.most_documents)

    def check(self, documents: Documents) -> None:
        """See that what it gives is right, to the last bit: each of them stores 32 bits of a value, or more."""
        given = np.asarray(self.read(documents), dtype=np.float32)
        assert np.array_equal(given, documents.vectors), f"{self.name} gives other vectors than it was given"

    def check_get(self, documents: Documents) -> None:
        """See that it gives single vectors right."""
        for i in (0, len(documents) // 2, len(documents) - 1):
            given = np.asarray(self.get(documents.ids[i], documents.texts[i]), dtype=np.float32).reshape(-1)
            assert np.array_equal(given, documents.vectors[i]), f"{self.name} gives another vector than it was given"
