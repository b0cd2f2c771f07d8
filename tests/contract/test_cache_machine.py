"""Any sequence of calls, failures and reopenings leaves a cache that a plain dictionary agrees with."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from embstore import (
    EmbeddingCache,
    EncoderError,
    ModelChangedError,
    ModelExistsError,
    PruneReport,
    UnknownModelError,
    content_hash,
)
from embstore.canary import CANARY_TEXT
from embstore.formats import rounded
from embstore.identity import DTYPES, Dtype
from tests.contract.conftest import NewLocation
from tests.fakes import CountingEncoder

NAMES = ["one", "two", "three"]
TEXTS = ["", "a", "b", "c", "d", "e\0", "🙂", "\ud800"]
DOC_IDS = ["x", "y", "z", "x\0", "größer"]
COLLECTIONS = ["", "other"]

names = st.sampled_from(NAMES)
texts = st.sampled_from(TEXTS)
doc_ids = st.sampled_from(DOC_IDS)
collections = st.sampled_from(COLLECTIONS)
documents = st.dictionaries(doc_ids, texts, min_size=1)
dtypes = st.sampled_from(DTYPES)


class CrashError(Exception):
    pass


class FailingEncoder(CountingEncoder):
    """Raises in place of its call after `n_good` more; canaries are no calls."""

    n_good: int | None = None

    def encode(self, texts: list[str]) -> np.ndarray:
        if self.n_good is not None and texts != [CANARY_TEXT]:
            if self.n_good == 0:
                raise CrashError
            self.n_good -= 1
        return super().encode(texts)


class CacheMachine(RuleBasedStateMachine):
    """A cache beside what it should hold.

    `vectors` maps (name, text) to the bytes that must come back, `standalone` those that were cached without an id,
    `documents` maps (name, collection, doc_id) to its text, `formats` a name that is stored to how its vectors are.
    """

    def __init__(self, new_location: NewLocation) -> None:
        super().__init__()
        self.leaving = contextlib.ExitStack()
        self.location = self.leaving.enter_context(new_location())
        self.vectors: dict[tuple[str, str], bytes] = {}
        self.standalone: set[tuple[str, str]] = set()
        self.documents: dict[tuple[str, str, str], str] = {}
        self.formats: dict[str, Dtype] = {}

    @initialize(dtype=dtypes)
    def begin(self, dtype: Dtype) -> None:
        self.encoders = {name: FailingEncoder(dim=3, model_name=name, seed=i) for i, name in enumerate(NAMES)}
        self.cache = EmbeddingCache(self.location, dtype=dtype)

    # --- what is expected -------------------------------------------------------------------

    @property
    def stored_names(self) -> set[str]:
        return set(self.formats)

    def note_stored(self, name: str) -> None:
        self.formats.setdefault(name, self.cache.dtype)

    def as_stored(self, name: str, vectors: np.ndarray) -> list[bytes]:
        return [vector.tobytes() for vector in rounded(vectors, self.formats.get(name, self.cache.dtype))]

    def vector(self, name: str, text: str) -> bytes:
        (vector,) = self.as_stored(name, self.encoders[name].vectors([text]))
        return vector

    def encoded(self, name: str, asked: list[str]) -> list[str]:
        """Take the texts of a call for stored, and give those that must be encoded for it."""
        missing = [text for text in dict.fromkeys(asked) if (name, text) not in self.vectors]
        for text in missing:
            self.vectors[name, text] = self.vector(name, text)
        if asked:
            self.note_stored(name)
        return sorted(missing)

    def check(self, name: str, asked: list[str], found: np.ndarray, missing: list[str]) -> None:
        encoder = self.encoders[name]
        assert [vector.tobytes() for vector in found] == [self.vectors[name, text] for text in asked]
        assert sorted(encoder.texts) == missing
        encoder.calls.clear()

    def forget(self, keys: list[tuple[str, str, str]]) -> int:
        """Forget documents, and the vectors that no other document uses."""
        gone = [key for key in keys if key in self.documents]
        texts_of = {(name, self.documents[name, collection, doc_id]) for name, collection, doc_id in gone}
        for key in gone:
            del self.documents[key]
        for key in texts_of - self.used():
            self.vectors.pop(key, None)
            self.standalone.discard(key)
        return len(gone)

    def used(self) -> set[tuple[str, str]]:
        return {(name, text) for (name, _, _), text in self.documents.items()}

    # --- calls ------------------------------------------------------------------------------

    @rule(name=names, doc_id=doc_ids, text=texts, collection=collections)
    def get(self, name: str, doc_id: str, text: str, collection: str) -> None:
        missing = self.encoded(name, [text])
        self.documents[name, collection, doc_id] = text
        found = self.cache.get(doc_id, text, self.encoders[name], collection=collection)
        self.check(name, [text], found[None], missing)

    @rule(name=names, given=documents, repeat=st.booleans(), collection=collections, batch_size=st.integers(1, 3))
    def get_many(self, name: str, given: dict[str, str], repeat: bool, collection: str, batch_size: int) -> None:
        ids, asked = list(given) * (1 + repeat), list(given.values()) * (1 + repeat)
        missing = self.encoded(name, asked)
        self.documents |= {(name, collection, doc_id): text for doc_id, text in given.items()}
        found = self.cache.get_many(ids, asked, self.encoders[name], collection=collection, batch_size=batch_size)
        self.check(name, asked, found, missing)

    @rule(name=names, asked=st.lists(texts, max_size=6))
    def embed(self, name: str, asked: list[str]) -> None:
        missing = self.encoded(name, asked)
        self.standalone |= {(name, text) for text in asked}
        self.check(name, asked, self.cache.embed(asked, self.encoders[name]), missing)

    @rule(name=names, text=texts)
    def embed_query(self, name: str, text: str) -> None:
        missing = self.encoded(name, [text])
        self.standalone.add((name, text))
        self.check(name, [text], self.cache.embed_query(text, self.encoders[name])[None], missing)

    @rule(name=names, given=documents, collection=collections, by_name=st.booleans())
    def put_many(self, name: str, given: dict[str, str], collection: str, by_name: bool) -> None:
        """Vectors of elsewhere are a little different, so that it is seen whose are stored."""
        encoder = self.encoders[name]
        put = encoder.vectors(list(given.values())) * np.float32(1.001)
        n_new = len({text for text in given.values() if (name, text) not in self.vectors})
        by_name = by_name and name in self.stored_names
        whose: dict[str, Any] = {"model_name": name} if by_name else {"model": encoder}
        assert self.cache.put_many(given, given.values(), put, collection=collection, **whose) == n_new
        self.note_stored(name)
        for (doc_id, text), vector in zip(given.items(), self.as_stored(name, put), strict=True):
            self.vectors[name, text] = vector
            self.documents[name, collection, doc_id] = text

    # --- failures ---------------------------------------------------------------------------

    @rule(name=names, given=documents, n_good=st.integers(0, 3), collection=collections)
    def encoder_fails(self, name: str, given: dict[str, str], n_good: int, collection: str) -> None:
        """Batches before the one that fails are stored with their documents, nothing of that one is."""
        encoder = self.encoders[name]
        asked = list(given.values())
        encoder.n_good = n_good
        failed = False
        try:
            self.cache.get_many(given, asked, encoder, collection=collection, batch_size=1)
        except EncoderError:
            failed = True
        encoder.n_good = None
        missing = [text for text in dict.fromkeys(asked) if (name, text) not in self.vectors]
        assert failed == (n_good < len(missing))
        assert len(set(encoder.texts)) == len(encoder.texts) == min(n_good, len(missing))
        assert set(encoder.texts) <= set(missing)
        if encoder.texts:
            self.encoded(name, encoder.texts)
        encoder.calls.clear()
        self.documents |= {
            (name, collection, doc_id): text for doc_id, text in given.items() if (name, text) in self.vectors
        }

    @rule(name=names, given=documents, collection=collections, old=names, new=names)
    def crash_before_the_commit(self, name: str, given: dict[str, str], collection: str, old: str, new: str) -> None:
        """Whatever was written in a block that raises is as if it had not been."""

        def crash() -> None:
            self.cache.get_many(given, given.values(), self.encoders[name], collection=collection)
            self.cache.invalidate(DOC_IDS[:2])
            self.cache.prune(standalone=True)
            if old in self.stored_names:
                self.cache.convert(old, dtype="float16")
            if old in self.stored_names and new not in self.stored_names | {name}:
                self.cache.rename_model(old, new)
            self.cache.clear(collection=collection)
            raise CrashError

        with contextlib.suppress(CrashError):
            self.cache.store.write(crash)
        self.encoders[name].calls.clear()

    # --- forgetting, renaming, reopening ----------------------------------------------------

    @rule(ids=st.lists(doc_ids, max_size=3), name=st.none() | names, collection=st.none() | collections)
    def invalidate(self, ids: list[str], name: str | None, collection: str | None) -> None:
        keys = [key for key in self.documents if key[2] in ids and name in (None, key[0])]
        keys = [key for key in keys if collection in (None, key[1])]
        assert self.cache.invalidate(ids, model_name=name, collection=collection) == self.forget(keys)

    @rule(name=st.none() | names, collection=st.none() | collections)
    def clear(self, name: str | None, collection: str | None) -> None:
        keys = [key for key in self.documents if name in (None, key[0]) and collection in (None, key[1])]
        assert self.cache.clear(model_name=name, collection=collection) == self.forget(keys)
        if collection is None:
            gone = {key for key in self.vectors if name in (None, key[0])}
            self.vectors = {key: vector for key, vector in self.vectors.items() if key not in gone}
            self.standalone -= gone
            for forgotten in NAMES if name is None else [name]:
                self.formats.pop(forgotten, None)

    @rule(standalone=st.booleans(), dry_run=st.booleans())
    def prune(self, standalone: bool, dry_run: bool) -> None:
        unused = set(self.vectors) - self.used()
        gone = unused if standalone else unused - self.standalone
        report = self.cache.prune(standalone=standalone, dry_run=dry_run)
        n_bytes = sum(6 if self.formats[name] == "float16" else 12 for name, _ in gone)
        assert report == PruneReport(len(gone), n_bytes, removed=not dry_run)
        if not dry_run:
            self.vectors = {key: vector for key, vector in self.vectors.items() if key not in gone}
            self.standalone -= gone

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if old not in self.stored_names:
            with pytest.raises(UnknownModelError):
                self.cache.rename_model(old, new)
            return
        if new in self.stored_names:
            with pytest.raises(ModelExistsError):
                self.cache.rename_model(old, new)
            return
        self.cache.rename_model(old, new)
        self.encoders[old], self.encoders[new] = self.encoders[new], self.encoders[old]
        for name in (old, new):
            self.encoders[name].model_name = name
        now = {old: new}
        self.vectors = {(now.get(name, name), text): vector for (name, text), vector in self.vectors.items()}
        self.standalone = {(now.get(name, name), text) for name, text in self.standalone}
        self.documents = {(now.get(key[0], key[0]), *key[1:]): text for key, text in self.documents.items()}
        self.formats = {now.get(name, name): dtype for name, dtype in self.formats.items()}

    @rule(name=names, dtype=dtypes)
    def convert(self, name: str, dtype: Dtype) -> None:
        if name not in self.stored_names:
            with pytest.raises(UnknownModelError):
                self.cache.convert(name, dtype=dtype)
            return
        n_vectors = len([key for key in self.vectors if key[0] == name])
        assert self.cache.convert(name, dtype=dtype) == (0 if self.formats[name] == dtype else n_vectors)
        self.formats[name] = dtype
        for key, vector in self.vectors.items():
            if key[0] == name:
                (self.vectors[key],) = self.as_stored(name, np.frombuffer(vector, np.float32)[None])

    @rule(dtype=dtypes)
    def reopen(self, dtype: Dtype) -> None:
        self.cache.close()
        self.cache = EmbeddingCache(self.location, dtype=dtype)

    @rule()
    def compact(self) -> None:
        assert self.cache.compact() >= 0

    @rule(name=names)
    def swap_the_model_behind_a_name(self, name: str) -> None:
        """Another model under the name is refused, where there is one to compare with."""
        if name in self.stored_names:
            with pytest.raises(ModelChangedError):
                self.cache.get_many(DOC_IDS, TEXTS[: len(DOC_IDS)], CountingEncoder(3, name, seed=99))

    # --- what holds after each --------------------------------------------------------------

    @invariant()
    def matrix_gives_each_document_its_vector(self) -> None:
        for name in self.stored_names:
            for collection in COLLECTIONS:
                expected = {
                    doc_id: self.vectors[name, text]
                    for (owner, where, doc_id), text in self.documents.items()
                    if (owner, where) == (name, collection)
                }
                ids, vectors = self.cache.matrix(name, collection=collection)
                assert len(ids) == len(set(ids))
                assert dict(zip(ids, (vector.tobytes() for vector in vectors), strict=True)) == expected

    @invariant()
    def everything_is_counted(self) -> None:
        stats = self.cache.stats()
        assert stats.n_documents == len(self.cache) == len(self.documents)
        assert stats.n_vectors == len(self.vectors)
        assert stats.n_unused == len(set(self.vectors) - self.used())
        assert stats.n_doc_ids == len({doc_id for _, _, doc_id in self.documents})
        assert {model.model_name: model.dtype for model in stats.models} == self.formats

    @invariant()
    def documents_are_contained(self) -> None:
        stored = {doc_id for _, _, doc_id in self.documents}
        assert {doc_id for doc_id in DOC_IDS if doc_id in self.cache} == stored
        listed = {(row.model_name, row.collection, row.doc_id): row.content_hash for row in self.cache.documents()}
        assert listed == {key: content_hash(text).hex() for key, text in self.documents.items()}

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            with self.leaving, self.cache:
                assert self.cache.verify() == []


def test_any_sequence_of_calls(new_location: NewLocation, store_kind: str) -> None:
    n = 60 if store_kind == "sqlite" else 10
    run_state_machine_as_test(
        lambda: CacheMachine(new_location), settings=settings(max_examples=n, stateful_step_count=30)
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_sequences_of_calls(new_location: NewLocation) -> None:
    many = settings(max_examples=120, stateful_step_count=50)
    run_state_machine_as_test(lambda: CacheMachine(new_location), settings=many)
