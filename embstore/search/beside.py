"""Collections that stand beside another one while that is mended: how they are called, and which of them are ours.

What we build is marked in its metadata with the name of the other one. A name alone says nothing: another program, or
an embstore of before, may have a collection that is called so.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

from embstore.errors import SearchIndexError
from embstore.search.collection import PAGE, find_collection, import_chromadb, other_metadata, record_pages

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

REBUILDING, REBUILT, MENDING, DAMAGED = ".rebuilding", ".rebuilt", ".mending", ".damaged"
RESERVED_SUFFIXES = (REBUILDING, REBUILT, MENDING, DAMAGED)

MARK_KEY = "embstore:rebuild_of"

_NAME_CHARS = 512  # that Chroma takes


def beside(name: str, suffix: str) -> str:
    """Name a collection beside another one; of a name that is too long for that, the digest stands for it."""
    if len(name) + len(suffix) > _NAME_CHARS:
        name = sha256(name.encode()).hexdigest()
    return name + suffix


def without_mark(collection: Collection) -> dict[str, Any]:
    """Give the metadata that a collection has when it stands for itself."""
    return {key: value for key, value in other_metadata(collection).items() if key != MARK_KEY}


def find_beside(client: ClientAPI, name: str, suffix: str) -> Collection | None:
    """Get the collection that was built beside another one; None where there is none, or not one of ours."""
    collection = find_collection(client, beside(name, suffix))
    if collection is None or (collection.metadata or {}).get(MARK_KEY) != name:
        return None
    return collection


def check_free(client: ClientAPI, name: str, suffix: str) -> None:
    """Raise SearchIndexError where a collection stands in the way of one that is to be built beside another."""
    in_the_way = beside(name, suffix)
    if find_collection(client, in_the_way) is not None:
        raise SearchIndexError(
            f"collection {name!r} cannot be mended: the collection {in_the_way!r} is in the way, and embstore did not "
            f"build it for that; rename or delete it, and repeat this",
            collection_name=name,
            in_the_way=in_the_way,
        )


def free_damaged_name(client: ClientAPI, name: str) -> str:
    """Find a name for what is kept aside of a collection."""
    candidates = (beside(name, f".{n}{DAMAGED}" if n > 1 else DAMAGED) for n in count(1))
    return next(candidate for candidate in candidates if find_collection(client, candidate) is None)


def drop(client: ClientAPI, collection: Collection) -> None:
    """Delete a collection, its records first: their lists would be left to records that come later."""
    doc_ids = list(ids_of(collection))  # chroma-core/chroma#7594
    for start in range(0, len(doc_ids), PAGE):
        with suppress(import_chromadb().errors.InternalError):  # they are gone all the same
            collection.delete(ids=doc_ids[start : start + PAGE])
    client.delete_collection(collection.name)


def drop_beside(client: ClientAPI, name: str, suffix: str) -> None:
    """Delete what was built beside a collection, if there is something."""
    collection = find_beside(client, name, suffix)
    if collection is not None:
        drop(client, collection)


def ids_of(collection: Collection) -> set[str]:
    """Read all ids; some damage shows in the first call only."""
    with suppress(import_chromadb().errors.InternalError):
        collection.count()
    return {doc_id for page in record_pages(collection, []) for doc_id in page["ids"]}
