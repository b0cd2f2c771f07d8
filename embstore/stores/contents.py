"""Taking contents from one store to another: the protocol, and the values that cross it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors

if TYPE_CHECKING:
    from embstore.stores.base import StoredModel


@dataclass(frozen=True)
class ContentPage:
    """Some contents of a model with their vectors, and the documents that have them.

    Attributes
    ----------
    content_hashes : list of n bytes
    vectors : ndarray of shape (n, dim), float32
    standalone : ndarray of shape (n,), bool
        The text was also cached without an id.
    documents : list of (collection, doc_id, row)
        Row is that of the document's content.
    """

    content_hashes: list[bytes]
    vectors: Vectors
    standalone: npt.NDArray[np.bool_]
    documents: list[tuple[str, str, int]]


class ContentStore(Protocol):
    """The part of a `Store` that gives what it holds as it is, and takes what it does not hold yet."""

    def contents(self, model: StoredModel, *, batch_rows: int) -> Iterator[ContentPage]:
        """Read all vectors of a model and all its documents, in pages; each page is one state of the store."""

    def insert_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> int:
        """Point those distinct doc_ids that are not stored yet at contents whose vectors are; tell how many."""
