"""EmbeddingCache: look up, encode only what is missing, store, give back in the caller's order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embstore.codec import Vectors, as_vectors
from embstore.contents import FillReport
from embstore.encoders import NamedEncoder, as_encoder
from embstore.errors import InvalidTypeError
from embstore.filling import Filling
from embstore.identity import Dtype, Role, check_role, content_hash, is_storable
from embstore.inputs import (
    HashedTexts,
    check_collection,
    check_count,
    check_doc_ids,
    check_lease,
    check_same_length,
)
from embstore.putting import PutEmbeddings


class EmbeddingCache(PutEmbeddings):
    """A cache of text embeddings in one SQLite file, or on a PostgreSQL server that many machines share.

    A vector is stored under the identity of its model and the SHA-256 of its text, and comes back bit for bit.
    A text is encoded once, whatever the documents, calls, processes and crashes between. Instances may be used
    from any thread and after a fork.

    With ``dtype="float16"`` the vectors of new models take half the space. Each value x is rounded to the nearest of
    IEEE 754's binary16, so that it moves by ``2**-11 * abs(x)`` at most, or by ``2**-25`` where ``abs(x) < 2**-14``
    (6.1e-5). A vector of length 1 so turns by 0.0005 at most, and the cosine of two moves by less than 0.001. What is
    given back is float32, and the same on a miss as on a hit. A model that is stored keeps its format, whatever a
    cache is opened with; `convert` changes it without encoding anything.

    Parameters
    ----------
    path : str or Path
        The file, created with its folder where it does not exist; or the URL of a server,
        ``"postgresql://user@host:5432/database"``, whose password can also be in PGPASSWORD or a password file.
    timeout_s : float
        How long to wait for another process's lock, and for a server.
    check_canary : bool
        Encode one fixed text once per model object, to tell whether the model behind a name has changed.
    allow_network_filesystem : bool
        Use a file on NFS, SMB and the like, whose locks cannot be trusted: two machines that write at once can
        damage it.
    dtype : "float32" or "float16"
        The format in which the vectors of models are stored that are new in the file.
    lease_s : float, optional
        Share the texts that are missing with other processes that use the store at the same time, so that each is
        encoded by one of them; all have to give it. Whoever encodes a text has a lease on it, others wait until it is
        stored. A process that dies holds its texts up for that many seconds, 1 to 3,600; one that lives renews its
        leases. By default processes that miss a text at the same time each encode it, and one vector is kept.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        `dtype`, `timeout_s` or `lease_s` cannot be used; no file was created.
    StoreError
        The file cannot be used; its bytes are as they were. The subclass and the message say why.
    """

    def __init__(
        self,
        path: str | Path = "embeddings.db",
        *,
        timeout_s: float = 30.0,
        check_canary: bool = True,
        allow_network_filesystem: bool = False,
        dtype: Dtype = "float32",
        lease_s: float | None = None,
    ) -> None:
        self.lease_s = check_lease(lease_s)
        super().__init__(
            path,
            timeout_s=timeout_s,
            check_canary=check_canary,
            allow_network_filesystem=allow_network_filesystem,
            dtype=dtype,
        )

    def get(
        self,
        doc_id: str,
        text: str,
        model: Any = None,
        *,
        model_name: str | None = None,
        role: Role = "document",
        collection: str = "",
        embedding_model: Any = None,
    ) -> Vectors:
        """Give the vector of a document's text, encoded and stored where it is new.

        One that was given before comes from memory for as long as nobody has written to the file.

        Parameters
        ----------
        doc_id : str
            Any non-empty string. Where it stood for another text, it stands for this one from now on.
        text : str
        model : str, SentenceTransformer or Encoder
            What encodes the text where its vector is not stored.
        model_name : str, optional
            The name to store it under, where it is not the model's own.
        role : "document" or "query"
        collection : str
            Keeps the ids of several collections apart.
        embedding_model
            Another word for `model`.

        Returns
        -------
        ndarray of shape (dim,), float32

        Raises
        ------
        EmbstoreError
            As `get_many`. The document is stored whole or not at all.
        """
        if (model is None) == (embedding_model is None):
            raise InvalidTypeError("give the model that encodes the text, once: get(doc_id, text, model)")
        encoder = as_encoder(embedding_model if model is None else model, model_name)
        stored = self._stored_vector(doc_id, text, encoder, check_role(role), collection)
        if stored is not None:
            return stored
        (vector,) = self.fill([doc_id], [text], encoder, role=role, collection=collection, progress=False).vectors
        return as_vectors(vector)

    def get_many(
        self,
        doc_ids: Iterable[str],
        texts: Iterable[str],
        model: Any,
        *,
        model_name: str | None = None,
        role: Role = "document",
        collection: str = "",
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> Vectors:
        """Give the vectors of documents' texts; distinct texts that are new are encoded once each, in batches.

        What is encoded is stored in groups of about a second of model work or 5,000 rows (more in a file of more than
        500,000), each group with its documents in one transaction. A call that finds everything as it was writes
        nothing.

        Parameters
        ----------
        doc_ids : iterable of n str
            Non-empty. The same id may stand twice with the same text.
        texts : iterable of n str
        model : str, SentenceTransformer or Encoder
        model_name : str, optional
            The name to store vectors under, where it is not the model's own.
        role : "document" or "query"
        collection : str
            Keeps the ids of several collections apart.
        batch_size : int
            The most texts that the model is given at once.
        progress : bool, optional
            Show a progress bar; by default where stderr is a terminal.

        Returns
        -------
        ndarray of shape (n, dim), float32
            Row i is the vector of the i-th text.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            Bad ids or texts; nothing was written.
        EncoderError, ModelChangedError, DimensionError, OutOfRangeError
            Of the model; the last where its vectors are stored as float16, which has no place for a value over 65504.
            Nothing of the batch that failed is stored; batches before it are.
        StoreError
            Of the file. Groups that were stored before stay.
        """
        return self.fill(
            doc_ids,
            texts,
            model,
            model_name=model_name,
            role=role,
            collection=collection,
            batch_size=batch_size,
            progress=progress,
        ).vectors

    def fill(
        self,
        doc_ids: Iterable[str] | None,
        texts: Iterable[str],
        model: Any,
        *,
        model_name: str | None = None,
        role: Role = "document",
        collection: str = "",
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> FillReport:
        """Do what `get_many` does, and tell what it cost.

        Parameters
        ----------
        doc_ids : iterable of n str, or None
            None for texts that have no id, as `embed` takes them.
        texts, model, model_name, role, collection, batch_size, progress
            As of `get_many`.

        Returns
        -------
        FillReport
            `vectors` of shape (n, dim), `n_encoded` and `n_hits` in distinct texts, `encode_s` in seconds.
        """
        hashed = HashedTexts.of(texts)
        if doc_ids is not None:
            doc_ids = check_doc_ids(doc_ids)
            check_same_length(doc_ids, hashed.texts)
        filling = Filling(
            self._store,
            self._guard,
            as_encoder(model, model_name),
            role=check_role(role),
            collection=check_collection(collection),
            doc_ids=doc_ids,
            lease_s=self.lease_s,
        )
        batch_size = check_count(batch_size, "batch_size")
        return filling.fill(hashed, batch_size=batch_size, progress=progress)

    def embed(
        self,
        texts: Iterable[str],
        model: Any,
        *,
        model_name: str | None = None,
        role: Role = "document",
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> Vectors:
        """Give the vectors of texts that have no id; as `get_many` otherwise.

        Returns
        -------
        ndarray of shape (n, dim), float32
        """
        return self.fill(
            None, texts, model, model_name=model_name, role=role, batch_size=batch_size, progress=progress
        ).vectors

    def embed_query(self, text_or_texts: str | Iterable[str], model: Any, *, model_name: str | None = None) -> Vectors:
        """Give the vector of a query, or of several; as `embed` with ``role="query"``.

        Returns
        -------
        ndarray of shape (dim,) for a str, (n, dim) otherwise, float32
        """
        if isinstance(text_or_texts, str):
            (vector,) = self.embed([text_or_texts], model, model_name=model_name, role="query", progress=False)
            return as_vectors(vector)
        return self.embed(text_or_texts, model, model_name=model_name, role="query", progress=False)

    def canary(self, model: Any, *, model_name: str | None = None, role: Role = "document") -> Vectors | None:
        """Give what a model makes of the fixed text by which models are compared; encoded once a model object.

        Returns
        -------
        ndarray of shape (dim,), float32, or None
            None with ``check_canary=False``.

        Raises
        ------
        EncoderError
            The model cannot take that text.
        """
        encoder = as_encoder(model, model_name)
        return self._guard.canary(encoder, check_role(role), encoder.identity(role))

    def _stored_vector(
        self, doc_id: str, text: str, encoder: NamedEncoder, role: Role, collection: str
    ) -> Vectors | None:
        """Give the vector of a document that is recorded as it is now; None where `fill` has to tell more."""
        are_texts = type(doc_id) is type(text) is type(collection) is str
        if not (are_texts and is_storable(doc_id) and is_storable(collection)):
            return None
        identity = encoder.identity(role)
        found = self._store.read_document(identity, collection, doc_id, content_hash(text))
        if found is None or (found[0].canary is None and self.check_canary):
            return None
        model, vector = found
        self._guard.check(encoder, role, identity, model, None)
        self._store.note_hits(model, n_texts=1, n_chars=len(text))
        return vector
