"""From a database of embeddings of Simon Willison's `llm`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from embstore.codec import VECTOR_DTYPE
from embstore.errors import SourceError
from embstore.identity import Role, Setting, content_hash
from embstore.putting import PutEmbeddings
from embstore.stores.llm_rows import LlmCollection, LlmRows, Row
from embstore.transfer.digests import NO_TEXT, Digests
from embstore.transfer.importing import Owner, SourceRow, broken, import_models
from embstore.transfer.report import Skipped, TransferReport


def import_llm(
    cache: PutEmbeddings,
    path: str | Path,
    *,
    texts: Iterable[str] = (),
    source_collection: str | None = None,
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    collection: str | None = None,
    progress: bool | None = None,
) -> TransferReport:
    """Take in the collections of a database of `llm`, bit for bit.

    A row whose text was stored (``llm embed-multi --store``) is of that text; of the others the MD5 is known, and the
    texts that are given are sought by it. What is of other content than text, and what was changed after it was
    embedded, is skipped.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    path : str or Path
        As ``llm collections path`` says. It is only read.
    texts : iterable of str
        What was embedded without being stored.
    source_collection : str, optional
        One of its collections; by default all.
    model, model_name, settings, role
        Whose vectors they are, as of `EmbeddingCache.put_many`; a name of a model that can be loaded too. By default
        the name is that by which `llm` knows it, of each collection.
    collection : str, optional
        Where the documents come to; by default collections of the same names.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    SourceError
        It is no such database or has no such collection, a row is broken, or a name is given for collections of several
        models; the message names it, and tells what was stored before.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    path = Path(path)
    digests = Digests(texts)
    with closing(LlmRows(path)) as source:
        chosen = _chosen(path, source.collections(), source_collection)
        names = sorted({some.model for some in chosen})
        if len(names) > 1 and (model is not None or model_name is not None):
            raise SourceError(
                f"{str(path)!r} has vectors of {', '.join(map(repr, names))}, which are not of one model; choose one "
                f"by source_collection=",
                path=str(path),
            )
        rows_of = (
            (
                Owner.of(cache, model, model_name or (some.model if model is None else None), settings, role),
                _rows(path, source, some, digests, some.name if collection is None else collection),
            )
            for some in chosen
        )
        n_rows = sum(some.n_rows for some in chosen)
        return import_models(cache, path, rows_of, total=n_rows, progress=progress)


def _chosen(path: Path, there: list[LlmCollection], name: str | None) -> list[LlmCollection]:
    chosen = [some for some in there if name in (None, some.name)]
    if not chosen and name is not None:
        told = ", ".join(repr(some.name) for some in there) or "none"
        raise SourceError(f"{str(path)!r} has no collection {name!r:.80}; it has {told:.400}", path=str(path))
    return chosen


def _rows(
    path: Path, source: LlmRows, collection: LlmCollection, digests: Digests, into: str
) -> Iterator[SourceRow | Skipped]:
    for row in source.rows(collection):
        doc_id, blob, *_ = row
        place = f"{path}: collection {collection.name!r:.80}, id {doc_id!r:.80}"
        if not isinstance(doc_id, str) or not isinstance(blob, bytes) or not blob or len(blob) % 4:
            raise broken(path, place, "it has no id, or its embedding is no float32 values")
        found = _content(place, row, digests)
        if isinstance(found, Skipped):
            yield found
        else:
            yield SourceRow(place, found, np.frombuffer(blob, VECTOR_DTYPE), doc_id, into)


def _content(place: str, row: Row, digests: Digests) -> bytes | Skipped:
    """Tell of what content a row is, or why that is not known."""
    _, _, text, other, digest = row
    if other is not None or not isinstance(digest, bytes):
        return Skipped(place, "its content is no text" if other is not None else "it has no content_hash")
    if text is None:
        return digests.find(digest.hex()) or Skipped(place, NO_TEXT)
    if not isinstance(text, str):
        return Skipped(place, "its content is no text")
    if hashlib.md5(text.encode(), usedforsecurity=False).digest() != digest:
        return Skipped(place, "its content is not what was embedded: the content_hash is another")
    return content_hash(text)
