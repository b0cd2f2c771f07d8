"""EmbstoreEmbeddingFunction: plain Chroma collections that use a cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, InvalidInputError
from embstore.canary import CANARY_TEXT
from tests.fakes import CountingEncoder

pytest.importorskip("chromadb", reason="needs the extra chroma")
import chromadb
from chromadb.api.types import EmbeddingFunction
from chromadb.utils.embedding_functions import register_embedding_function

from embstore.integrations.chroma import EmbstoreEmbeddingFunction

DOCUMENTS = ["the cat sat", "the dog ran", "the cat sat"]
IDS = ["a", "b", "c"]


@register_embedding_function
class Fake(EmbeddingFunction[Any]):
    """Notes what every one of its kind is asked for, canaries left out."""

    calls: list[list[str]] = []  # noqa: RUF012
    n_canaries = 0
    n_built = 0

    def __init__(self, model: str = "small", device: str = "cpu", dim: int = 8) -> None:
        self.model, self.device, self.dim = model, device, dim
        type(self).n_built += 1

    def vectors(self, texts: list[str]) -> np.ndarray:
        return CountingEncoder(self.dim).vectors([f"{self.model} {text}" for text in texts])

    def __call__(self, input: Any) -> Any:  # noqa: A002
        if input[0].endswith(CANARY_TEXT):
            type(self).n_canaries += 1
        else:
            type(self).calls.append(list(input))
        return list(self.vectors(input))

    @staticmethod
    def name() -> str:
        return "fake"

    def get_config(self) -> dict[str, Any]:
        return {"model": self.model, "device": self.device, "dim": self.dim}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Fake:
        return Fake(**config)

    def default_space(self) -> Any:
        return "cosine"


@register_embedding_function
class Asking(Fake):
    """Gives queries other vectors."""

    def embed_query(self, input: Any) -> Any:  # noqa: A002
        return self([f"query: {text}" for text in input])

    @staticmethod
    def name() -> str:
        return "asking"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Asking:
        return Asking(**config)


class Nameless(EmbeddingFunction[Any]):
    """What Chroma calls a legacy function."""

    def __init__(self) -> None:
        pass

    def __call__(self, input: Any) -> Any:  # noqa: A002
        raise AssertionError


@pytest.fixture(autouse=True)
def nothing_asked_yet() -> None:
    Fake.calls, Fake.n_canaries, Fake.n_built = [], 0, 0
    Asking.calls, Asking.n_canaries = [], 0


@pytest.fixture
def function(cache_path: Path) -> Iterator[EmbstoreEmbeddingFunction]:
    function = EmbstoreEmbeddingFunction(Fake(), cache_path)
    yield function
    assert function.cache.verify() == []
    function.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    yield client
    client.close()


def vectors_in(collection: Any) -> dict[str, list[float]]:
    found = collection.get(include=["embeddings"])
    return dict(zip(found["ids"], np.asarray(found["embeddings"], np.float32).tolist(), strict=True))


def test_a_collection_encodes_each_text_once(function: EmbstoreEmbeddingFunction, client: Any) -> None:
    expected = dict(zip(IDS, Fake().vectors(DOCUMENTS).tolist(), strict=True))
    for name in ("first", "second"):
        collection = client.create_collection(name, embedding_function=function)
        collection.add(ids=IDS, documents=DOCUMENTS)
        assert vectors_in(collection) == expected
    collection.upsert(ids=IDS, documents=DOCUMENTS[::-1])
    assert sorted(text for call in Fake.calls for text in call) == ["the cat sat", "the dog ran"]
    assert Fake.n_canaries == 1
    hits = collection.query(query_texts=["the dog ran"], n_results=1)
    assert hits["ids"] == [["b"]]
    assert len([text for call in Fake.calls for text in call]) == 2  # this model gives queries no vectors of their own


def test_a_collection_knows_its_function(function: EmbstoreEmbeddingFunction, client: Any) -> None:
    client.create_collection("documents", embedding_function=function).add(ids=IDS, documents=DOCUMENTS)
    n_built = Fake.n_built
    collection = client.get_collection("documents")
    for _ in range(3):
        collection.upsert(ids=IDS, documents=DOCUMENTS)
        collection.query(query_texts=DOCUMENTS)
    assert (len(Fake.calls), Fake.n_canaries, Fake.n_built) == (1, 1, n_built)
    assert collection.configuration["hnsw"]["space"] == "cosine"  # as of what it calls


CHILD = """
import sys
import chromadb
import embstore.integrations.chroma
import tests.test_chroma_function as t
client = chromadb.PersistentClient(sys.argv[1])
collection = client.get_collection("documents")
collection.upsert(ids=["d"], documents=["the dog ran"])
assert collection.query(query_texts=["the dog ran"], n_results=4)["ids"][0][-1] in "ac"
assert t.Fake.calls == [], t.Fake.calls
collection.add(ids=["e"], documents=["something new"])
assert t.Fake.calls == [["something new"]], t.Fake.calls
client.close()
"""


def test_another_process_finds_the_function_and_the_cache_from_any_folder(
    function: EmbstoreEmbeddingFunction, client: Any, tmp_path: Path
) -> None:
    client.create_collection("documents", embedding_function=function).add(ids=IDS, documents=DOCUMENTS)
    client.close()
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    child = [sys.executable, "-c", CHILD, str(tmp_path / "chroma")]
    ran = subprocess.run(child, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr


def test_queries_have_vectors_of_their_own_where_the_function_gives_them(cache_path: Path) -> None:
    function = EmbstoreEmbeddingFunction(Asking(), cache_path)
    for _ in range(2):
        assert np.array_equal(function(["text"]), Asking().vectors(["text"]))
        assert np.array_equal(function.embed_query(["text"]), Asking().vectors(["query: text"]))
    assert Asking.calls == [["text"], ["query: text"]]
    function.close()


def test_the_configuration_goes_round(function: EmbstoreEmbeddingFunction) -> None:
    config = function.get_config()
    assert config == {
        "path": str(function.cache.path),
        "model_name": None,
        "underlying": {"name": "fake", "config": {"model": "small", "device": "cpu", "dim": 8}},
    }
    assert EmbstoreEmbeddingFunction.build_from_config(config) is function
    function.close()
    rebuilt = EmbstoreEmbeddingFunction.build_from_config(config)
    assert rebuilt is not function
    assert rebuilt.get_config() == config
    assert not rebuilt.is_legacy()
    rebuilt.close()


def test_what_changes_the_vectors_is_in_the_identity_and_the_device_is_not(cache: EmbeddingCache) -> None:
    for underlying in (Fake(), Fake("large"), Fake(dim=4), Asking(), Fake(device="cuda")):
        assert np.array_equal(EmbstoreEmbeddingFunction(underlying, cache)(["text"]), underlying.vectors(["text"]))
    EmbstoreEmbeddingFunction(Fake(), cache, model_name="named")(["text"])
    assert sorted(info.model_name for info in cache.models()) == ["large", "named", "small", "small", "small"]


def test_a_cache_that_was_given_is_used_and_one_that_is_closed_is_opened_anew(client: Any, cache_path: Path) -> None:
    with EmbeddingCache(cache_path) as cache:
        function = EmbstoreEmbeddingFunction(Fake(), cache)
        client.create_collection("documents", embedding_function=function).add(ids=IDS, documents=DOCUMENTS)
        assert cache.stats().n_vectors == 2
        function.close()
        assert cache.stats().n_vectors == 2  # it is its owner's to close
    collection = client.get_collection("documents")
    collection.upsert(ids=IDS, documents=DOCUMENTS)
    assert len(Fake.calls) == 1
    EmbstoreEmbeddingFunction.build_from_config(function.get_config()).close()


def test_a_function_on_a_cache_that_was_given_is_not_the_one_that_a_collection_is_opened_with(
    cache: EmbeddingCache,
) -> None:
    function = EmbstoreEmbeddingFunction(Fake(), cache)  # whose cache may be closed by then
    built = EmbstoreEmbeddingFunction.build_from_config(function.get_config())
    assert built is not function
    built.close()


def test_a_path_is_noted_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = EmbstoreEmbeddingFunction(Fake(), "relative.db")
    assert function.get_config()["path"] == str(tmp_path / "relative.db")
    function.close()


def test_another_kind_of_function_and_another_model_are_conflicts(
    function: EmbstoreEmbeddingFunction, client: Any, tmp_path: Path
) -> None:
    collection = client.create_collection("documents", embedding_function=function)
    with pytest.raises(ValueError, match="embstore"):
        client.get_collection("documents", embedding_function=Fake())
    other = EmbstoreEmbeddingFunction(Fake("large"), function.cache)
    with pytest.raises(InvalidInputError, match=r"filled with.*small.*large"):
        collection.modify(configuration={"embedding_function": other})
    moved = EmbstoreEmbeddingFunction(Fake(), tmp_path / "moved.db")
    collection.modify(configuration={"embedding_function": moved})
    assert client.get_collection("documents").configuration["embedding_function"].get_config() == moved.get_config()
    moved.close()


def test_a_function_that_cannot_be_built_again_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(InvalidInputError, match=r"Nameless cannot be built again.*no name or no configuration"):
        EmbstoreEmbeddingFunction(Nameless(), cache)

    class Odd(Fake):
        def get_config(self) -> dict[str, Any]:
            return {"model": object()}

    with pytest.raises(InvalidInputError, match=r"Odd cannot be built again.*not JSON"):
        EmbstoreEmbeddingFunction(Odd(), cache)
    with pytest.raises(InvalidInputError, match=r"function cannot be built again.*no attribute 'name'"):
        EmbstoreEmbeddingFunction(lambda texts: texts, cache)


def test_lone_surrogates_reach_the_function_as_replacement_characters(function: EmbstoreEmbeddingFunction) -> None:
    function(["a\ud800"])
    assert Fake.calls == [["a\ufffd"]]


def test_without_chromadb_the_line_that_installs_it_is_told() -> None:
    program = """
import sys
sys.modules["chromadb"] = None
import embstore
try:
    import embstore.integrations.chroma
except embstore.MissingExtraError as error:
    assert 'pip install "embstore[chroma]"' in str(error), error
else:
    raise AssertionError
"""
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr


def test_a_collection_keeps_no_password_of_a_server() -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    function = EmbstoreEmbeddingFunction(Fake(), "postgresql://u:secret@h/d")
    assert function.get_config()["path"] == "postgresql://u@h/d"
    function.close()
