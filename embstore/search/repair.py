"""Mending a Chroma collection whose vector index has lost records, without the model.

The documents and metadata of a collection survive what damages its vector index. A few lost records are put anew.
Where many are lost, or Chroma failed, a new collection is built beside the old one and takes its place: until it is
complete it is called ``<name>.rebuilding``, then ``<name>.rebuilt``, and whoever opens the collection next finishes
what a crash interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from embstore.errors import SearchIndexError
from embstore.search.base import VectorSource
from embstore.search.beside import (
    MARK_KEY,
    MENDING,
    REBUILDING,
    REBUILT,
    beside,
    check_free,
    drop,
    drop_beside,
    find_beside,
    free_damaged_name,
    ids_of,
    without_mark,
)
from embstore.search.collection import (
    SPACE,
    are_alike,
    find_collection,
    get_collection,
    import_chromadb,
    record_pages,
)
from embstore.search.reach import unreachable_ids
from embstore.search.replacing import (
    COPIED,
    finish_replacing,
    put_anew,
    records_with_vectors,
    rows_of,
    vectors_of,
)

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_FEW = 100
_FEW_SHARE = 0.01

_logger = logging.getLogger("embstore.search")


@dataclass
class _Copied:
    """How many records a new collection was given, by where their vectors came from, and how many had none."""

    n_stored: int = 0
    n_own: int = 0
    n_lost: int = 0


def mend(client: ClientAPI, name: str, source: VectorSource, failure: str = "") -> int:
    """Make searches of a collection find its records, as far as an index can, and tell how many they did not find.

    Nobody else may write to the collection meanwhile. After a crash the call can be repeated. Among very many vectors
    that are the same even a new index does not find all; then the one that finds more stays, and the log says so.

    Parameters
    ----------
    client : chromadb client
    name : str
    source : VectorSource
        Whose vectors are preferred to those that the collection still has.
    failure : str
        What Chroma said where it has failed in this collection. Its own vectors are not trusted then: those of other
        records may have been written over them.

    Raises
    ------
    SearchIndexError
        The new collection does not hold all records, or one of another program is in its way; the old one is as it
        was.
    """
    drop_beside(client, name, REBUILDING)
    finish_swap(client, name)
    lost: list[str] = []
    try:
        lost = unreachable_ids(get_collection(client, name))
        if not failure and finish_replacing(client, name, source):
            lost = unreachable_ids(get_collection(client, name))
    except import_chromadb().errors.InternalError as error:
        failure = failure or str(error)
    if failure:  # also where all later calls work: they answer without what that one could not do
        n = _rebuild(client, name, source, f"Chroma failed ({failure})", trusted=False)
    elif lost:
        n = len(lost)
        _mend_lost(client, name, source, lost)
    else:
        return 0
    finish_replacing(client, name, source)
    return n


def finish_swap(client: ClientAPI, name: str) -> None:
    """Put a new collection that is complete in the place of the old one, if there is one.

    The old one is kept by another name where it holds records that the new one does not: they had no vector.
    """
    rebuilt = find_beside(client, name, REBUILT)
    if rebuilt is None:
        return
    old = find_collection(client, name)
    if old is not None and not are_alike(old, rebuilt):
        return  # somebody has made it meanwhile
    if old is not None:
        _remove_old(client, old, n_lost=len(ids_of(old) - ids_of(rebuilt)))
    rebuilt.modify(name=name, metadata=without_mark(rebuilt))


def _remove_old(client: ClientAPI, old: Collection, n_lost: int) -> None:
    """Delete the collection that another one replaces, or keep it by another name for what the new one lacks."""
    if not n_lost:
        drop(client, old)
        return
    name, kept = old.name, free_damaged_name(client, old.name)
    old.modify(name=kept)
    _logger.warning(
        "collection %r: %d documents had no vector and are not in the new one; index them again. The old one, "
        "which cannot be searched, is kept as %r",
        name,
        n_lost,
        kept,
    )


def _mend_lost(client: ClientAPI, name: str, source: VectorSource, lost: list[str]) -> None:
    """Put records anew that searches do not find, where they are few, or else build a new collection."""
    collection = get_collection(client, name)
    n_records = collection.count()
    found = f"searches did not find {len(lost):,} of {n_records:,} records"
    n_missed: int | None = len(lost)
    if len(lost) <= min(_FEW, _FEW_SHARE * n_records):
        n_missed = _put_anew(client, name, source, lost)
    if n_missed == 0:
        _logger.warning("collection %r: %s; they were put anew", name, found)
    else:
        _rebuild(client, name, source, found, trusted=True, n_missed=n_missed)


def _put_anew(client: ClientAPI, name: str, source: VectorSource, lost: list[str]) -> int | None:
    """Put a few records anew, and tell how many searches do not find then; None where Chroma fails in that."""
    collection = get_collection(client, name)
    page = cast(Any, collection.get(ids=lost, include=COPIED))
    vectors, _ = vectors_of(collection, page, source)
    if len(vectors) < len(page["ids"]):
        return len(lost)
    try:
        for records in records_with_vectors(page, vectors):
            put_anew(client, name, records)
        return len(unreachable_ids(get_collection(client, name)))
    except import_chromadb().errors.InternalError:  # it lost them in a way in which it cannot delete them either
        return None


def _rebuild(
    client: ClientAPI, name: str, source: VectorSource, found: str, *, trusted: bool, n_missed: int | None = None
) -> int:
    """Build a new collection of all records that have a vector, check it and swap it in; give how many there are.

    Parameters
    ----------
    found : str
        What was found, for the log.
    trusted : bool
        Whether the vectors of the old one may be used where none are stored.
    n_missed : int or None
        How many records of the old one searches do not find, where that is all that is wrong with it: a new one that
        is no better is not swapped in.
    """
    for suffix in (REBUILDING, REBUILT):
        check_free(client, name, suffix)
    old = get_collection(client, name)
    new = _create_like(client, old, name)
    copied, doc_ids = _Copied(), set[str]()
    for collection, page in _pages(old, find_beside(client, name, MENDING)):
        readable = collection if trusted or collection is not old else None
        vectors, n_stored = vectors_of(readable, page, source)
        for records in records_with_vectors(page, vectors):
            new.add(**records)
        doc_ids.update(vectors)
        copied.n_stored += n_stored
        copied.n_own += len(vectors) - n_stored
        copied.n_lost += len(page["ids"]) - len(vectors)
    new = get_collection(client, beside(name, REBUILDING))
    _check_holds(new, name, doc_ids)
    n_missed_now = len(unreachable_ids(new))
    if n_missed is not None and n_missed_now >= n_missed:
        drop(client, new)
        _logger.warning("collection %r: %s; a new one misses %d, so the old one stays", name, found, n_missed_now)
        return len(doc_ids) + copied.n_lost
    new.modify(name=beside(name, REBUILT))
    _log_rebuilt(name, found, copied, n_missed_now)
    finish_swap(client, name)
    return len(doc_ids) + copied.n_lost


def _pages(old: Collection, aside: Collection | None) -> Iterator[tuple[Collection, Any]]:
    """Read a collection, and what a process that ended while it put records anew has left out of it."""
    seen: set[str] = set()
    for page in record_pages(old, COPIED):
        seen.update(page["ids"])
        yield old, page
    if aside is not None and are_alike(aside, old):
        for page in record_pages(aside, COPIED):
            yield aside, rows_of(page, [row for row, doc_id in enumerate(page["ids"]) if doc_id not in seen])


def _create_like(client: ClientAPI, old: Collection, name: str) -> Collection:
    """Create the empty collection that is to take the place of another one, with its metadata and its settings."""
    settings = {key: value for key, value in (old.configuration_json.get("hnsw") or {}).items() if value is not None}
    return client.create_collection(
        beside(name, REBUILDING),
        embedding_function=None,
        configuration=cast(Any, {"hnsw": {**settings, "space": SPACE}}),
        metadata={**without_mark(old), MARK_KEY: name},
    )


def _check_holds(new: Collection, name: str, doc_ids: set[str]) -> None:
    """Raise SearchIndexError where a new collection does not hold these records."""
    held = ids_of(new)
    if held != doc_ids:
        raise SearchIndexError(
            f"collection {name!r} was built anew with {len(held):,} of {len(doc_ids):,} records; the old one is as it "
            f"was. Is somebody writing to it? Then repeat this alone",
            collection_name=name,
        )


def _log_rebuilt(name: str, found: str, copied: _Copied, n_missed: int) -> None:
    _logger.warning(
        "collection %r: %s; a new one took its place, with %d vectors from the cache and %d of the old one",
        name,
        found,
        copied.n_stored,
        copied.n_own,
    )
    if n_missed:
        _logger.warning("collection %r: searches do not find %d records of the new one either", name, n_missed)
