"""The usual home-made cache, a JSON index and .npy files, comes along bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, SourceError
from embstore.transfer import Skipped, TransferReport, export_npy, import_npy_folder, importing
from tests.fakes import CountingEncoder
from tests.files import dump

TEXTS = {"cat": "The cat sleeps.", "notes/dog": "The dog barks.", "again": "The cat sleeps."}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, encoder: CountingEncoder) -> Path:
    """As `HomeMadeCache` of the benchmarks leaves it."""
    folder = tmp_path / "home-made"
    (folder / "notes").mkdir(parents=True)
    for doc_id, text in TEXTS.items():
        np.save(folder / f"{doc_id}.npy", encoder.vector(text))
    write_index(folder, {doc_id: sha256(text) for doc_id, text in TEXTS.items()})
    return folder


def write_index(folder: Path, index: Any) -> None:
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def test_every_document_is_there_and_nothing_is_encoded(
    cache: EmbeddingCache, folder: Path, encoder: CountingEncoder
) -> None:
    report = import_npy_folder(cache, folder, model_name="fake")
    assert report == TransferReport(str(folder), 2, 0, 3, 0, (), ())
    vectors = cache.get_many(list(TEXTS), list(TEXTS.values()), encoder)
    assert vectors.tobytes() == encoder.vectors(list(TEXTS.values())).tobytes()
    assert encoder.n_texts == 1  # the one by which the model is compared with vectors that came without a canary


def test_a_second_import_stores_nothing(cache: EmbeddingCache, cache_path: Path, folder: Path) -> None:
    import_npy_folder(cache, folder, model_name="fake")
    before = dump(cache_path)
    assert import_npy_folder(cache, folder, model_name="fake") == TransferReport(str(folder), 0, 2, 0, 0, (), ())
    assert dump(cache_path) == before


def entries_by_hash(folder: Path) -> dict[str, Any]:
    return {sha256(text): f"{doc_id}.npy" for doc_id, text in TEXTS.items()}


@pytest.mark.parametrize(
    ("index", "n_documents"),
    [
        ({doc_id: {"content_hash": sha256(text), "model": "fake"} for doc_id, text in TEXTS.items()}, 3),
        ({doc_id: {"text": text, "file": f"{doc_id}.npy"} for doc_id, text in TEXTS.items()}, 3),
        ({doc_id: {"md5": hashlib.md5(text.encode()).hexdigest()} for doc_id, text in TEXTS.items()}, 3),
        ({doc_id: hashlib.sha1(text.encode()).hexdigest() for doc_id, text in TEXTS.items()}, 3),
        ({sha256(text): {"file": f"{doc_id}.npy", "doc_id": doc_id} for doc_id, text in TEXTS.items()}, 2),
        ({sha256(text): f"{doc_id}.npy" for doc_id, text in TEXTS.items()}, 0),
    ],
    ids=["objects", "texts", "md5", "sha1", "by hash", "files by hash"],
)
def test_the_index_may_have_other_forms(
    cache: EmbeddingCache, folder: Path, encoder: CountingEncoder, index: Any, n_documents: int
) -> None:
    write_index(folder, index)
    report = import_npy_folder(cache, folder, model_name="fake", texts=TEXTS.values())
    assert (report.n_stored, report.n_documents, report.conflicts) == (2, n_documents, ())
    stored = cache.embed(["The dog barks.", "The cat sleeps."], encoder)
    assert stored.tobytes() == encoder.vectors(["The dog barks.", "The cat sleeps."]).tobytes()


def test_what_cannot_be_told_is_skipped_and_named(cache: EmbeddingCache, folder: Path) -> None:
    index = folder / "index.json"
    np.save(folder / "stray.npy", np.ones(8, np.float32))
    np.save(folder / "new.npy", np.ones(8, np.float32))
    write_index(
        folder,
        {
            "cat": sha256(TEXTS["cat"]),
            "gone": sha256("gone"),
            "new": sha256("new"),
            "again": hashlib.sha1(b"unknown").hexdigest(),
            "notes/dog": {"hash": sha256(TEXTS["notes/dog"]), "model": "another"},
        },
    )
    later = index.stat().st_mtime_ns + 10**9
    os.utime(folder / "new.npy", ns=(later, later))
    report = import_npy_folder(cache, folder, model_name="fake")
    assert report.skipped == (
        Skipped(f"{index}: 'gone'", "its file is not there"),
        Skipped(f"{index}: 'new'", "its file is newer than the index (where the folder was copied: touch the index)"),
        Skipped(f"{index}: 'again'", "none of the texts given has this key"),
        Skipped(f"{index}: 'notes/dog'", "its model is 'another'"),
        Skipped(str(folder.resolve() / "stray.npy"), "the index has no entry for it"),
    )
    assert (report.n_stored, [d.doc_id for d in cache.documents()]) == (1, ["cat"])
    assert import_npy_folder(cache, folder, model_name="fake", source_model="another").n_documents == 1


def test_two_vectors_of_one_text_are_a_conflict_and_the_first_counts(
    cache: EmbeddingCache, folder: Path, encoder: CountingEncoder
) -> None:
    np.save(folder / "again.npy", -encoder.vector(TEXTS["cat"]))
    os.utime(folder / "index.json")
    (conflict,) = import_npy_folder(cache, folder, model_name="fake").conflicts
    assert (conflict.what, conflict.content_hash) == ("vector", sha256(TEXTS["cat"]))
    assert conflict.difference == pytest.approx(2)
    assert cache.matrix("fake", doc_ids=["again"])[1][0].tobytes() == encoder.vector(TEXTS["cat"]).tobytes()


class Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda file: file.write_bytes(b"\x93NUMPY\x01\x00"), "no .npy file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "no .npy file"),
        (lambda file: np.save(file, np.array([Executed()], dtype=object)), "no .npy file"),
        (lambda file: np.save(file, np.full(8, np.nan, np.float32)), "NaN or infinite"),
        (lambda file: np.save(file, np.ones(7, np.float32)), "has 7 values, those before it have 8"),
        (lambda file: np.save(file, np.ones((2, 8), np.float32)), "array of shape"),
        (lambda file: np.save(file, np.ones(8, np.int8)), "quantised"),
        (lambda file: np.save(file, np.array(["a"])), "no .npy file|dtype"),
    ],
    ids=["cut header", "cut off", "pickle", "nan", "another dim", "matrix", "integers", "strings"],
)
def test_a_broken_file_is_refused_by_name_and_what_came_before_is_told(
    cache: EmbeddingCache, folder: Path, monkeypatch: pytest.MonkeyPatch, content: Any, told: str
) -> None:
    monkeypatch.setattr(importing, "ROWS_AT_ONCE", 1)
    monkeypatch.chdir(folder)
    content(folder / "again.npy")
    os.utime(folder / "index.json")
    with pytest.raises(SourceError, match=told) as caught:
        import_npy_folder(cache, folder, model_name="fake")
    assert "'again'" in str(caught.value)
    assert "2 vectors, 2 documents and 0 texts that came before it are stored" in str(caught.value)
    assert [d.doc_id for d in cache.documents()] == ["cat", "notes/dog"]
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    "index",
    [
        *([], "text", {"cat": 1}, {"cat": "no hash"}, {"cat": {"file": "cat.npy"}}, {"": sha256("")}),
        {"../outside": sha256("")},
        {"cat": {"hash": sha256(""), "file": "/etc/passwd"}},
        {"nul\0": sha256("")},
        {"no file system takes such a name" * 100: sha256("")},
    ],
)
def test_a_foreign_index_is_refused_and_nothing_is_stored(
    cache: EmbeddingCache, folder: Path, cache_path: Path, index: Any
) -> None:
    np.save(folder.parent / "outside.npy", np.ones(8, np.float32))
    np.save(folder / ".npy", np.ones(8, np.float32))
    write_index(folder, index)
    before = dump(cache_path)
    with pytest.raises(SourceError):
        import_npy_folder(cache, folder, model_name="fake")
    assert dump(cache_path) == before


def test_a_vector_of_a_text_that_was_edited_is_skipped(cache: EmbeddingCache, folder: Path) -> None:
    md5 = hashlib.md5(b"before").hexdigest()
    hashes = {"cat": sha256("before"), "again": md5, "notes/dog": sha256(TEXTS["notes/dog"])}
    write_index(folder, {doc_id: {"text": TEXTS[doc_id], "hash": digest} for doc_id, digest in hashes.items()})
    report = import_npy_folder(cache, folder, model_name="fake")
    assert report.n_skipped == {"its hash is not that of its text": 2}
    assert [d.doc_id for d in cache.documents()] == ["notes/dog"]


def test_an_entry_that_stands_twice_is_refused(cache: EmbeddingCache, folder: Path) -> None:
    entries = f'{{"cat": "{sha256("before")}", "cat": "{sha256("after")}"}}'
    (folder / "index.json").write_text(entries, encoding="utf-8")
    with pytest.raises(SourceError, match="the key 'cat' stands in one object twice"):
        import_npy_folder(cache, folder, model_name="fake")


def test_a_folder_without_one_index_is_refused(cache: EmbeddingCache, folder: Path) -> None:
    (folder / "index.json").write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match="no JSON"):
        import_npy_folder(cache, folder, model_name="fake")
    (folder / "index.json").unlink()
    for missing in (folder, folder / "nowhere"):
        with pytest.raises(SourceError):
            import_npy_folder(cache, missing, model_name="fake")


def test_what_embstore_exported_is_told_where_to_go(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.get("a", "text", CountingEncoder())
    export_npy(cache, tmp_path / "out", "fake")
    with pytest.raises(SourceError, match="is an export of embstore; take it in by import_matrix, or --from matrix"):
        import_npy_folder(cache, tmp_path / "out", model_name="fake")


def test_float16_rounds_and_is_no_conflict(cache_path: Path, folder: Path) -> None:
    with EmbeddingCache(cache_path, dtype="float16") as cache:
        assert import_npy_folder(cache, folder, model_name="fake").ok
        assert import_npy_folder(cache, folder, model_name="fake").ok
        assert [model.dtype for model in cache.models()] == ["float16"]
        assert cache.verify() == []
