"""What LangChain's CacheBackedEmbeddings wrote to a LocalFileStore comes along bit for bit."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from embstore import EmbeddingCache, SourceError
from embstore.transfer import Skipped, import_langchain
from tests.fakes import CountingEncoder
from tests.files import dump

TEXTS = ["The cat sleeps.", "", "Zoë"]


def sha1_key(text: str) -> str:
    return str(uuid.uuid5(uuid.UUID(int=1985), hashlib.sha1(text.encode()).hexdigest()))


KEYS = {
    "sha1": sha1_key,
    "blake2b": lambda text: hashlib.blake2b(text.encode()).hexdigest(),
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "sha512": lambda text: hashlib.sha512(text.encode()).hexdigest(),
}


def write(folder: Path, encoder: CountingEncoder, key_encoder: str = "sha1", namespace: str = "") -> Path:
    for text in TEXTS:
        file = folder / f"{namespace}{KEYS[key_encoder](text)}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(encoder.vector(text).tolist()), encoding="utf-8")
    return folder


@pytest.mark.parametrize("namespace", ["", "model-a", "BAAI/bge-small"])
@pytest.mark.parametrize("key_encoder", list(KEYS))
def test_every_text_is_a_hit(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder, key_encoder: str, namespace: str
) -> None:
    folder = write(tmp_path / "store", encoder, key_encoder, namespace)
    texts = [] if key_encoder == "sha256" else TEXTS
    report = import_langchain(cache, folder, texts, namespace=namespace, model_name="fake")
    assert (report.n_stored, report.n_documents, report.ok) == (3, 0, True)
    assert cache.embed(TEXTS, encoder).tobytes() == encoder.vectors(TEXTS).tobytes()
    assert encoder.n_texts == 1  # the one by which the model is compared
    again = import_langchain(cache, folder, texts, namespace=namespace, model_name="fake")
    assert (again.n_stored, again.n_present) == (0, 3)


@pytest.mark.filterwarnings("ignore:Using default key encoder")
@pytest.mark.parametrize("key_encoder", list(KEYS))
def test_a_store_that_langchain_wrote_itself(cache: EmbeddingCache, tmp_path: Path, key_encoder: str) -> None:
    embeddings = pytest.importorskip("langchain_classic.embeddings", reason="needs langchain-classic")
    storage = pytest.importorskip("langchain_classic.storage", reason="needs langchain-classic")
    encoder = CountingEncoder()

    class Underlying(pytest.importorskip("langchain_core.embeddings").Embeddings):  # type: ignore[misc]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return encoder.vectors(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return encoder.vector(text).tolist()

    store = storage.LocalFileStore(tmp_path / "store")
    cached = embeddings.CacheBackedEmbeddings.from_bytes_store(
        Underlying(), store, namespace="m/", key_encoder=key_encoder
    )
    cached.embed_documents(TEXTS)
    report = import_langchain(cache, tmp_path / "store", TEXTS, namespace="m/", model_name="fake")
    assert (report.n_stored, report.ok) == (3, True)
    assert cache.embed(TEXTS, encoder).tobytes() == encoder.vectors(TEXTS).tobytes()


def test_keys_of_unknown_texts_and_other_namespaces_are_skipped(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder
) -> None:
    folder = write(tmp_path / "store", encoder)
    (folder / f"other{sha1_key('')}").write_text("[0.5]", encoding="utf-8")
    report = import_langchain(cache, folder, TEXTS[:2], model_name="fake")
    assert sorted(report.skipped, key=str) == sorted(
        [
            Skipped(str(folder / sha1_key("Zoë")), "none of the texts given has this key"),
            Skipped(str(folder / f"other{sha1_key('')}"), "it is no key of the namespace ''"),
        ],
        key=str,
    )
    assert report.n_stored == 2


def test_a_text_that_langchain_cannot_hash_is_not_taken_for_another(
    cache: EmbeddingCache, tmp_path: Path, encoder: CountingEncoder
) -> None:
    (tmp_path / "store").mkdir()
    for text in ("?", "\ufffd"):
        (tmp_path / "store" / sha1_key(text)).write_text("[0.5]", encoding="utf-8")
    report = import_langchain(cache, tmp_path / "store", ["\ud800"], model_name="m")
    assert (report.n_stored, len(report.skipped)) == (0, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[0.5",
        b"null",
        b"[]",
        b'["0.5"]',
        b"[true]",
        b"[true, 0.5]",
        b"[[0.5]]",
        b"[NaN]",
        b"[1, 2]",
        b"\xff",
        b"[1e999]",
    ],
)
def test_a_file_that_holds_no_vector_is_refused_by_name(
    cache: EmbeddingCache, cache_path: Path, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "store" / sha1_key("a")
    file.parent.mkdir()
    file.write_bytes(content)
    before = dump(cache_path)
    with pytest.raises(SourceError) as caught:
        import_langchain(cache, tmp_path / "store", ["a"], model_name="m")
    assert str(caught.value).startswith(str(file))
    assert dump(cache_path) == before


def test_what_is_no_folder_is_refused(cache: EmbeddingCache, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model_name": "m"}
    with pytest.raises(SourceError, match="no folder"):
        import_langchain(cache, tmp_path / "nowhere", **arguments)
