"""Rows of a server that are not what was written: never handed out, never left out unsaid, and named by `verify`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, EmbstoreError, ModelIdentity, content_hash
from embstore.errors import DamagedStoreError
from embstore.stores.texts import StoredText
from tests.fakes import CountingEncoder, halved
from tests.postgres import Schemas

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

IDS = [f"doc {i}" for i in range(30)]
TEXTS = [f"text {i}" for i in range(30)]
BARE = [f"bare {i}" for i in range(5)]
SAID = {f"doc {i}": StoredText(f"doc {i}", content_hash(f"text {i}"), f'{{"i": {i}}}', f"text {i}") for i in range(9)}
VALUES = {f"key {i}": bytes([i]) * 40 for i in range(9)}
MODELS = {"whole": CountingEncoder(7, "whole"), "half": CountingEncoder(7, "half", seed=1)}

TABLES = ["models", "vectors", "documents", "collections", "texts", "byte_values", "encodings", "usage"]
# By which rows are found, and nothing else: where nothing refers to one, another number is as good.
NAMES = {"texts.text_id", "vectors.vector_id"}

COLUMNS = """
SELECT column_name, data_type
FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %s
"""


def fill(url: str) -> None:
    for name, dtype in (("whole", "float32"), ("half", "float16")):
        with EmbeddingCache(url, dtype=dtype) as cache:  # type: ignore[arg-type]
            for collection in ("", "other"):
                cache.get_many(IDS, TEXTS, MODELS[name], collection=collection)
            cache.embed(BARE, MODELS[name])
    with EmbeddingCache(url) as cache:
        cache.store.texts.ensure_collection("said", ModelIdentity("whole"))
        cache.store.texts.put("said", list(SAID.values()))
        cache.store.byte_values.mset(VALUES)
        assert cache.verify() == []


def expected(name: str, texts: list[str]) -> np.ndarray:
    vectors = MODELS[name].vectors(texts)
    return halved(vectors) if name == "half" else vectors


class Damaged:
    """A store that can be damaged, and made whole again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        for table in TABLES:
            self._connection.execute(f"CREATE TABLE sound_{table} AS SELECT * FROM {table}")

    def change_one(self, rng: random.Random) -> str | None:
        """Change a value of a row as no writer does; None where a constraint of the table does not let that be."""
        table = rng.choice([*TABLES, "vectors", "documents", "texts"])
        columns = self._connection.execute(COLUMNS, (table,)).fetchall()
        column, kind = rng.choice(columns)
        rows = self._connection.execute(f"SELECT ctid::text, {column} FROM {table} ORDER BY ctid").fetchall()
        place, value = rng.choice(rows)
        others = [other for _, other in rows if other != value]
        new = rng.choice(others) if others and rng.random() < 0.3 else changed(value, kind, rng)
        if new == value:
            return None
        try:
            with self._connection.transaction():
                statement = f"UPDATE {table} SET {column} = %s WHERE ctid = %s::tid"
                if column in ("model_id", "text_id"):
                    self._connection.execute(f"ALTER TABLE {table} ALTER {column} DROP IDENTITY IF EXISTS")
                self._connection.execute(statement, (new, place))
        except (psycopg.IntegrityError, psycopg.DataError):
            return None
        return f"{table}.{column}: {value!r:.60} to {new!r:.60}"

    def mend(self) -> None:
        """Write all as it was."""
        with self._connection.transaction():
            self._connection.execute(f"TRUNCATE {', '.join(TABLES)}")
            for table in TABLES:
                self._connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM sound_{table}")

    def close(self) -> None:
        for table in TABLES:
            self._connection.execute(f"DROP TABLE sound_{table}")
        self._connection.close()


def changed(value: Any, kind: str, rng: random.Random) -> Any:
    """Another value of the same type, near the one that it was."""
    if kind == "bytea":
        data = bytearray(value or b"\0")
        if rng.random() < 0.2:
            return bytes(data[: rng.randrange(len(data))])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if kind == "text":
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(["x", "\x01", "\x01\x01", "é", ""]) + value[at + rng.randrange(2) :]
    if kind == "boolean":
        return not value
    if kind == "double precision":
        return value + rng.choice([-1, 1e-9, 1.0, float("inf"), float("nan")])
    return value ^ (1 << rng.randrange(31))


@pytest.fixture
def damaged(postgres_url: str) -> Iterator[Damaged]:
    fill(postgres_url)
    store = Damaged(postgres_url)
    yield store
    store.close()


def read_everything(url: str) -> Counter[str]:
    """Ask for all that is stored in every way; count what is refused, and assert that nothing wrong is given."""
    counts: Counter[str] = Counter()
    with EmbeddingCache(url) as cache:
        for name in MODELS:
            for collection in ("", "other"):
                counts += outcome(lambda name=name, collection=collection: read_matrix(cache, name, collection))
            fresh = CountingEncoder(7, name, seed=MODELS[name].seed)
            hashes = [content_hash(text) for text in TEXTS + BARE]
            counts += outcome(lambda name=name, fresh=fresh, hashes=hashes: look_up(cache, name, fresh, hashes))
            counts += outcome(lambda name=name: read_contents(cache, name))
            for collection in ("", "other"):
                counts += outcome(
                    lambda name=name, fresh=fresh, collection=collection: get(cache, name, fresh, collection)
                )
        counts += outcome(lambda: read_texts(cache))
        found = cache.store.byte_values.mget(list(VALUES))
        assert all(value in (None, VALUES[key]) for key, value in zip(VALUES, found, strict=True))
        counts["missing values"] += sum(value is None for value in found)
    return counts


def outcome(read: Callable[[], Counter[str]]) -> Counter[str]:
    try:
        return read()
    except EmbstoreError as error:
        return Counter({f"refused: {type(error).__name__}": 1})


def read_matrix(cache: EmbeddingCache, name: str, collection: str) -> Counter[str]:
    ids, vectors = cache.matrix(name, collection=collection)
    assert set(ids) <= set(IDS)
    assert vectors.tobytes() == expected(name, [TEXTS[IDS.index(doc_id)] for doc_id in ids]).tobytes()
    return Counter({"missing documents": len(IDS) - len(ids)})


def look_up(cache: EmbeddingCache, name: str, encoder: CountingEncoder, hashes: list[bytes]) -> Counter[str]:
    found, vectors = cache.stored_vectors(hashes, encoder)
    texts = np.array(TEXTS + BARE)[found].tolist()
    assert vectors[found].tobytes() == expected(name, texts).tobytes()
    return Counter({"missing vectors": int((~found).sum())})


def read_contents(cache: EmbeddingCache, name: str) -> Counter[str]:
    models = cache.store.find_models(name)
    if not models:
        return Counter({"missing models": 1})
    (model,) = models
    text_of = {content_hash(text): text for text in TEXTS + BARE}
    n_documents = 0
    for page in cache.store.contents(model, batch_rows=20):
        texts = [text_of[key] for key in page.content_hashes]  # each is one that was stored
        assert page.vectors.tobytes() == expected(name, texts).tobytes()
        assert all(IDS.index(doc_id) == TEXTS.index(texts[row]) for _, doc_id, row in page.documents)
        n_documents += len(page.documents)
    return Counter({"missing documents": 2 * len(IDS) - n_documents})


def get(cache: EmbeddingCache, name: str, encoder: CountingEncoder, collection: str) -> Counter[str]:
    before = encoder.n_texts
    given = cache.get_many(IDS, TEXTS, encoder, collection=collection)
    assert (given.tobytes() == expected(name, TEXTS).tobytes()) or given.tobytes() == encoder.vectors(TEXTS).tobytes()
    return Counter({"encoded again": encoder.n_texts - before})


def read_texts(cache: EmbeddingCache) -> Counter[str]:
    found = cache.store.texts.find("said", list(SAID))
    assert all(text in (None, SAID[doc_id]) for doc_id, text in found.items())
    return Counter({"missing texts": sum(text is None for text in found.values()) + len(SAID) - len(found)})


def test_changed_rows_are_never_given_and_verify_names_them(
    damaged: Damaged, rounds: Callable[[int, int], int]
) -> None:
    rng = random.Random(0)
    n, unseen, harms = rounds(60, 1000), list[str](), Counter[str]()
    harmful = 0
    done = 0
    while done < n:
        what = damaged.change_one(rng)
        if what is not None:
            done += 1
            with EmbeddingCache(damaged.url) as cache:
                problems = cache.verify()
            try:
                counts = read_everything(damaged.url)
            except AssertionError as error:
                raise AssertionError(f"after {what}") from error
            harmful += bool(+counts)
            harms += counts
            if not problems and (+counts or what.partition(":")[0] not in NAMES):
                unseen.append(f"{what}: {+counts}")
        damaged.mend()
    print(f"{n} changed rows, {harmful} of them harmful: {dict(harms)}; unseen by verify: {len(unseen)}")  # noqa: T201
    assert unseen == []
    assert harmful > n / 4, "hardly any change did any harm"


@pytest.mark.parametrize("table", ["vectors", "documents"])
def test_documents_whose_rows_lost_each_other_are_an_error_and_named(table: str, schemas: Schemas) -> None:
    with schemas.one() as url:
        fill(url)
        with psycopg.connect(url) as connection:
            where = "vector_id = (SELECT vector_id FROM documents ORDER BY doc_id LIMIT 1)"
            change = f"DELETE FROM {table}" if table == "vectors" else "UPDATE documents SET vector_id = 10^9"
            connection.execute(f"{change} WHERE {where}")
        with EmbeddingCache(url) as cache:
            assert {problem.table for problem in cache.verify()} == {"documents"}
            (model,) = cache.store.find_models("whole")
            for read in (lambda: cache.matrix("whole"), lambda: list(cache.store.contents(model, batch_rows=9))):
                with pytest.raises(DamagedStoreError):
                    read()
            assert cache.get_many(IDS, TEXTS, MODELS["whole"]).tobytes() == expected("whole", TEXTS).tobytes()
            cache.get_many(IDS, TEXTS, MODELS["whole"], collection="other")
            assert cache.verify() == []
