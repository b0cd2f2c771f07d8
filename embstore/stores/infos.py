"""What a store tells of what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from embstore.identity import Setting
from embstore.stores.usage import ModelUsage


@dataclass(frozen=True)
class ModelInfo:
    """A stored model and how much is stored of it."""

    model_name: str
    settings: dict[str, Setting]
    dim: int
    dtype: str
    created_at: str
    n_vectors: int
    n_documents: int
    has_canary: bool
    usage: ModelUsage = field(default_factory=ModelUsage)


@dataclass(frozen=True)
class DocumentInfo:
    """A row of the view `embeddings`, without its vector."""

    doc_id: str
    collection: str
    model_name: str
    settings: dict[str, Setting]
    dim: int
    content_hash: str
    dtype: str = "float32"


@dataclass(frozen=True)
class Stats:
    """What a store holds.

    `n_documents` counts rows of the view, `n_doc_ids` distinct ids, `n_unused` the vectors that no document uses,
    those of texts cached without an id among them, and `n_duplicates` the documents that share another's vector.
    """

    path: str
    size_bytes: int
    n_documents: int
    n_doc_ids: int
    n_vectors: int
    n_unused: int
    models: tuple[ModelInfo, ...]
    n_duplicates: int = 0


@dataclass(frozen=True)
class PruneReport:
    """The vectors that no document uses: how many, the bytes of their values, and whether they were removed."""

    n_vectors: int
    vector_bytes: int
    removed: bool


@dataclass(frozen=True)
class Problem:
    """Something that `verify` found."""

    table: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.what}" if self.key else f"{self.table}: {self.what}"
