"""What an import, a merge or an export tells of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

ROUNDING = 1e-6


@dataclass(frozen=True)
class Skipped:
    """A row of a source that was not taken, and why."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True)
class Conflict:
    """Something that a source has otherwise than the cache, which stays as it is; None for what does not belong to it.

    Attributes
    ----------
    what : "vector", "document", "text", "collection", "model" or "value"
        A content that has another vector, a document that stands for another content, a text with other words or other
        metadata, a collection of another model, a model of another dimension or with another canary, a key with other
        bytes.
    model : str or None
        Its identity.
    content_hash : str or None
        In lower hex.
    collection, doc_id : str or None
    difference : float or None
        Of two vectors a and b: ``|a - b| / max(|a|, |b|)``. The same model differs by about 1e-7 from batch to batch.
    key : str or None
        Of a value.
    """

    what: str
    model: str | None = None
    content_hash: str | None = None
    collection: str | None = None
    doc_id: str | None = None
    difference: float | None = None
    key: str | None = None

    @property
    def is_rounding(self) -> bool:
        """The two vectors differ by no more than the same model does from batch to batch."""
        return self.difference is not None and self.difference <= ROUNDING

    def __str__(self) -> str:
        facts = {"key": self.key, "doc_id": self.doc_id, "collection": self.collection, "model": self.model}
        told = [f"{name} {value!r:.80}" for name, value in facts.items() if value is not None]
        told += [self.content_hash] if self.content_hash else []
        told += [] if self.difference is None else [f"difference {self.difference:.2g}"]
        return f"{self.what}: {', '.join(told)}"


@dataclass(frozen=True)
class TransferReport:
    """What an import or a merge did.

    Attributes
    ----------
    source : str
    n_stored : int
        Vectors that are new in the cache, or take the place of damaged ones.
    n_present : int
        Vectors of contents that the cache had already.
    n_documents, n_texts : int
        Documents, and texts of exact indexes, that are new in the cache.
    skipped : tuple of Skipped
        Rows that were not taken.
    conflicts : tuple of Conflict
        What the source has otherwise than the cache, in which it stays as it is.
    n_values : int
        Values that are kept by key, as for LangChain, and are new in the cache.
    """

    source: str
    n_stored: int
    n_present: int
    n_documents: int
    n_texts: int
    skipped: tuple[Skipped, ...]
    conflicts: tuple[Conflict, ...]
    n_values: int = 0

    @property
    def ok(self) -> bool:
        """All that the source has is in the cache, but for rounding."""
        return not self.skipped and all(conflict.is_rounding for conflict in self.conflicts)

    @property
    def n_skipped(self) -> dict[str, int]:
        """How many rows were not taken, for each reason."""
        return dict(Counter(row.why for row in self.skipped))

    @property
    def n_conflicts(self) -> dict[str, int]:
        """How many conflicts there are of each kind."""
        return dict(Counter(conflict.what for conflict in self.conflicts))


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes
    ----------
    path : str
        The file or the folder.
    n_rows, dim : int
        Documents, and the values of each vector.
    size_bytes : int
    """

    path: str
    n_rows: int
    dim: int
    size_bytes: int
