"""The way that SQLite chooses for each statement: planner traps are found here and not in a million rows."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from embstore import EmbeddingCache
from embstore.stores import summary, verify
from embstore.stores.tables import (
    byte_values,
    collections,
    conversion,
    document_rows,
    documents,
    encodings,
    joined,
    leases,
    models,
    texts,
    usage,
    vector_rows,
    vector_writes,
    vectors,
)
from tests.files import connection, define

MODULES: tuple[ModuleType, ...] = (
    *(models, vectors, vector_writes, vector_rows, conversion, documents, document_rows, encodings, collections, texts),
    *(byte_values, usage, leases),
    *(joined, summary, verify),
)

BY_HASH = "sqlite_autoindex_vectors_1"
BY_VECTOR = "documents_by_vector"
BY_DOC_ID = "sqlite_autoindex_texts_1"
BY_KEY = "sqlite_autoindex_byte_values_1"
OF_SCOPE = "SEARCH documents USING PRIMARY KEY (model_id=? AND collection=?)"
OF_SCOPE_AFTER = "SEARCH documents USING PRIMARY KEY (model_id=? AND collection=? AND doc_id>?)"
OF_ID = "SEARCH documents USING PRIMARY KEY (model_id=? AND collection=? AND doc_id=?)"
OF_LEASE = "SEARCH leases USING PRIMARY KEY (identity_hash=? AND content_hash=?)"
USED = [f"SEARCH documents USING COVERING INDEX {BY_VECTOR} (vector_id=?)"]

PLANS = {
    "models.FIND": ["SEARCH models USING INDEX sqlite_autoindex_models_1 (model_name=? AND settings=?)"],
    "models.FIND_DTYPE": ["SEARCH models USING INTEGER PRIMARY KEY (rowid=?)"],
    "models.UPDATE": ["SEARCH models USING INTEGER PRIMARY KEY (rowid=?)"],
    "models.DELETE": ["SEARCH models USING INTEGER PRIMARY KEY (rowid=?)"],
    "vectors.FIND_IDS": [f"SEARCH vectors USING COVERING INDEX {BY_HASH} (model_id=? AND content_hash=?)"],
    "vectors.ALL_IDS": [f"SEARCH vectors USING COVERING INDEX {BY_HASH} (model_id=?)"],
    "vectors.LAST": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH vectors"],
    "vectors.NEWEST": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid>?)"],
    "vectors.IDS": [f"SEARCH vectors USING COVERING INDEX {BY_HASH} (model_id=?)"],
    "vector_rows.READ": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)"],
    "vector_rows.READ_RANGE": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "vector_rows.TOGETHER": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)"],
    "vector_rows.TOGETHER_RANGE": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "vector_writes.LAST_ID": ["SEARCH vectors"],
    "vectors.DELETE_UNUSED": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)", *USED],
    "vectors.DELETE_OF_MODEL": [f"SEARCH vectors USING INDEX {BY_HASH} (model_id=?)"],
    "conversion.COUNT_OF_MODEL": [f"SEARCH vectors USING COVERING INDEX {BY_HASH} (model_id=?)"],
    "conversion.UPDATE": ["SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)"],
    "document_rows.FIND": [OF_ID],
    "document_rows.ALL": [OF_SCOPE],
    "document_rows.TOGETHER": [OF_SCOPE_AFTER],
    "documents.VECTOR_IDS": [OF_SCOPE],
    "documents.BY_VECTOR": [f"SEARCH documents USING INDEX {BY_VECTOR} (vector_id>? AND vector_id<?)"],
    "documents.UPDATE": [OF_ID],
    "documents.COUNT_UP_TO": [OF_SCOPE],
    "documents.DELETE": [OF_ID],
    "documents.DELETE_SCOPE": [OF_SCOPE],
    "documents.NEXT_COLLECTION": ["SEARCH documents USING PRIMARY KEY (model_id=? AND collection>?)"],
    "documents.NEXT_MODEL": ["SEARCH documents USING PRIMARY KEY (model_id>?)"],
    "documents.FIRST_SCOPE": ["SCAN documents"],  # LIMIT 1: the first row of the key
    "encodings.FIND": ["SEARCH encodings USING INTEGER PRIMARY KEY (rowid=?)"],
    "encodings.DELETE": ["SEARCH encodings USING INTEGER PRIMARY KEY (rowid=?)"],
    "collections.FIND": ["SEARCH collections USING PRIMARY KEY (collection=?)"],
    "texts.IDS": [f"SEARCH texts USING COVERING INDEX {BY_DOC_ID} (collection=?)"],
    "texts.ANY": [f"SEARCH texts USING COVERING INDEX {BY_DOC_ID} (collection=?)"],
    "texts.READ": ["SEARCH texts USING INTEGER PRIMARY KEY (rowid=?)"],
    "texts.READ_RANGE": ["SEARCH texts USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "texts.FIND_IDS": [f"SEARCH texts USING COVERING INDEX {BY_DOC_ID} (collection=? AND doc_id=?)"],
    "texts.DELETE": [f"SEARCH texts USING INDEX {BY_DOC_ID} (collection=? AND doc_id=?)"],
    "byte_values.READ": [f"SEARCH byte_values USING INDEX {BY_KEY} (key=?)"],
    "byte_values.READ_ROW": ["SEARCH byte_values USING INTEGER PRIMARY KEY (rowid=?)"],
    "byte_values.ANY": [f"SEARCH byte_values USING COVERING INDEX {BY_KEY} (key=?)"],
    "byte_values.FIRST_KEYS": [f"SEARCH byte_values USING COVERING INDEX {BY_KEY} (key>?)"],
    "byte_values.NEXT_KEYS": [f"SEARCH byte_values USING COVERING INDEX {BY_KEY} (key>?)"],
    "byte_values.DELETE": [f"SEARCH byte_values USING INDEX {BY_KEY} (key=?)"],
    "usage.FIND": ["SEARCH usage USING PRIMARY KEY (model_id=? AND day=?)"],
    "usage.OF_MODEL": ["SEARCH usage USING PRIMARY KEY (model_id=?)"],
    "usage.UPSERT": ["SEARCH models USING INTEGER PRIMARY KEY (rowid=?)"],
    "usage.DELETE": ["SEARCH usage USING PRIMARY KEY (model_id=?)"],
    "leases.FIND": [OF_LEASE],
    "leases.RENEW": [OF_LEASE],
    "leases.DELETE": [OF_LEASE],
    "joined.ONE": [
        OF_ID,
        "SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH models USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "summary.COUNT_VECTORS": [f"SEARCH vectors USING COVERING INDEX {BY_HASH} (model_id=?)"],
    "summary.COUNT_DOCUMENTS": ["SEARCH documents USING PRIMARY KEY (model_id=?)"],
    "summary.FIND_DOCUMENT": [OF_ID, "SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)"],
    "summary.LIST_DOCUMENTS": [
        OF_SCOPE_AFTER,
        "SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?)",
    ],
}

# What may read a whole table or index: it counts or checks all of it, or the table is small.
WHOLE = {
    "models.FIND_BY_NAME": ["SCAN models"],
    "models.IDS": ["SCAN models USING COVERING INDEX sqlite_autoindex_models_1"],
    "conversion.TABLE_IDS": ["SCAN vectors"],
    "vectors.UNUSED": ["SCAN vectors", *USED],
    "documents.COUNT": [f"SCAN documents USING COVERING INDEX {BY_VECTOR}"],
    "documents.COUNT_OF_MODEL": [f"SCAN documents USING COVERING INDEX {BY_VECTOR}"],
    "documents.COUNT_DISTINCT": [
        "USE TEMP B-TREE FOR count(DISTINCT)",
        f"SCAN documents USING COVERING INDEX {BY_VECTOR}",
    ],
    "summary.COUNT_USED": [f"SCAN documents USING COVERING INDEX {BY_VECTOR}"],
    "encodings.MODEL_IDS": ["SCAN encodings"],
    "usage.ALL": ["SCAN usage"],
    "vector_writes.NAMED_LIKE": ["SCAN sqlite_master"],
    "leases.DELETE_ENDED": ["SCAN leases"],
    "byte_values.ROWIDS": ["SCAN byte_values"],
    "collections.ALL": ["SCAN collections"],
    "verify.TEXT_IDS": ["SCAN texts"],
    "verify.ALL_MODELS": ["SCAN models"],
    "verify.VECTOR_IDS": ["SCAN vectors"],
    "verify.DOCUMENTS": ["SCAN documents", "SEARCH vectors USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN"],
}

# Nothing is searched: rows are inserted, a table is emptied, SQLite checks itself.
WITHOUT_A_PLAN = {
    *("models.INSERT", "vector_writes.INSERT", "vector_writes.INSERT_TOGETHER", "vector_writes.UPSERT"),
    "documents.INSERT",
    *("models.DELETE_ALL", "vectors.DELETE_ALL", "documents.DELETE_ALL"),
    *(
        "encodings.UPSERT",
        "encodings.DELETE_ALL",
        "usage.DELETE_ALL",
        "byte_values.UPSERT",
        "collections.UPSERT",
        "texts.INSERT",
    ),
    *("byte_values.UPSERT", "usage.DELETE_ALL", "leases.UPSERT"),
    *("vector_writes.CACHE_SIZE", "verify.INTEGRITY_CHECK", "vector_rows.PAGE_COUNT", "vector_rows.PAGE_SIZE"),
}


def statements() -> dict[str, str]:
    """Every statement that stands as a constant in a module of the store."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|PRAGMA)", value)
    }


@pytest.fixture(scope="module", params=["empty", "filled", "analyzed"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose planner knows nothing, has rows, or has the statistics of somebody's ANALYZE."""
    path = tmp_path_factory.mktemp("plans") / "embeddings.db"
    with EmbeddingCache(path) as cache:
        if request.param != "empty":
            for name in ("a", "b"):
                ids = [f"doc {i}" for i in range(20_000)]
                cache.put_many(
                    ids, [f"{name} {i // 2}" for i in range(len(ids))], np.ones((len(ids), 2)), model_name=name
                )
    if request.param == "analyzed":
        define(path, "ANALYZE")
    return path


@pytest.mark.parametrize("name", [*PLANS, *WHOLE])
def test_each_statement_goes_the_way_that_was_meant(name: str, path: Path) -> None:
    sql = statements()[name].replace("{places}", ",".join("?" * 500))
    n_parameters = len(set(re.findall(r"\?\d+", sql))) or sql.count("?")
    with connection(path) as opened:
        steps = [row[3] for row in opened.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * n_parameters)]
    # Versions of SQLite tell of subqueries in different words; how a table is read, all tell alike.
    plan = [step for step in steps if re.match(r"(SCAN|SEARCH) [a-z]|USE TEMP", step)]
    assert plan == {**PLANS, **WHOLE}[name]


def test_no_hot_statement_scans_a_table_or_sorts() -> None:
    hot = {name: [step for step in plan if re.match(r"SCAN [a-z]|USE TEMP", step)] for name, plan in PLANS.items()}
    assert {name for name, steps in hot.items() if steps} == {"documents.FIRST_SCOPE"}


def test_every_statement_has_its_plan() -> None:
    assert set(statements()) == {*PLANS, *WHOLE, *WITHOUT_A_PLAN}


def test_statements_are_written_alike() -> None:
    for name, sql in statements().items():
        assert "'" not in sql, f"{name} holds a literal; values go in as parameters"
