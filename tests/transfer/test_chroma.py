"""Collections of Chroma come along: documents, and the vectors that Chroma gives back as float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, SourceError, content_hash
from embstore.transfer import Skipped, import_chroma
from tests.fakes import CountingEncoder

pytest.importorskip("chromadb", reason="needs the extra chroma")

from embstore.search.collection import open_client

IDS, TEXTS = ["a", "b", "c"], ["one", "two", "one"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "chroma"


@pytest.fixture
def client(folder: Path) -> Iterator[Any]:
    with closing(open_client(folder)) as client:
        yield client


def add(client: Any, name: str, space: str = "l2", **records: Any) -> Any:
    collection = client.create_collection(
        name, embedding_function=None, configuration={"hnsw": {"space": space, "sync_threshold": 2, "batch_size": 2}}
    )
    collection.add(**records)
    return collection


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
def test_documents_and_vectors_come_along(
    cache: EmbeddingCache, folder: Path, client: Any, encoder: CountingEncoder, space: str
) -> None:
    vectors = 3 * encoder.vectors(TEXTS)
    add(client, "notes", space, ids=IDS, documents=TEXTS, embeddings=vectors)
    client.close()
    report = import_chroma(cache, folder, model_name="fake")
    assert (report.n_stored, report.n_documents, report.ok) == (2, 3, True)
    stored = cache.matrix("fake", doc_ids=IDS)[1]
    np.testing.assert_allclose(stored, vectors, rtol=0, atol=1e-6 if space == "cosine" else 0)
    assert [(d.collection, d.doc_id, d.content_hash) for d in cache.documents()] == [
        ("notes", doc_id, content_hash(text).hex()) for doc_id, text in zip(IDS, TEXTS, strict=True)
    ]
    assert import_chroma(cache, folder, model_name="fake").n_stored == 0


def test_a_record_without_a_document_is_skipped(cache: EmbeddingCache, client: Any) -> None:
    collection = add(client, "notes", ids=["a"], embeddings=[[1.0, 0.0]])
    collection.add(ids=["b"], embeddings=[[0.5, 0.0]], documents=["two"])
    report = import_chroma(cache, collection, model_name="m", collection="mine")
    assert report.skipped == (Skipped("collection notes: id 'a'", "it has no document"),)
    assert [(d.collection, d.doc_id) for d in cache.documents()] == [("mine", "b")]


def test_one_of_several_collections_is_asked_for(cache: EmbeddingCache, folder: Path, client: Any) -> None:
    for name in ("first", "second"):
        add(client, name, ids=[name], embeddings=[[1.0]], documents=[name])
    client.close()
    for name in (None, "third"):
        with pytest.raises(SourceError, match="first, second"):
            import_chroma(cache, folder, source_collection=name, model_name="m")
    import_chroma(cache, folder, source_collection="second", model_name="m")
    assert [d.doc_id for d in cache.documents()] == ["second"]


def test_a_library_of_ours_says_whose_vectors_it_has_and_of_which_texts(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder
) -> None:
    texts = ["one", "\ud800 lone", "altered"]
    with CachedSemanticSearchEngine(encoder, path=tmp_path / "library") as engine:
        engine.index_documents(texts, IDS)
    with closing(open_client(tmp_path / "library")) as client:
        collection = client.get_collection("documents", embedding_function=None)
        collection.update(ids=["c"], documents=["otherwise"], embeddings=[encoder.vector("altered")])
    report = import_chroma(cache, tmp_path / "library")
    place = f"{tmp_path / 'library'}: documents: id 'c'"
    assert report.skipped == (Skipped(place, "its document is not the one that was indexed"),)
    encoder.calls.clear()
    np.testing.assert_allclose(cache.embed(texts[:2], encoder), encoder.vectors(texts[:2]), rtol=0, atol=1e-7)
    assert encoder.n_texts == 1


def test_vectors_that_were_cut_short_are_refused(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder
) -> None:
    with CachedSemanticSearchEngine(encoder, path=tmp_path / "library", truncate_dim=4) as engine:
        engine.index_documents(TEXTS, IDS)
    with pytest.raises(SourceError, match="first 4 values"):
        import_chroma(cache, tmp_path / "library")


def test_what_is_no_folder_of_chroma_is_refused_and_stays_as_it_is(cache: EmbeddingCache, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(SourceError, match=r"no chroma\.sqlite3"):
            import_chroma(cache, path, model_name="m")
    assert not any((tmp_path / "empty").iterdir())
    assert not (tmp_path / "nowhere").exists()
