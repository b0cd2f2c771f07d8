"""What an engine needs of an index and of a source of vectors, and the values that pass between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.encoders import NamedEncoder
from embstore.errors import CollectionMismatchError
from embstore.identity import ModelIdentity, content_hash

MetadataValue = str | int | float | bool | list[str] | list[int] | list[float] | list[bool]
Metadata = dict[str, MetadataValue]
MetadataPatch = dict[str, MetadataValue | None]
"""Keys to set, and with None the keys to remove."""
Where = Mapping[str, Any]

HASH_KEY = "embstore:hash"
"""Where a record of an index keeps the content hash of its text; no key of a user's metadata."""

_HASH = re.compile("[0-9a-f]{64}")


def hash_bytes(content_hash: object) -> bytes | None:
    """Read a content hash in lower hex, as records keep it; None where it is none."""
    if isinstance(content_hash, str) and _HASH.fullmatch(content_hash):
        return bytes.fromhex(content_hash)
    return None


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
    """What an index holds of a document.

    The hash is None where another program wrote the record, and "" where the index lost a part of it.
    """

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
    removed : int
        Documents that the source no longer has, and that were removed for it.
    """

    total: int
    added: int
    updated: int
    metadata_updated: int
    unchanged: int
    encoded: int
    from_cache: int
    seconds: float
    removed: int = 0

    @property
    def documents_per_s(self) -> float:
        """Documents given per second, 0.0 where none were given."""
        return self.total / self.seconds if self.total else 0.0


@dataclass(frozen=True)
class IndexPlan:
    """What `index_documents` would do, with nothing written and no model called.

    Attributes
    ----------
    total : int
        Documents given: ``new + changed + metadata_only + unchanged``.
    new, changed, metadata_only, unchanged : int
        Documents whose id the index does not hold, holds with another text, holds with the same text and other
        metadata, or holds as given.
    duplicates : int
        Documents whose text stands earlier in the same call.
    to_remove : int
        Documents that the index holds and the source does not have; 0 where nothing is to be removed.
    to_encode : int
        Distinct texts that the model would have to encode. Without a cache, one that comes again more than a thousand
        documents later is encoded, and counted, again.
    estimated_s : float or None
        Seconds that the model would take for them, by the speed it had before; None where it is not known.
    """

    total: int
    new: int
    changed: int
    metadata_only: int
    unchanged: int
    duplicates: int
    to_remove: int
    to_encode: int
    estimated_s: float | None


@dataclass(frozen=True)
class IndexRecord:
    """All that an index holds of a document.

    Attributes
    ----------
    doc_id : str
    document : str or None
        The text as the index holds it; None where another program wrote the record without one.
    content_hash : str or None
        None where another program wrote the record.
    metadata : dict
        Without the reserved key.
    vector : ndarray of shape (dim,), float32, or None
        None where the index has lost it.
    """

    doc_id: str
    document: str | None
    content_hash: str | None
    metadata: Metadata
    vector: Vectors | None


def check_same_identity(collection_name: str, *, stored: ModelIdentity | None, given: ModelIdentity) -> None:
    """Raise CollectionMismatchError where the model of a collection is not the one that was given."""
    if given != stored:
        raise CollectionMismatchError(
            f"collection {collection_name!r} holds vectors of the model {str(stored)!r}, not of {str(given)!r}; "
            f"use another collection_name=, or that model",
            collection_name=collection_name,
            stored=stored,
            given=given,
        )


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

    def check_identity(self, identity: ModelIdentity) -> None:
        """Raise CollectionMismatchError where it holds the vectors of another model."""

    def canary(self) -> Vectors | None:
        """Give the canary (dim,) that is noted; None where none is."""

    def is_filled(self) -> bool:
        """Tell whether there are vectors of the model whose canary is noted."""

    def note_canary(self, canary: Vectors) -> None:
        """Note the canary of the model that fills it from now on, as far as it can be written."""

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

    def count(self) -> int:
        """Count the documents that it holds."""

    def doc_ids(self, where: Where | None = None) -> Iterator[list[str]]:
        """List the ids of the documents that a filter lets through, in pages, in no order."""

    def records(self, doc_ids: Sequence[str] | None = None) -> Iterator[list[IndexRecord]]:
        """Read all that it holds, or what it holds of distinct doc_ids, in pages, in no order."""

    def put(self, records: Sequence[IndexRecord]) -> None:
        """Put records with their vectors, none of which is None, in the place of any under their distinct ids."""

    def unreachable(self) -> list[str]:
        """List the doc_ids that it holds and that no search would find."""

    def not_found(self, records: Sequence[IndexRecord]) -> list[str]:
        """List the doc_ids of those records that a search by their own vector does not find."""

    def mend(self, source: VectorSource) -> int:
        """Make searches find all that it holds, without the model, and tell how many documents they did not find."""


class VectorSource(Protocol):
    """Where the vectors of an engine come from: the one thing in which engines differ."""

    encoder: NamedEncoder

    keeps_vectors: bool
    """Whether a text that was encoded once is not encoded again."""

    cuts: bool
    """Whether its vectors are the leading values of those that are kept."""

    def canary(self) -> Vectors | None:
        """Give the model's canary, (dim,); None where models are not to be compared."""

    def missing(self, texts: Sequence[str]) -> list[str]:
        """List the distinct texts that `documents` would encode; the model is not called."""

    def estimate_s(self, n_chars: int) -> float | None:
        """Estimate the seconds that the model takes for so many characters; None where its speed is not known."""

    def stored(self, content_hashes: Sequence[bytes]) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Give the document vectors of n contents as far as they are kept: found (n,) and vectors (n, dim).

        The model is not called; only the rows in `found` mean anything.
        """

    def documents(self, doc_ids: Sequence[str], texts: Sequence[str]) -> tuple[Vectors, int]:
        """Give the vectors of n documents, (n, dim), and how many distinct texts were encoded for them."""

    def fresh(self, doc_id: str, text: str) -> Vectors:
        """Encode the text of one document anew, whatever is known of it: (1, dim)."""

    def encode(self, text: str) -> Vectors:
        """Encode the text of a document, of which nothing is kept: (dim,)."""

    def query(self, text: str) -> Vectors:
        """Give the vector of a query: (dim,)."""

    def rename_model(self, old: str, new: str) -> None:
        """Call the model by another name from now on."""
