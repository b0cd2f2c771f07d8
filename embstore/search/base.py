"""What an engine needs of an index and of a source of vectors, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from embstore.codec import Vectors
from embstore.encoders import NamedEncoder
from embstore.identity import ModelIdentity, content_hash

MetadataValue = str | int | float | bool | list[str] | list[int] | list[float] | list[bool]
Metadata = dict[str, MetadataValue]
MetadataPatch = dict[str, MetadataValue | None]
"""Keys to set, and with None the keys to remove."""
Where = Mapping[str, Any]

HASH_KEY = "embstore:hash"
"""Where a record of an index keeps the content hash of its text; no key of a user's metadata."""


@dataclass(frozen=True)
class Document:
    """A text to index, with the id and the metadata that its owner gives it."""

    doc_id: str
    text: str
    metadata: Metadata

    @cached_property
    def content_hash(self) -> str:
        """The hash of the text in lower hex, computed once."""
        return content_hash(self.text).hex()


@dataclass(frozen=True)
class StoredDocument:
    """What an index holds of a document; the hash is None where another program wrote the record."""

    content_hash: str | None
    metadata: Metadata


@dataclass(frozen=True)
class SearchHit:
    """A document that a search found.

    Attributes
    ----------
    doc_id : str
    document : str
        The text as the index holds it: lone surrogates became U+FFFD.
    metadata : dict
        {} where the document has none.
    score : float
        The cosine similarity to the query, 1.0 for the same direction.
    """

    doc_id: str
    document: str
    metadata: Metadata
    score: float


@dataclass(frozen=True)
class IndexReport:
    """What a call that indexed documents did.

    Attributes
    ----------
    total : int
        Documents given: ``added + updated + metadata_updated + unchanged``.
    added, updated, metadata_updated, unchanged : int
        Documents that were new, had another text, had the same text and other metadata, or were there as given.
        A document given twice in a call counts as unchanged the second time.
    encoded : int
        Distinct texts that the model encoded.
    from_cache : int
        Distinct texts whose vectors were needed and came from the cache.
    seconds : float
        How long the call took.
    """

    total: int
    added: int
    updated: int
    metadata_updated: int
    unchanged: int
    encoded: int
    from_cache: int
    seconds: float

    @property
    def documents_per_s(self) -> float:
        """Documents given per second, 0.0 where none were given."""
        return self.total / self.seconds if self.total else 0.0


class VectorIndex(Protocol):
    """What answers nearest-neighbour queries by cosine, and knows which model its vectors are of.

    An index holds each doc_id once. Its own records say what it holds; nobody keeps a second list.
    Whatever it raises is an EmbstoreError.
    """

    name: str
    """The collection's."""

    @property
    def identity(self) -> ModelIdentity:
        """The model whose document vectors it holds."""

    def canary(self) -> Vectors | None:
        """Give the canary (dim,) of the model that filled it; None where none was noted."""

    def note_canary(self, canary: Vectors) -> None:
        """Note the canary of the model that fills it from now on."""

    def count(self) -> int:
        """Count the documents that it holds."""

    def stored(self, doc_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Tell what it holds of distinct doc_ids; those that it does not hold are left out."""

    def add(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Add documents whose ids it does not hold; row i of (n, dim) is the vector of documents[i]."""

    def replace(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Put documents in the place of those it holds under their ids.

        Vectors that cannot be stored are refused before anything is removed.
        """

    def update_metadata(self, patches: Mapping[str, MetadataPatch]) -> None:
        """Change the metadata of doc_ids that it holds."""

    def delete(self, doc_ids: Sequence[str]) -> int:
        """Remove documents and tell how many of the distinct doc_ids were there."""

    def query(self, vector: Vectors, n_results: int, where: Where | None) -> list[SearchHit]:
        """Give the documents nearest to a vector (dim,), nearest first, among those that the filter lets through."""

    def rename_model(self, model_name: str) -> None:
        """Note another name for the model whose vectors it holds."""


class VectorSource(Protocol):
    """Where the vectors of an engine come from: the one thing in which engines differ."""

    encoder: NamedEncoder

    checks_model: bool
    """Whether the model may be given a canary."""

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str], progress: bool | None) -> tuple[Vectors, int]:
        """Give the vectors of n documents, (n, dim), and how many distinct texts were encoded for them."""

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Encode the text of one document anew, whatever is known of it: (1, dim)."""

    def query(self, text: str) -> Vectors:
        """Give the vector of a query: (dim,)."""

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name from now on."""
