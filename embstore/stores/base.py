"""What a store must do: the protocol, and the values that cross it.

A store knows model identities, content hashes, vectors and documents, and nothing of encoders. Of texts it knows only
what `embstore.stores.texts` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.identity import Dtype, ModelIdentity
from embstore.stores.byte_values import ByteStore
from embstore.stores.contents import ContentStore
from embstore.stores.infos import DocumentInfo as DocumentInfo
from embstore.stores.infos import ModelInfo as ModelInfo
from embstore.stores.infos import Problem as Problem
from embstore.stores.infos import PruneReport as PruneReport
from embstore.stores.infos import Stats as Stats
from embstore.stores.leases import LeaseStore
from embstore.stores.shards import Shard
from embstore.stores.texts import TextStore

T = TypeVar("T")


@dataclass(frozen=True)
class StoredModel:
    """A model that a store has vectors of."""

    model_id: int
    identity: ModelIdentity
    dim: int
    canary: Vectors | None
    created_at: str

    @property
    def dtype(self) -> Dtype:
        """The format in which its vectors are stored; the canary is float32 in each."""
        return self.identity.dtype


@dataclass(frozen=True)
class VectorLookup:
    """What a store has of n contents, row i for the i-th hash that was asked for.

    Attributes
    ----------
    vectors : ndarray of shape (n, dim), float32
        Only the rows in `found` mean anything.
    found : ndarray of shape (n,), bool
        The vector is stored, and it is the one that was written.
    damaged : ndarray of shape (n,), bool
        There is a row, and it is not what was written.
    standalone : ndarray of shape (n,), bool
        The text was also cached without an id.
    vector_ids : ndarray of shape (n,), int64
        Where the store keeps it, 0 where it does not.
    """

    vectors: Vectors
    found: npt.NDArray[np.bool_]
    damaged: npt.NDArray[np.bool_]
    standalone: npt.NDArray[np.bool_]
    vector_ids: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, n: int, dim: int) -> VectorLookup:
        """Give the answer of a store that has none of n contents."""
        nothing = np.zeros(n, dtype=np.bool_)
        return cls(np.empty((n, dim), np.float32), nothing, nothing.copy(), nothing.copy(), np.zeros(n, dtype=np.int64))

    def take(self, rows: Sequence[int]) -> VectorLookup:
        """Give some rows, in this order."""
        at = np.array(rows, dtype=np.intp)
        return VectorLookup(
            self.vectors[at], self.found[at], self.damaged[at], self.standalone[at], self.vector_ids[at]
        )


class Store(ContentStore, Protocol):
    """Where rows live.

    Every method is atomic. All writes of one `write` are atomic together. Methods may be called from any thread and,
    after a fork, from the child. Vectors cross it as float32, whatever they are stored as: what is
    read is what was written as `formats.rounded` gives it. A model that was converted after it was found is read and
    written in its present format.
    """

    location: str
    """The absolute path of the file, or the URL of the server without its password."""
    read_only: bool
    dtype: Dtype
    """The format of models that are new."""

    @property
    def texts(self) -> TextStore:
        """The collections whose texts are in the store too."""

    @property
    def byte_values(self) -> ByteStore:
        """Bytes by key, of whoever keeps something there."""

    @property
    def leases(self) -> LeaseStore:
        """Who encodes which text at present."""

    def reading(self) -> AbstractContextManager[Any]:
        """Let the reads of a block see one state of the store."""

    def read(self, work: Callable[[], T]) -> T:
        """Give what some work gives, whose reads see one state of the store; it may be called again from the start."""

    def write(self, work: Callable[[], T], *, again: bool = False) -> T:
        """Give what some work gives, whose writes are one transaction, durable on return; where it raises, none is.

        It may be called again from the start where a server could not put it in order with what others write at once.
        With `again` it is so, too, where a server does not tell whether it was committed: work that changes nothing
        where it has been done. Work within other work belongs to its transaction.
        """

    def find_model(self, identity: ModelIdentity) -> StoredModel | None:
        """Give the model of an identity, in the format that the identity says."""

    def find_variant(self, identity: ModelIdentity) -> StoredModel | None:
        """Give the model of an identity that says no format in whichever it is stored; of both, in the store's own."""

    def find_models(self, model_name: str | None = None) -> list[StoredModel]:
        """Give the models of a name, or all, oldest first."""

    def ensure_model(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """Give the model of an identity, stored now where it was not, in the format that the identity says."""

    def ensure_variant(self, identity: ModelIdentity, dim: int, canary: Vectors | None) -> StoredModel:
        """Give what `find_variant` gives, stored now in the store's own format where it was in none."""

    def group_rows(self) -> int:
        """Tell how many rows are to be stored together for a row to cost what it costs in a small store."""

    def set_canary(self, model: StoredModel, canary: Vectors) -> StoredModel:
        """Store the canary of a model that has none; keep the one it has."""

    def look_up(self, model: StoredModel, content_hashes: Sequence[bytes]) -> VectorLookup:
        """Read the vectors of distinct contents."""

    def recorded(
        self,
        model: StoredModel,
        collection: str,
        doc_ids: Sequence[str],
        content_hashes: Sequence[bytes],
        vector_ids: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """Tell, for each of n distinct doc_ids, whether it is stored with this content: (n,) bool."""

    def read_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> Vectors | None:
        """Read the vectors of n documents that are stored with these contents, all of them and soundly; else None."""

    def read_document(
        self, identity: ModelIdentity, collection: str, doc_id: str, content_hash: bytes
    ) -> tuple[StoredModel, Vectors] | None:
        """Read the vector of one document, (dim,), and its model, where it is stored soundly with this content.

        None also where the store would take longer to tell: `find_model` and `read_documents` do.
        """

    def insert_vectors(
        self, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
    ) -> int:
        """Store the vectors of distinct contents that have none yet, and tell how many that were."""

    def replace_vectors(
        self, model: StoredModel, content_hashes: Sequence[bytes], vectors: Vectors, *, standalone: bool
    ) -> int:
        """Store the vectors of distinct contents in place of any there, and tell how many had none."""

    def mark_standalone(self, model: StoredModel, content_hashes: Sequence[bytes]) -> None:
        """Note that these texts were cached without an id."""

    def note_encoding(self, model: StoredModel, *, n_texts: int, n_chars: int, seconds: float) -> None:
        """Add to the record of what a model has encoded and how long it took."""

    def note_hits(self, model: StoredModel, *, n_texts: int, n_chars: int) -> None:
        """Count texts that were found: noted along with the next write of this process, and nothing is written now."""

    def seconds_per_char(self, model: StoredModel) -> float | None:
        """Tell how long a model has taken for a character of text, None where it is not known."""

    def put_documents(
        self, model: StoredModel, collection: str, doc_ids: Sequence[str], content_hashes: Sequence[bytes]
    ) -> None:
        """Point distinct doc_ids at contents whose vectors are stored."""

    def matrix(
        self, model: StoredModel, *, collection: str | None, doc_ids: Sequence[str] | None, dim: int | None = None
    ) -> tuple[list[str], Vectors]:
        """Read the vectors of documents, in one state of the store: as asked for, else in the order stored.

        With `dim`, no more than those of the model, they are truncated to that, and never in memory as a whole.
        """

    def pages(
        self, model: StoredModel, *, collection: str | None, batch_rows: int, shard: Shard | None = None
    ) -> Iterator[tuple[list[str], Vectors]]:
        """Read the vectors of documents in pages, in the order stored; each page is one state of the store.

        With `shard`, those of one share; `embstore.stores.shards` says which these are.
        """

    def list_documents(self, model_name: str | None, collection: str | None) -> Iterator[DocumentInfo]:
        """List documents by model, collection and id."""

    def find_documents(self, doc_id: str, model_name: str | None, collection: str | None) -> list[DocumentInfo]:
        """List the documents that have a doc_id, by model and collection."""

    def forget_documents(self, doc_ids: Sequence[str] | None, *, model_name: str | None, collection: str | None) -> int:
        """Forget documents, and their vectors where no other document uses them; tell how many documents."""

    def forget_models(self, model_name: str | None) -> int:
        """Forget models with all their vectors and documents; tell how many documents."""

    def prune(self, *, standalone: bool, dry_run: bool) -> PruneReport:
        """Remove the vectors that no document uses."""

    def rename_model(self, old: str, new: str) -> None:
        """Give all identities of a model another name."""

    def convert(self, model: StoredModel, dtype: Dtype) -> int:
        """Store the vectors of a model in another format, and tell how many they are."""

    def count_documents(self) -> int:
        """Count the rows of the view."""

    def has_document(self, doc_id: str) -> bool:
        """Tell whether a doc_id is stored, of any model in any collection."""

    def stats(self) -> Stats:
        """Count everything."""

    def verify(self) -> list[Problem]:
        """Check everything."""

    def compact(self) -> int:
        """Give unused space back to the file system, and tell how many bytes."""

    def backup(
        self, path: str | Path, *, allow_network_filesystem: bool, on_progress: Callable[[int, int], object]
    ) -> list[Problem]:
        """Copy one state of the store to a new file, whole or not at all, and tell what is wrong with the copy.

        `on_progress` is called with the number of parts that are copied, and of all.
        """

    def close(self) -> None:
        """Let go of every connection."""
