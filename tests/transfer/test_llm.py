"""Collections of `llm` come along bit for bit, as far as it is known of which text they are."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, SourceError, content_hash
from embstore.stores import llm_rows
from embstore.transfer import Skipped, import_llm
from tests.fakes import CountingEncoder
from tests.files import dump

# As llm 0.36 makes them.
SCHEMA = """
CREATE TABLE "collections" ("id" INTEGER PRIMARY KEY, "name" TEXT, "model" TEXT);
CREATE TABLE "embeddings" (
    "collection_id" INTEGER REFERENCES "collections"("id"), "id" TEXT, "embedding" BLOB, "content" TEXT,
    "content_blob" BLOB, "content_hash" BLOB, "metadata" TEXT, "updated" INTEGER, PRIMARY KEY ("collection_id", "id")
);
"""


def md5(text: str) -> bytes:
    return hashlib.md5(text.encode()).digest()


def write(path: Path, *rows: tuple[Any, ...], models: dict[str, str] | None = None) -> Path:
    """Rows are (collection_id, id, embedding, content, content_blob, content_hash)."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        collections = models or {"notes": "3-small", "more": "3-small"}
        connection.executemany("INSERT INTO collections (name, model) VALUES (?, ?)", collections.items())
        connection.executemany("INSERT INTO embeddings VALUES (?, ?, ?, ?, ?, ?, NULL, 0)", rows)
    return path


def row(collection_id: int, doc_id: str, text: str, *, stored: bool = True, model: str = "3-small") -> tuple[Any, ...]:
    blob = CountingEncoder(model_name=model).vector(text).tobytes()
    return collection_id, doc_id, blob, text if stored else None, None, md5(text)


def test_a_text_that_is_no_utf_8_is_skipped_by_name(cache: EmbeddingCache, tmp_path: Path) -> None:
    path = write(tmp_path / "llm.db", row(1, "a", "one"), row(1, "b", "two"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE embeddings SET content = CAST(x'ff' AS TEXT) WHERE id = 'a'")
        connection.execute("UPDATE embeddings SET rowid = -5 WHERE id = 'b'")
    report = import_llm(cache, path)
    assert report.skipped == (Skipped(f"{path}: collection 'notes', id 'a'", "its content is no text"),)
    assert [d.doc_id for d in cache.documents()] == ["b"]


def test_texts_that_are_stored_and_texts_that_are_given(
    cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_rows, "ROWS_AT_ONCE", 1)
    path = write(
        tmp_path / "llm.db",
        row(1, "b", "one"),
        row(1, "a", "two", stored=False),
        row(1, "c", "unknown", stored=False),
        row(2, "a", "one"),
        (2, "picture", np.ones(8, np.float32).tobytes(), None, b"\x89PNG", md5("x")),
        (2, "edited", np.ones(8, np.float32).tobytes(), "new text", None, md5("old text")),
    )
    report = import_llm(cache, path, texts=["two", "three"])
    assert (report.n_stored, report.n_present, report.n_documents, report.conflicts) == (2, 1, 3, ())
    assert report.skipped == (
        Skipped(f"{path}: collection 'notes', id 'c'", "none of the texts given has this key"),
        Skipped(f"{path}: collection 'more', id 'picture'", "its content is no text"),
        Skipped(
            f"{path}: collection 'more', id 'edited'",
            "its content is not what was embedded: the content_hash is another",
        ),
    )
    assert [(d.model_name, d.collection, d.doc_id, d.content_hash) for d in cache.documents()] == [
        ("3-small", "more", "a", content_hash("one").hex()),
        ("3-small", "notes", "a", content_hash("two").hex()),
        ("3-small", "notes", "b", content_hash("one").hex()),
    ]
    encoder = CountingEncoder(model_name="3-small")
    assert cache.embed(["one", "two"], encoder).tobytes() == encoder.vectors(["one", "two"]).tobytes()
    assert import_llm(cache, path, texts=["two"]).n_stored == 0


def test_collections_of_several_models_keep_theirs(cache: EmbeddingCache, tmp_path: Path) -> None:
    path = write(
        tmp_path / "llm.db",
        row(1, "a", "one"),
        (2, "a", np.ones(3, np.float32).tobytes(), "one", None, md5("one")),
        models={"notes": "3-small", "other": "clip"},
    )
    with pytest.raises(SourceError, match="'3-small', 'clip', which are not of one model"):
        import_llm(cache, path, model_name="m")
    assert import_llm(cache, path).ok
    assert import_llm(cache, path, source_collection="other", model_name="m", collection="mine").ok
    assert [(m.model_name, m.dim, m.n_documents) for m in cache.models()] == [
        ("3-small", 8, 1),
        ("clip", 3, 1),
        ("m", 3, 1),
    ]
    with pytest.raises(SourceError, match="no collection 'nowhere'; it has 'notes', 'other'"):
        import_llm(cache, path, source_collection="nowhere")


def test_a_database_that_llm_wrote_itself(cache: EmbeddingCache, tmp_path: Path) -> None:
    llm = pytest.importorskip("llm", reason="needs llm")
    sqlite_utils = pytest.importorskip("sqlite_utils")
    encoder = CountingEncoder(model_name="fake")

    class Model(llm.EmbeddingModel):  # type: ignore[misc]
        model_id = "fake"

        def embed_batch(self, texts: Any) -> Any:
            return (encoder.vector(text).tolist() for text in texts)

    database = sqlite_utils.Database(tmp_path / "llm.db")
    collection = llm.Collection("notes", database, model=Model())
    collection.embed_multi([("a", "one"), ("b", "two")], store=True)
    database.close()
    report = import_llm(cache, tmp_path / "llm.db")
    assert (report.n_stored, report.n_documents, report.ok) == (2, 2, True)
    assert cache.embed(["one", "two"], encoder).tobytes() == encoder.vectors(["one", "two"]).tobytes()


@pytest.mark.parametrize(
    "broken",
    [
        (1, "x", b"", "text", None, md5("text")),
        (1, "x", b"\0\0\0", "text", None, md5("text")),
        (1, "x", "no blob", "text", None, md5("text")),
        (1, "x", np.full(8, np.nan, np.float32).tobytes(), "text", None, md5("text")),
        (1, "x", np.ones(7, np.float32).tobytes(), "text", None, md5("text")),
        (1, "", np.ones(8, np.float32).tobytes(), "text", None, md5("text")),
        (1, None, np.ones(8, np.float32).tobytes(), "text", None, md5("text")),
    ],
    ids=["empty", "three bytes", "text", "nan", "another dim", "empty id", "no id"],
)
def test_a_broken_row_is_refused_by_name(
    cache: EmbeddingCache, cache_path: Path, tmp_path: Path, broken: tuple[Any, ...]
) -> None:
    path = write(tmp_path / "llm.db", row(1, "a", "one"), broken)
    before = dump(cache_path)
    with pytest.raises(SourceError) as caught:
        import_llm(cache, path)
    assert str(caught.value).startswith(f"{path}: collection 'notes', id {broken[1]!r}: ")
    assert dump(cache_path) == before


def test_a_database_of_something_else_is_refused(cache: EmbeddingCache, cache_path: Path, tmp_path: Path) -> None:
    for path in (cache_path, tmp_path / "nowhere.db", tmp_path):
        with pytest.raises(SourceError):
            import_llm(cache, path)
    assert not (tmp_path / "nowhere.db").exists()
    (tmp_path / "text.db").write_text("no database" * 100, encoding="utf-8")
    with pytest.raises(SourceError, match=r"text\.db"):
        import_llm(cache, tmp_path / "text.db")
    path = write(tmp_path / "views.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE embeddings; CREATE VIEW embeddings AS SELECT 1 AS id")
    with pytest.raises(SourceError, match="no embeddings of llm"):
        import_llm(cache, path)
