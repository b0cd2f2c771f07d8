"""Every version of the schema, in order. Released migrations never change; new ones are added below.

``sqlite-utils migrate cache.db migrations/`` runs this file by itself, so it imports nothing of embstore.
A migration sets ``user_version`` to its number, and the first one the ``application_id`` ("embs").
"""

import hashlib
import json
from collections.abc import Sequence

from sqlite_utils import Migrations
from sqlite_utils.db import Database

migrations = Migrations("embstore")

MODELS = """
CREATE TABLE models (
    model_id INTEGER PRIMARY KEY AUTOINCREMENT,
    model_name TEXT NOT NULL CHECK (model_name <> ''),
    settings TEXT NOT NULL,
    dim INTEGER NOT NULL CHECK (dim > 0),
    dtype TEXT NOT NULL CHECK (dtype = 'float32'),
    canary BLOB CHECK (canary IS NULL OR length(canary) = 4 * dim),
    created_at TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (model_name, settings)
) STRICT
"""

VECTORS = """
CREATE TABLE vectors (
    vector_id INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES models,
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 32),
    dim INTEGER NOT NULL CHECK (dim > 0),
    standalone INTEGER NOT NULL CHECK (standalone IN (0, 1)),
    checksum INTEGER NOT NULL,
    vector BLOB NOT NULL CHECK (length(vector) IN (2 * dim, 4 * dim)),
    UNIQUE (model_id, content_hash)
) STRICT
"""

DOCUMENTS = """
CREATE TABLE documents (
    model_id INTEGER NOT NULL REFERENCES models,
    collection TEXT NOT NULL,
    doc_id TEXT NOT NULL CHECK (doc_id <> ''),
    vector_id INTEGER NOT NULL REFERENCES vectors,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (model_id, collection, doc_id)
) STRICT, WITHOUT ROWID
"""

DOCUMENTS_BY_VECTOR = "CREATE INDEX documents_by_vector ON documents (vector_id)"

EMBEDDINGS = """
CREATE VIEW embeddings AS
SELECT
    documents.doc_id AS doc_id,
    lower(hex(vectors.content_hash)) AS content_hash,
    models.model_name AS model_name,
    vectors.dim AS dim,
    vectors.vector AS vector,
    models.settings AS settings,
    documents.collection AS collection
FROM documents
JOIN vectors ON vectors.vector_id = documents.vector_id
JOIN models ON models.model_id = documents.model_id
"""


ENCODINGS = """
CREATE TABLE encodings (
    model_id INTEGER PRIMARY KEY REFERENCES models,
    n_texts INTEGER NOT NULL CHECK (n_texts >= 0),
    n_chars INTEGER NOT NULL CHECK (n_chars >= 0),
    seconds REAL NOT NULL CHECK (seconds >= 0),
    checksum INTEGER NOT NULL
) STRICT
"""

COLLECTIONS = """
CREATE TABLE collections (
    collection TEXT PRIMARY KEY CHECK (collection <> ''),
    model_name TEXT NOT NULL CHECK (model_name <> ''),
    settings TEXT NOT NULL,
    n_texts INTEGER NOT NULL CHECK (n_texts >= 0),
    texts_version INTEGER NOT NULL,
    vectors_version INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""

TEXTS = """
CREATE TABLE texts (
    text_id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL REFERENCES collections,
    doc_id TEXT NOT NULL CHECK (doc_id <> ''),
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 32),
    metadata TEXT NOT NULL,
    text TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (collection, doc_id)
) STRICT
"""


# That of MODELS, and float16.
MODELS_3 = """
CREATE TABLE models (
    model_id INTEGER PRIMARY KEY AUTOINCREMENT,
    model_name TEXT NOT NULL CHECK (model_name <> ''),
    settings TEXT NOT NULL,
    dim INTEGER NOT NULL CHECK (dim > 0),
    dtype TEXT NOT NULL CHECK (dtype IN ('float32', 'float16')),
    canary BLOB CHECK (canary IS NULL OR length(canary) = 4 * dim),
    created_at TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (model_name, settings)
) STRICT
"""

# Made by no encoder: bytes by key, for whoever keeps what it likes.
BYTE_VALUES = """
CREATE TABLE byte_values (
    key TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT
"""

USAGE = """
CREATE TABLE usage (
    model_id INTEGER NOT NULL REFERENCES models,
    day TEXT NOT NULL,
    n_hits INTEGER NOT NULL CHECK (n_hits >= 0),
    n_hit_chars INTEGER NOT NULL CHECK (n_hit_chars >= 0),
    n_encoded INTEGER NOT NULL CHECK (n_encoded >= 0),
    n_stored INTEGER NOT NULL CHECK (n_stored >= 0),
    encode_s REAL NOT NULL CHECK (encode_s >= 0),
    checksum INTEGER NOT NULL,
    PRIMARY KEY (model_id, day)
) STRICT, WITHOUT ROWID
"""

# Which process encodes a text of a model (identity_hash) at present. A row means something for a while only: from since
# to until, in seconds of the clock of the machine that runs since it was started. So it needs no checksum.
LEASES = """
CREATE TABLE leases (
    identity_hash BLOB NOT NULL CHECK (length(identity_hash) = 32),
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 32),
    owner TEXT NOT NULL CHECK (owner <> ''),
    since REAL NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (identity_hash, content_hash)
) STRICT, WITHOUT ROWID
"""


ON_MODELS = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'models' AND sql IS NOT NULL"
LAST_MODEL_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'models'"
MODELS_WITH_DTYPE = """
SELECT model_id, model_name, settings, dim, dtype, created_at, canary, checksum
FROM models
WHERE settings LIKE '%"dtype":%'
"""
COLLECTIONS_WITH_DTYPE = """
SELECT collection, model_name, settings, n_texts, texts_version, vectors_version, checksum
FROM collections
WHERE settings LIKE '%"dtype":%'
"""


@migrations()
def m001_initial(db: Database) -> None:
    """Models, their vectors, the documents that point at them, and the view that people look at."""
    for statement in (MODELS, VECTORS, DOCUMENTS, DOCUMENTS_BY_VECTOR, EMBEDDINGS):
        db.execute(statement)
    db.execute("PRAGMA application_id = 1701667443")
    db.execute("PRAGMA user_version = 1")


@migrations()
def m002_speeds_and_texts(db: Database) -> None:
    """How long each model has taken, and the texts and metadata of collections that need no other index."""
    for statement in (ENCODINGS, COLLECTIONS, TEXTS):
        db.execute(statement)
    db.execute("PRAGMA user_version = 2")


@migrations()
def m003_float16(db: Database) -> None:
    """Models whose vectors are stored as float16, of whom the setting "dtype" tells: others' is "model_dtype" now."""
    _make_models_anew(db)
    _rename_dtype_setting(db)
    db.execute("PRAGMA user_version = 3")


@migrations()
def m004_bytes_and_usage(db: Database) -> None:
    """Bytes by key, and what each model has encoded and given on each day."""
    for statement in (BYTE_VALUES, USAGE):
        db.execute(statement)
    db.execute("PRAGMA user_version = 4")


@migrations()
def m005_leases(db: Database) -> None:
    """Which process encodes which text at present, so that no other one does."""
    db.execute(LEASES)
    db.execute("PRAGMA user_version = 5")


def _make_models_anew(db: Database) -> None:
    """Give the table models another CHECK, which SQLite cannot change in place, and keep its rows as they are.

    Where foreign keys are enforced, which no transaction can change, its rows are missed until they are inserted again;
    renaming another table would not count as that (https://sqlite.org/foreignkeys.html#fk_schemacommands).
    """
    last_ids = db.execute(LAST_MODEL_ID).fetchall()
    indexes = [sql for (sql,) in db.execute(ON_MODELS).fetchall()]  # that somebody has added
    db.execute("PRAGMA defer_foreign_keys = ON")
    db.execute("CREATE TEMP TABLE kept_models AS SELECT * FROM models")
    db.execute("DROP TABLE models")
    db.execute(MODELS_3)
    db.execute("PRAGMA ignore_check_constraints = ON")  # a damaged row is as damaged afterwards
    try:
        db.execute("INSERT INTO models SELECT * FROM kept_models")
    finally:
        db.execute("PRAGMA ignore_check_constraints = OFF")
    for statement in ("DROP TABLE kept_models", *indexes):
        db.execute(statement)
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'models'")  # an id that was given once is given to no other
    for (last_id,) in last_ids:
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('models', ?)", [last_id])


def _rename_dtype_setting(db: Database) -> None:
    """Rename the setting where it is an encoder's own, in rows whose checksums fit; these are computed anew."""
    for row in db.execute(MODELS_WITH_DTYPE).fetchall():
        model_id, model_name, settings, *rest, canary, checksum = row
        kept = [*rest, canary.hex() if isinstance(canary, bytes) else canary]
        if _checksum([model_id, model_name, settings, *kept]) == checksum:
            renamed = _renamed(settings)
            checksum = _checksum([model_id, model_name, renamed, *kept])
            db.execute("UPDATE models SET settings = ?, checksum = ? WHERE model_id = ?", [renamed, checksum, model_id])
    for collection, model_name, settings, *rest, checksum in db.execute(COLLECTIONS_WITH_DTYPE).fetchall():
        if _checksum([collection, model_name, settings, *rest]) == checksum:
            renamed = _renamed(settings)
            checksum = _checksum([collection, model_name, renamed, *rest])
            values = [renamed, checksum, collection]
            db.execute("UPDATE collections SET settings = ?, checksum = ? WHERE collection = ?", values)


def _renamed(settings_json: str) -> str:
    settings = json.loads(settings_json)
    if "dtype" in settings:
        name = "model_dtype"
        while name in settings:
            name += "_"
        settings[name] = settings.pop("dtype")
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def _checksum(row: Sequence[object]) -> int:
    return int.from_bytes(
        hashlib.blake2b(json.dumps(row).encode("ascii"), digest_size=8).digest(), "little", signed=True
    )
