"""Putting records in the place of what a collection has of them, so that a process that ends meanwhile loses none.

Chroma deletes and adds in two steps. Before the first one the records are written, with all that they hold, to a
collection of their own, and whoever opens or mends the collection next adds what is there and not in the collection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from embstore.codec import Vectors, as_vectors
from embstore.search.base import HASH_KEY, VectorSource, hash_bytes
from embstore.search.beside import (
    MARK_KEY,
    MENDING,
    beside,
    check_free,
    drop,
    find_beside,
    free_damaged_name,
    ids_of,
    without_mark,
)
from embstore.search.collection import (
    PAGE,
    are_alike,
    get_collection,
    import_chromadb,
    other_metadata,
    record_pages,
    write_slices,
)
from embstore.search.reach import readable_vectors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

COPIED: Any = ["documents", "metadatas", "uris"]

# So that what is set aside is never written to files of a vector index, which an unclean end tears; and the vectors
# are kept as they are.
_IN_THE_LOG_ONLY: Any = {"hnsw": {"space": "l2", "sync_threshold": 2**20}}

_logger = logging.getLogger("embstore.search")


def put_anew(client: ClientAPI, name: str, records: Mapping[str, Any]) -> None:
    """Delete the records of a collection that have the ids of others, and add these.

    A crash loses nothing: either the old ones are there, or `finish_replacing` adds the new ones.

    Parameters
    ----------
    client : chromadb client
    name : str
        The collection's.
    records : mapping
        What ``Collection.add`` takes in one call, which is atomic.
    """
    finish_replacing(client, name)
    check_free(client, name, MENDING)
    collection = get_collection(client, name)
    metadata = {**other_metadata(collection), MARK_KEY: name}
    aside = client.create_collection(
        beside(name, MENDING), embedding_function=None, configuration=_IN_THE_LOG_ONLY, metadata=metadata
    )
    try:
        aside.add(**records)
        collection.delete(ids=records["ids"])
        collection.add(**records)
        drop(client, aside)
    except import_chromadb().errors.InternalError:
        raise  # whoever mends the index needs them
    except BaseException:
        with suppress(Exception):  # of Ctrl-C nothing is to stay: what is deleted later would come back from there
            finish_replacing(client, name)
        raise


def finish_replacing(client: ClientAPI, name: str, source: VectorSource | None = None) -> bool:
    """Add to a collection what a process that ended while it put records anew has left out of it.

    Parameters
    ----------
    client : chromadb client
    name : str
        A collection that is there.
    source : VectorSource, optional
        Where vectors are sought that were lost. Without it records that have none are left for the next call; with
        it, what has none there either is kept aside.

    Returns
    -------
    bool
        Whether there was anything to finish.
    """
    aside = find_beside(client, name, MENDING)
    if aside is None:
        return False
    collection = get_collection(client, name)
    there, lost = ids_of(collection), list[str]()
    # Of a collection that was deleted and made again meanwhile nobody knows whether these belong to it.
    is_same = are_alike(aside, collection)
    for page in record_pages(aside, COPIED):
        page = rows_of(page, [row for row, doc_id in enumerate(page["ids"]) if doc_id not in there])
        vectors = vectors_of(aside, page, source)[0] if is_same else {}
        for records in records_with_vectors(page, vectors):
            collection.add(**records)
        lost += [doc_id for doc_id in page["ids"] if doc_id not in vectors]
    if not lost:
        drop(client, aside)
    elif source is not None:
        _keep_aside(client, name, aside, lost)
    return True


def rows_of(page: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
    """Give some rows of a page of records."""
    return {column: [page[column][row] for row in rows] for column in ("ids", *COPIED)}


def vectors_of(
    collection: Collection | None, page: Mapping[str, Any], source: VectorSource | None
) -> tuple[dict[str, Vectors], int]:
    """Give the vectors of a page's records by id, first those that are stored, and how many these are."""
    vectors: dict[str, Vectors] = {}
    if source is not None:
        keys = [hash_bytes((metadata or {}).get(HASH_KEY)) for metadata in page["metadatas"]]
        hash_of = {doc_id: key for doc_id, key in zip(page["ids"], keys, strict=True) if key is not None}
        found, stored = source.stored(list(hash_of.values()))
        vectors = {doc_id: stored[row] for row, doc_id in enumerate(hash_of) if found[row]}
    if collection is None:
        return vectors, len(vectors)
    rest = [doc_id for doc_id in page["ids"] if doc_id not in vectors]
    return {**vectors, **readable_vectors(collection, rest)}, len(vectors)


def records_with_vectors(page: Mapping[str, Any], vectors: Mapping[str, Vectors]) -> Iterator[dict[str, Any]]:
    """Give the records of a page that have a vector, with all that they hold, as ``Collection.add`` takes them."""
    rows = [row for row, doc_id in enumerate(page["ids"]) if doc_id in vectors]
    if not rows:
        return
    whole = rows_of(page, rows)
    matrix = as_vectors([vectors[doc_id] for doc_id in whole["ids"]])
    for some in write_slices(whole["documents"], matrix.shape[1], PAGE):
        yield {
            "ids": whole["ids"][some],
            "embeddings": cast(Any, matrix[some]),
            "documents": whole["documents"][some],
            "metadatas": [metadata or None for metadata in whole["metadatas"][some]],
            "uris": whole["uris"][some],
        }


def _keep_aside(client: ClientAPI, name: str, aside: Collection, lost: list[str]) -> None:
    kept = free_damaged_name(client, name)
    aside.modify(name=kept, metadata=without_mark(aside))
    _logger.warning(
        "collection %r: %d documents were lost while they were put anew, %r among them, and have no vector; index "
        "them again. They are kept as %r",
        name,
        len(lost),
        lost[0],
        kept,
    )
