"""Every version of the schema, in order. Released migrations never change; new ones are added below.

``sqlite-utils migrate cache.db migrations/`` runs this file by itself, so it imports nothing of embstore.
A migration sets ``user_version`` to its number, and the first one the ``application_id`` ("embs").
"""

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
