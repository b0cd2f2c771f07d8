"""`embstore import`, `export` and `merge`, as a script meets them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from embstore import EmbeddingCache, content_hash, encoders
from embstore.cli import main
from embstore.transfer import importing
from tests.fakes import CountingEncoder


def run(*arguments: str | Path, exit_code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    return result.output


@pytest.fixture
def home_made(tmp_path: Path, encoder: CountingEncoder) -> Path:
    folder = tmp_path / "home-made"
    folder.mkdir()
    index: dict[str, Any] = {}
    for doc_id in ("a", "b"):
        np.save(folder / f"{doc_id}.npy", encoder.vector(doc_id))
        index[doc_id] = content_hash(doc_id).hex()
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_import_makes_a_library_and_says_what_it_stored(tmp_path: Path, home_made: Path) -> None:
    library = tmp_path / "library"
    told = run("import", library, home_made, "--from", "npy", "--model-name", "fake")
    counts = "2 vectors, 2 documents and 0 texts stored; 0 vectors were there; 0 rows skipped"
    assert told == f"{home_made}: {counts}; 0 differ, 0 more by rounding\n"
    with EmbeddingCache(library / "embeddings.db") as cache:
        assert len(cache) == 2


def test_import_takes_settings_a_collection_and_a_format(tmp_path: Path, home_made: Path) -> None:
    path = tmp_path / "new.db"
    options = ("--settings", '{"revision": "1"}', "--collection", "mine", "--dtype", "float16", "--role", "query")
    run("import", path, home_made, "--from", "npy", "--model-name", "m", *options)
    with EmbeddingCache(path) as cache:
        (model,) = cache.models()
        assert model.settings == {"revision": "1", "role": "query", "dtype": "float16"}
        assert [(d.collection, d.doc_id) for d in cache.documents()] == [("mine", "a"), ("mine", "b")]


def test_a_model_that_can_be_loaded_tells_its_own_identity(
    tmp_path: Path, home_made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = CountingEncoder(model_name="loaded-model")
    monkeypatch.setitem(encoders._loaded, "some-model", loaded)
    run("import", tmp_path / "new.db", home_made, "--from", "npy", "--model", "some-model")
    with EmbeddingCache(tmp_path / "new.db") as cache:
        assert cache.missing(["a", "b"], loaded) == []
    assert (loaded.n_texts, loaded.n_canaries) == (0, 0)


def test_what_was_skipped_is_told_and_the_exit_code_is_1(tmp_path: Path, home_made: Path) -> None:
    (home_made / "a.npy").unlink()
    arguments = ("import", tmp_path / "library", home_made, "--from", "npy", "--model-name", "fake")
    assert "skipped: " in run(*arguments, exit_code=1)
    report = json.loads(run(*arguments, "--json", exit_code=1))
    assert (report["n_stored"], report["n_present"], report["ok"]) == (0, 1, False)
    assert report["n_skipped"] == {"its file is not there": 1}


def test_a_broken_source_is_exit_code_2_and_one_line(tmp_path: Path, home_made: Path) -> None:
    (home_made / "a.npy").write_bytes(b"")
    os.utime(home_made / "index.json")
    result = CliRunner().invoke(
        main, ["import", str(tmp_path / "new.db"), str(home_made), "--from", "npy", "--model-name", "m"]
    )
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.rstrip().endswith("nothing was stored")


def test_an_empty_file_is_filled(tmp_path: Path, home_made: Path) -> None:
    (tmp_path / "new.db").touch()  # as another process leaves it for a moment, or one that had no room
    run("import", tmp_path / "new.db", home_made, "--from", "npy", "--model-name", "fake")
    with EmbeddingCache(tmp_path / "new.db") as cache:
        assert len(cache) == 2


def test_an_import_that_is_interrupted_says_what_is_stored(
    tmp_path: Path, home_made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = importing._page
    pages: list[Any] = []

    def interrupt_the_second(*arguments: Any) -> Any:
        pages.append(rows(*arguments))
        if len(pages) == 2:
            raise KeyboardInterrupt
        return pages[0]

    monkeypatch.setattr(importing, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(importing, "_page", interrupt_the_second)
    arguments = ["import", str(tmp_path / "new.db"), str(home_made), "--from", "npy", "--model-name", "fake"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 130
    told = "1 vectors, 1 documents and 0 texts that came before it are stored, and running it again stores the rest"
    assert result.stderr.splitlines()[-1] == f"embstore: error: interrupted; {told}"


def test_merge_takes_a_library_or_a_file(tmp_path: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(tmp_path / "theirs" / "embeddings.db") as cache:
        cache.get("a", "one", encoder)
    told = run("merge", tmp_path / "theirs", tmp_path / "mine.db")
    assert "1 vector, 1 document and 0 texts stored" in told
    report = json.loads(run("merge", tmp_path / "theirs" / "embeddings.db", tmp_path / "mine.db", "--json"))
    assert (report["n_present"], report["ok"]) == (1, True)
    run("merge", tmp_path / "nowhere", tmp_path / "mine.db", exit_code=2)


@pytest.mark.parametrize("kind", ["npy", "parquet", "safetensors"])
def test_export_and_import_are_a_round_trip(tmp_path: Path, encoder: CountingEncoder, kind: str) -> None:
    if kind != "npy":
        pytest.importorskip({"parquet": "pyarrow"}.get(kind, kind), reason=f"needs the extra {kind}")
    library, target, back = tmp_path / "library", tmp_path / f"target.{kind}", tmp_path / "back.db"
    with EmbeddingCache(library / "embeddings.db") as cache:
        cache.get_many(["a", "b"], ["one", "two"], encoder)
        vectors = cache.matrix("fake", doc_ids=["a", "b"])[1]
    told = run("export", library, target, "--to", kind)
    assert told.startswith(f"{target}: 2 vectors of 8 values written, ")
    run("import", back, target, "--from", "matrix" if kind == "npy" else kind)
    with EmbeddingCache(back) as cache:
        assert cache.matrix("fake", doc_ids=["a", "b"])[1].tobytes() == vectors.tobytes()
    run("export", library, target, "--to", kind, exit_code=3)
    report = json.loads(run("export", library, target, "--to", kind, "--overwrite", "--json"))
    assert (report["path"], report["n_rows"], report["dim"]) == (str(target), 2, 8)


def test_export_asks_which_model_where_there_are_several(tmp_path: Path, encoder: CountingEncoder) -> None:
    with EmbeddingCache(tmp_path / "c.db") as cache:
        cache.get("a", "one", encoder)
        cache.get("a", "one", CountingEncoder(model_name="another"))
    assert "another, fake" in run("export", tmp_path / "c.db", tmp_path / "out", "--to", "npy", exit_code=2)
    run("export", tmp_path / "c.db", tmp_path / "out", "--to", "npy", "--model-name", "fake", "--collection", "")


def test_an_option_of_another_format_is_refused(tmp_path: Path, home_made: Path) -> None:
    arguments = ("import", tmp_path / "new.db", home_made, "--from", "npy", "--model-name", "m")
    assert "--from npy takes no --id-column" in run(*arguments, "--id-column", "key", exit_code=2)
    assert not (tmp_path / "new.db").exists()


def test_texts_tell_what_keys_are_of(tmp_path: Path, encoder: CountingEncoder) -> None:
    (tmp_path / "store" / "m").mkdir(parents=True)
    key = hashlib.blake2b(b"one").hexdigest()
    (tmp_path / "store" / "m" / key).write_text(json.dumps(encoder.vector("one").tolist()), encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "one"}\n', encoding="utf-8")
    arguments = ("import", tmp_path / "new.db", tmp_path / "store", "--from", "langchain", "--model-name", "fake")
    assert "none of the texts given" in run(*arguments, "--namespace", "m/", exit_code=1)
    run(*arguments, "--namespace", "m/", "--texts", tmp_path / "texts.jsonl")
    with EmbeddingCache(tmp_path / "new.db") as cache:
        assert cache.missing(["one"], encoder) == []
