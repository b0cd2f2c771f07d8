"""A row that is not in a repaired file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LostRow:
    """A row that is not in the repaired file; None for what does not belong to it or is not known.

    Attributes
    ----------
    table : str
        Or "canaries": a model was kept whose canary was not, which its first use writes anew.
    model : str or None
        Its identity, or "model_id 3" where that is lost too.
    content_hash : str or None
        In lower hex.
    collection, doc_id : str or None
    key : str or None
        Of the table byte_values.
    """

    table: str
    model: str | None = None
    content_hash: str | None = None
    collection: str | None = None
    doc_id: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        facts = {"doc_id": self.doc_id, "collection": self.collection, "model": self.model, "key": self.key}
        told = [f"{name} {value!r:.80}" for name, value in facts.items() if value is not None]
        return f"{self.table} {', '.join(told + ([self.content_hash] if self.content_hash else []))}"
