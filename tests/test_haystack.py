"""Haystack's embedders through a cache."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from embstore import (
    EmbeddingCache,
    EncoderOutputError,
    InvalidInputError,
    InvalidTypeError,
    MissingExtraError,
    ModelChangedError,
    ModelNameError,
    StoreClosedError,
)
from tests.fakes import CountingEncoder, QueryEncoder

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # before it is imported
pytest.importorskip("haystack", reason="needs the extra haystack")
from haystack import Document, Pipeline, component
from haystack.components.embedders import MockDocumentEmbedder, MockTextEmbedder
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from embstore.integrations.haystack import EmbstoreDocumentEmbedder, EmbstoreTextEmbedder


class Fake:
    """Vectors and counts of an encoder of the tests; not to be run before `warm_up`."""

    def __init__(self, encoder: CountingEncoder | None = None, **attributes: Any) -> None:
        self.encoder = QueryEncoder() if encoder is None else encoder
        self.warm = False
        vars(self).update({"model": "fake", "prefix": "", **attributes})

    def warm_up(self) -> None:
        self.warm = True

    def encode(self, texts: list[str]) -> list[list[float]]:
        assert self.warm
        return self.encoder.encode(texts).tolist()


@component
class FakeTextEmbedder(Fake):
    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        return {"embedding": self.encode([text])[0]}


@component
class FakeDocumentEmbedder(Fake):
    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        vectors = self.encode([document.content or "" for document in documents])
        answer = [replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)]
        return {"documents": answer[::-1]}  # in an order of its own


def documents(*contents: str, **fields: Any) -> list[Document]:
    return [Document(content=content, **fields) for content in contents]


def embeddings(answer: dict[str, Any]) -> list[Any]:
    return [document.embedding for document in answer["documents"]]


def test_a_document_is_embedded_once_and_recorded_under_its_id(cache: EmbeddingCache) -> None:
    embedder = FakeDocumentEmbedder()
    cached = EmbstoreDocumentEmbedder(embedder, cache, collection="books")
    given = documents("b", "a", "b", "")
    answers = [cached.run(documents=given), cached.run(documents=given)]
    assert [embeddings(answer) for answer in answers] == [QueryEncoder().vectors(["b", "a", "b", ""]).tolist()] * 2
    assert [answer["meta"] for answer in answers] == [
        {"model": "fake", "n_encoded": 3, "n_hits": 0},
        {"model": "fake", "n_encoded": 0, "n_hits": 3},
    ]
    assert sorted(embedder.encoder.texts) == ["", "a", "b"]
    assert {info.doc_id for info in cache.documents(collection="books")} == {document.id for document in given}
    assert embeddings({"documents": given}) == [None] * 4


def test_all_else_of_a_document_stays(cache: EmbeddingCache) -> None:
    (given,) = documents("a", id="one", meta={"title": "A"}, score=0.5)
    (answered,) = EmbstoreDocumentEmbedder(FakeDocumentEmbedder(), cache).run(documents=[given])["documents"]
    assert answered.embedding is not None
    assert {**answered.to_dict(), "embedding": None} == given.to_dict()


def test_the_text_is_what_the_embedder_makes_of_a_document(cache: EmbeddingCache) -> None:
    def embedder(**options: Any) -> MockDocumentEmbedder:
        return MockDocumentEmbedder(
            dimension=8, meta_fields_to_embed=["title", "none", "year"], prefix="passage: ", suffix="!", **options
        )

    given = [
        Document(content="a", meta={"title": "A", "year": 1999, "other": "x"}),
        Document(content="a", meta={"none": None}),
        Document(content="a", meta={"title": "B"}),
    ]
    for separator in ("\n", " | "):
        (expected, found) = (
            made.run(documents=given)
            for made in (
                embedder(embedding_separator=separator),
                EmbstoreDocumentEmbedder(embedder(embedding_separator=separator), cache),
            )
        )
        assert embeddings(found) == [pytest.approx(vector, abs=1e-6) for vector in embeddings(expected)]
    assert cache.stats().n_vectors == 5


def test_a_query_is_embedded_once_and_shares_no_vector_with_a_document(cache: EmbeddingCache) -> None:
    embedder = FakeTextEmbedder(CountingEncoder(seed=1))
    cached = EmbstoreTextEmbedder(embedder, cache)
    EmbstoreDocumentEmbedder(FakeDocumentEmbedder(), cache).run(documents=documents("a"))
    for _ in range(2):
        assert cached.run(text="a") == {"embedding": embedder.encoder.vector("a").tolist(), "meta": {"model": "fake"}}
    assert embedder.encoder.texts == ["a"]
    assert [model.settings.get("role") for model in cache.models()] == [None, "query"]


def test_the_model_is_loaded_when_it_is_first_needed(cache: EmbeddingCache) -> None:
    embedder = FakeDocumentEmbedder()
    cached = EmbstoreDocumentEmbedder(embedder, cache)
    assert cached.run(documents=[])["documents"] == []
    assert not embedder.warm
    cached.run(documents=documents("a"))
    assert embedder.warm


@pytest.fixture
def pipelines(tmp_path: Path) -> tuple[Pipeline, Pipeline]:
    """One that writes documents, and one that is asked."""
    store, path = InMemoryDocumentStore(), tmp_path / "embeddings.db"
    indexing, asking = Pipeline(), Pipeline()
    indexing.add_component("embedder", EmbstoreDocumentEmbedder(MockDocumentEmbedder(dimension=8), path, batch_size=2))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    asking.add_component("embedder", EmbstoreTextEmbedder(MockTextEmbedder(dimension=8), path))
    asking.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    asking.connect("embedder.embedding", "retriever.query_embedding")
    return indexing, asking


def test_pipelines_write_and_ask(pipelines: tuple[Pipeline, Pipeline]) -> None:
    indexing, asking = pipelines
    given = documents("cat", "dog", "fish")
    assert indexing.run({"embedder": {"documents": given}}) == {
        "embedder": {"meta": {"model": "mock-model", "n_encoded": 3, "n_hits": 0}},
        "writer": {"documents_written": 3},
    }
    (hit,) = asking.run({"embedder": {"text": "dog"}})["retriever"]["documents"]
    assert hit.content == "dog"


def test_pipelines_are_saved_and_loaded_and_find_their_vectors_again(pipelines: tuple[Pipeline, Pipeline]) -> None:
    indexing, asking = pipelines
    vector = asking.get_component("embedder").run(text="a")["embedding"]
    indexing.get_component("embedder").run(documents=documents("a", "b"))
    for pipeline in pipelines:
        loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=["embstore.integrations.haystack"])
        assert loaded.to_dict() == pipeline.to_dict()
        embedder = loaded.get_component("embedder")
        assert type(embedder.embedder) is type(pipeline.get_component("embedder").embedder)
        if pipeline is indexing:
            assert embedder.run(documents=documents("b", "a"))["meta"]["n_hits"] == 2
        else:
            assert embedder.run(text="a")["embedding"] == vector


def test_what_is_saved_is_how_it_was_made(cache: EmbeddingCache) -> None:
    cached = EmbstoreDocumentEmbedder(
        MockDocumentEmbedder(), cache, model_name="m", model_settings={"layers": 6}, collection="c", batch_size=7
    )
    assert cached.to_dict() == {
        "type": "embstore.integrations.haystack.EmbstoreDocumentEmbedder",
        "init_parameters": {
            "embedder": MockDocumentEmbedder().to_dict(),
            "cache": str(cache.path),
            "model_name": "m",
            "model_settings": {"layers": 6},
            "collection": "c",
            "batch_size": 7,
        },
    }


def test_the_event_loop_goes_on_while_a_text_is_embedded(cache: EmbeddingCache) -> None:
    loop_went_on = threading.Event()

    class Waiting(CountingEncoder):
        def encode(self, texts: list[str]) -> Any:
            assert loop_went_on.wait(30)
            return super().encode(texts)

    async def go_on() -> None:
        loop_went_on.set()

    async def ask() -> list[Any]:
        answers = []
        for question in (
            EmbstoreTextEmbedder(FakeTextEmbedder(Waiting()), cache).run_async(text="a"),
            EmbstoreDocumentEmbedder(FakeDocumentEmbedder(Waiting()), cache).run_async(documents=documents("a")),
        ):
            loop_went_on.clear()
            answers.append((await asyncio.gather(question, go_on()))[0])
        return answers

    query, answer = asyncio.run(ask())
    assert [query["embedding"]] == embeddings(answer) == CountingEncoder().vectors(["a"]).tolist()


def test_what_changes_the_vectors_is_in_the_identity(cache: EmbeddingCache) -> None:
    embedder = FakeTextEmbedder(prefix="query: ", api_base_url="https://u:secret@h.example.org/v1", api_key="secret")
    cached = EmbstoreTextEmbedder(embedder, cache, model_settings={"layers": 6})
    assert cached._encoder.identity("query").settings == {
        "api_base_url": "https://h.example.org/v1",
        "class": "FakeTextEmbedder",
        "layers": 6,
        "prefix": "query: ",
        "role": "query",
    }


def test_another_model_behind_a_name_is_found_out(cache: EmbeddingCache) -> None:
    EmbstoreTextEmbedder(FakeTextEmbedder(), cache).run(text="a")
    EmbstoreDocumentEmbedder(FakeDocumentEmbedder(), cache).run(documents=documents("a"))
    other = CountingEncoder(seed=1)
    with pytest.raises(ModelChangedError):
        EmbstoreTextEmbedder(FakeTextEmbedder(other), cache).run(text="a")
    with pytest.raises(ModelChangedError):
        EmbstoreDocumentEmbedder(FakeDocumentEmbedder(other), cache).run(documents=documents("a"))


@pytest.mark.parametrize("failure", ["left out", "not embedded"])
def test_a_document_that_could_not_be_embedded_is_an_error_and_stores_nothing(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    embedder = FakeDocumentEmbedder()

    def run(documents: list[Document]) -> dict[str, Any]:
        first, *others = FakeDocumentEmbedder.run(embedder, documents)["documents"]
        broken = [replace(document, embedding=None) for document in others if failure == "not embedded"]
        return {"documents": [first, *broken]}

    monkeypatch.setattr(embedder, "run", run)
    with pytest.raises(EncoderOutputError, match="'fake'"):
        EmbstoreDocumentEmbedder(embedder, cache).run(documents=documents("a", "b"))
    assert cache.stats().n_vectors == 0


def test_one_id_with_two_texts_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidInputError, match="'one'"):
        EmbstoreDocumentEmbedder(FakeDocumentEmbedder(), cache).run(documents=documents("a", "b", id="one"))
    assert cache.stats().n_vectors == 0


def test_other_things_than_texts_and_documents_are_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidTypeError, match="not str"):
        EmbstoreTextEmbedder(FakeTextEmbedder(), cache).run(text=["a"])
    with pytest.raises(InvalidTypeError, match="not Document"):
        EmbstoreDocumentEmbedder(FakeDocumentEmbedder(), cache).run(documents=["a"])
    with pytest.raises(InvalidTypeError, match="not list"):
        EmbstoreDocumentEmbedder(FakeDocumentEmbedder(), cache).run(documents=None)


def test_a_path_is_opened_and_closed(cache_path: Path) -> None:
    embedder = FakeTextEmbedder()
    with EmbstoreTextEmbedder(embedder, cache_path) as cached:
        cached.run(text="a")
    with pytest.raises(StoreClosedError):
        cached.run(text="a")
    with EmbeddingCache(cache_path) as cache:
        with EmbstoreTextEmbedder(embedder, cache) as cached:
            cached.run(text="a")
        assert cache.stats().n_vectors == 1
    assert embedder.encoder.texts == ["a"]


def test_what_cannot_be_used_is_refused_before_a_file_is_made(cache_path: Path) -> None:
    for kind, embedder, options, error, offender in (
        (EmbstoreTextEmbedder, FakeDocumentEmbedder(), {}, InvalidTypeError, "FakeDocumentEmbedder"),
        (EmbstoreDocumentEmbedder, FakeTextEmbedder(), {}, InvalidTypeError, "FakeTextEmbedder"),
        (EmbstoreDocumentEmbedder, CountingEncoder(), {}, InvalidTypeError, "CountingEncoder"),
        (EmbstoreTextEmbedder, FakeTextEmbedder(model=None), {}, ModelNameError, "model_name="),
        (EmbstoreTextEmbedder, FakeTextEmbedder(), {"model_settings": {"role": "x"}}, InvalidInputError, "'role'"),
        (EmbstoreDocumentEmbedder, FakeDocumentEmbedder(), {"batch_size": 0}, InvalidInputError, "batch_size"),
    ):
        with pytest.raises(error, match=offender):
            kind(embedder, cache_path, **options)
    assert not cache_path.exists()


def test_without_the_package_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "embstore.integrations.haystack")
    monkeypatch.setitem(sys.modules, "haystack", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[haystack\]"'):
        import embstore.integrations.haystack  # noqa: F401


def test_a_pipeline_keeps_no_password_of_a_server(postgres_url: str) -> None:
    with EmbstoreTextEmbedder(FakeTextEmbedder(), postgres_url, model_name="fake") as cached:
        kept = cached.to_dict()["init_parameters"]["cache"]
    assert kept == cached.cache.location
    assert urlsplit(kept).password is None
