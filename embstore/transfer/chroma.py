"""From a collection of Chroma's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embstore.errors import SourceError
from embstore.identity import Role, Setting, content_hash
from embstore.putting import PutEmbeddings
from embstore.search.base import HASH_KEY
from embstore.search.collection import (
    chroma_errors,
    get_collection,
    import_chromadb,
    noted_identity,
    noted_truncation,
    open_client,
    record_pages,
)
from embstore.search.lock import LibraryHandle
from embstore.search.reach import readable_vectors
from embstore.transfer.importing import Owner, SourceRow, import_rows
from embstore.transfer.matrix import content_of
from embstore.transfer.report import Skipped, TransferReport

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

_DATABASE_NAME = "chroma.sqlite3"

_REPLACED = "\ufffd"  # stands in the document for what Chroma takes no text with; the hash is that of the text


def import_chroma(
    cache: PutEmbeddings,
    source: str | Path | Collection,
    *,
    source_collection: str | None = None,
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    collection: str | None = None,
    progress: bool | None = None,
) -> TransferReport:
    """Take in the documents and vectors of a collection of Chroma's.

    Chroma gives float32 back as float64, from which each value is taken bit for bit. A collection that measures by
    cosine has vectors that it scaled to length 1 and back, so that a value may be off by 1e-7 of the longest; others
    have them as they were added. Records without a document are skipped, and so are those whose vectors Chroma lost.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    source : str, Path or chromadb Collection
        The folder of a PersistentClient, which nobody else may have open, or a collection of any client.
    source_collection : str, optional
        Which collection of the folder, where it has several.
    model, model_name, settings, role
        Whose vectors they are, as of `EmbeddingCache.put_many`; a name of a model that can be loaded too. A collection
        that embstore has made says so itself.
    collection : str, optional
        Where the documents come to; by default a collection of the same name.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    MissingExtraError
        The extra ``chroma`` is not installed.
    LibraryLockedError
        Another process has the folder open.
    SourceError
        It is no such folder or has no such collection, its vectors are cut short, or a record is broken; the message
        names it, and tells what was stored before.
    SearchIndexError
        Chroma fails.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    import_chromadb()
    with ExitStack() as opened:
        found = _open(opened, Path(source), source_collection) if isinstance(source, (str, Path)) else source
        name = found.name
        place = f"{source}: {name}" if isinstance(source, (str, Path)) else f"collection {name}"
        if noted_truncation(found) is not None:
            raise SourceError(
                f"{place}: its vectors are the first {noted_truncation(found)} values of the model's, and not whole; "
                f"merge the cache that they came from",
                path=place,
            )
        own = noted_identity(found)
        if model is None and model_name is None and own is not None:
            model_name, settings = own.model_name, own.settings
        owner = Owner.of(cache, model, model_name, settings, role)
        with chroma_errors(f"read the {place}"):
            total = found.count()
        rows = _rows(found, place, name if collection is None else collection)
        return import_rows(cache, place, owner, rows, total=total, progress=progress)


def _open(opened: ExitStack, folder: Path, name: str | None) -> Collection:
    """Open a folder that is there, which a client would create, and the one collection, or that of a name."""
    if not (folder / _DATABASE_NAME).is_file():
        raise SourceError(f"{str(folder)!r} has no {_DATABASE_NAME}: no folder of Chroma's", path=str(folder))
    handle = LibraryHandle(folder, open_client)
    opened.callback(handle.close)
    with chroma_errors(f"list the collections in {str(folder)!r}"):
        names = sorted(some if isinstance(some, str) else some.name for some in handle.client.list_collections())
    chosen = [some for some in names if name in (None, some)]
    if len(chosen) != 1:
        what = f"no collection {name!r:.80}" if name is not None else f"{len(names)} collections"
        raise SourceError(
            f"{str(folder)!r} has {what}; say by source_collection= which of: {', '.join(names)[:400] or 'none'}",
            path=str(folder),
        )
    return get_collection(handle.client, chosen[0])


def _rows(collection: Collection, place: str, into: str) -> Iterator[SourceRow | Skipped]:
    is_ours = noted_identity(collection) is not None
    with chroma_errors(f"read the {place}"):
        for page in record_pages(collection, ["documents", "metadatas"]):
            vectors = readable_vectors(collection, page["ids"])
            records = zip(page["ids"], page["documents"], page["metadatas"], strict=True)
            for doc_id, document, metadata in records:
                of_record = f"{place}: id {doc_id!r:.80}"
                digest = (metadata or {}).get(HASH_KEY) if is_ours else None
                if document is None:
                    yield Skipped(of_record, "it has no document")
                elif digest is not None and digest != content_hash(document).hex() and _REPLACED not in document:
                    yield Skipped(of_record, "its document is not the one that was indexed")
                elif doc_id not in vectors:
                    yield Skipped(of_record, "Chroma has lost its vector")
                else:
                    found = content_of(place, of_record, None if digest else document, digest)
                    if found is not None:
                        yield SourceRow(of_record, found, vectors[doc_id], doc_id, into)
