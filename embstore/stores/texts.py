"""Collections whose texts and metadata are in the store too: the protocol, and the values that cross it.

A search index that needs no database of its own is made of them and of the vectors of their contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embstore.identity import ModelIdentity


@dataclass(frozen=True)
class StoredCollection:
    """A collection of texts.

    Attributes
    ----------
    name : str
    identity : ModelIdentity
        The model that its documents are searched with.
    n_texts : int
    texts_version : int
        Higher after every change of its texts.
    vectors_version : int
        Higher after every call that replaced vectors of its model by others, or removed some.
    """

    name: str
    identity: ModelIdentity
    n_texts: int = 0
    texts_version: int = 0
    vectors_version: int = 0


@dataclass(frozen=True)
class StoredText:
    """A document of a collection: its text as it can be stored, the hash of what it was, and metadata as JSON."""

    doc_id: str
    content_hash: bytes
    metadata: str
    text: str


class TextStore(Protocol):
    """Where the texts of collections live. Every method is atomic, and part of a block of the `Store` around it."""

    def find_collection(self, name: str) -> StoredCollection | None:
        """Give a collection."""

    def list_collections(self) -> list[StoredCollection]:
        """List the collections, by name."""

    def ensure_collection(self, name: str, identity: ModelIdentity) -> StoredCollection:
        """Give a collection, stored now where it was not; one with texts keeps its model, an empty one takes this."""

    def rename_model(self, old: str, new: str) -> None:
        """Give the model of all collections that are of `old` another name."""

    def text_ids(self, collection: str) -> npt.NDArray[np.int64]:
        """List the rows of a collection, ascending; what is written in place of a row has another, higher id."""

    def read(self, collection: str, text_ids: npt.NDArray[np.int64]) -> dict[int, StoredText]:
        """Read the rows of ascending text_ids, in this order; those that are not there are left out."""

    def find(self, collection: str, doc_ids: Sequence[str]) -> dict[str, StoredText | None]:
        """Read the rows of some doc_ids; those that are not there are left out, and None stands for a damaged one."""

    def put(self, collection: str, texts: Sequence[StoredText]) -> None:
        """Write texts of distinct doc_ids into a collection that is stored, in the place of any there."""

    def delete(self, collection: str, doc_ids: Sequence[str]) -> int:
        """Remove distinct doc_ids, and tell how many were there."""
