"""Merging: all of one cache into another, as it is; from file to server and back, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

from embstore.canary import check_same_model
from embstore.errors import DamagedStoreError, ModelChangedError, SourceError
from embstore.progress import progress_bar
from embstore.stored import StoredEmbeddings
from embstore.stores.base import Store, StoredModel
from embstore.stores.locations import is_url
from embstore.stores.texts import StoredCollection, StoredText
from embstore.transfer.incoming import Incoming
from embstore.transfer.report import Conflict, TransferReport

ROWS_AT_ONCE = 1000
FAR = 4  # times as many where one of the two is on a server: a transaction there waits for twenty answers
VALUES_AT_ONCE = 50  # of up to 32 MiB


def merge(cache: StoredEmbeddings, source: str | Path, *, progress: bool | None = None) -> TransferReport:
    """Take all that another cache holds and this one does not.

    Of each 1,000 vectors, or more in a large file or on a server, all is stored in one transaction. What ends it early
    leaves those before, and merging again takes the rest.

    Models come under their whole identities, with their canaries and formats; vectors bit for bit, with the mark of
    those that were cached without an id; documents in their collections, texts with their metadata, and the values
    that are kept by key. What is in both files is compared. Where they differ, this one keeps what it has, and the
    report names it. The vectors of a model that has another dimension or another canary here are not taken, nor are
    the counts of hits and of seconds. Merging again stores nothing.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    source : str or Path
        Another cache: its file, or the URL of its server. It is only read, but brought to the present version of the
        schema where it is older.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    SourceError
        There is no such file, or it is where `cache` is.
    DamagedStoreError
        The source is damaged, and nothing of it was stored.
    StoreError
        One of the two cannot be used. In each case the message says what was stored before.
    """
    _check_another(source, cache.location)
    with StoredEmbeddings(source) as other:
        if other.location == cache.location:
            raise _is_the_same(cache.location)
        incoming = Incoming(cache.store, other.location if is_url(source) else str(source))  # without a password
        with incoming.telling():
            _check_sound(other)
            _take_all(incoming, other, progress)
    return incoming.report()


def _check_another(source: str | Path, location: str) -> None:
    """Refuse a file that is not there, which would be made, and the one that would be merged into itself."""
    if is_url(source):
        return
    if not Path(source).is_file():
        raise SourceError(f"{str(source)!r} is no file; give the cache to be merged", path=str(source))
    if not is_url(location) and Path(source).samefile(location):
        raise _is_the_same(location)


def _is_the_same(location: str) -> SourceError:
    return SourceError(f"{location!r} is the very cache that it would be merged into", path=location)


def _take_all(incoming: Incoming, source: StoredEmbeddings, progress: bool | None) -> None:
    n_rows = sum(model.n_vectors for model in source.models())
    with progress_bar(n_rows, "merging", progress, unit="row") as bar:
        for model in source.store.find_models():
            if not _has_another(incoming, model):
                _take_contents(incoming, source.store, model, bar.update)
    for collection in source.store.texts.list_collections():
        _take_texts(incoming, source.store, collection)
    _take_values(incoming, source.store)


def _check_sound(source: StoredEmbeddings) -> None:
    """Refuse a source with any damage as a whole: what a damaged index leaves out is missed by no reading of rows."""
    problems = source.verify()
    if problems:
        cure = f"`embstore repair {source.location} -o NEW` saves the rest in a new file, which can be merged"
        if is_url(source.location):
            cure = "merging a sound copy into it, or encoding these texts again, puts them right"
        raise DamagedStoreError(
            f"{source.location!r} is damaged: {problems[0]} (and {len(problems) - 1} more); {cure}",
            path=source.location,
        )


def _has_another(incoming: Incoming, model: StoredModel) -> bool:
    """Tell whether the store has another model of the same identity, and note that as a conflict."""
    mine = incoming.store.find_model(model.identity)
    if mine is None:
        return False
    if mine.dim == model.dim:
        if mine.canary is None or model.canary is None:
            return False
        with suppress(ModelChangedError):
            check_same_model(model.identity, mine.canary, model.canary)
            return False
    incoming.conflicts.append(Conflict("model", str(model.identity)))
    return True


def _take_contents(incoming: Incoming, source: Store, model: StoredModel, on_rows: Callable[[int], object]) -> None:
    def find() -> StoredModel | None:
        return incoming.store.find_model(model.identity)

    def ensure(dim: int) -> StoredModel:
        return incoming.store.ensure_model(model.identity, dim, model.canary)

    if find() is None:
        ensure(model.dim)  # also where it has no vectors
    n_rows = max(ROWS_AT_ONCE, source.group_rows(), incoming.store.group_rows())
    if is_url(source.location) or is_url(incoming.store.location):
        n_rows *= FAR
    for page in source.contents(model, batch_rows=n_rows):
        incoming.take(page, find, ensure)
        on_rows(len(page.content_hashes))


def _take_texts(incoming: Incoming, source: Store, collection: StoredCollection) -> None:
    """Put the texts of a collection that are new into the one of the same name."""
    texts = incoming.store.texts
    mine = texts.ensure_collection(collection.name, collection.identity)
    if mine.identity != collection.identity:
        incoming.conflicts.append(Conflict("collection", str(collection.identity), collection=collection.name))
        return
    text_ids = source.texts.text_ids(collection.name)
    for start in range(0, len(text_ids), ROWS_AT_ONCE):
        given = list(source.texts.read(collection.name, text_ids[start : start + ROWS_AT_ONCE]).values())
        if _new_texts(incoming.store, collection.name, given):
            incoming.n_texts += incoming.store.write(partial(_put_texts, incoming.store, collection.name, given))
        there = texts.find(collection.name, [text.doc_id for text in given])
        incoming.conflicts += [
            Conflict("text", None, text.content_hash.hex(), collection.name, text.doc_id)
            for text in given
            if there[text.doc_id] != text
        ]


def _put_texts(store: Store, collection: str, given: Sequence[StoredText]) -> int:
    new = _new_texts(store, collection, given)
    store.texts.put(collection, new)
    return len(new)


def _new_texts(store: Store, collection: str, given: Sequence[StoredText]) -> list[StoredText]:
    """Give the texts whose doc_ids a collection does not have, or has damaged."""
    there = store.texts.find(collection, [text.doc_id for text in given])
    return [text for text in given if there.get(text.doc_id) is None]


def _take_values(incoming: Incoming, source: Store) -> None:
    """Put the values whose keys are new."""
    values = incoming.store.byte_values
    keys = source.byte_values.keys()
    while some := list(islice(keys, VALUES_AT_ONCE)):
        given = {
            key: value for key, value in zip(some, source.byte_values.mget(some), strict=True) if value is not None
        }
        if _new_values(incoming.store, given):
            incoming.n_values += incoming.store.write(partial(_put_values, incoming.store, given))
        there = dict(zip(given, values.mget(list(given)), strict=True))
        incoming.conflicts += [Conflict("value", key=key) for key, value in given.items() if there[key] != value]


def _put_values(store: Store, given: Mapping[str, bytes]) -> int:
    new = _new_values(store, given)
    store.byte_values.mset(new)
    return len(new)


def _new_values(store: Store, given: Mapping[str, bytes]) -> dict[str, bytes]:
    """Give the values whose keys are not there, or damaged."""
    there = store.byte_values.mget(list(given))
    return {key: value for (key, value), stored in zip(given.items(), there, strict=True) if stored is None}
