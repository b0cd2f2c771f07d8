"""What is exported comes back bit for bit, appears when it is whole, and never takes the place of something else."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embstore import (
    CachedSemanticSearchEngine,
    DamagedStoreError,
    EmbeddingCache,
    MissingExtraError,
    TargetError,
    UnknownModelError,
    content_hash,
    transfer,
)
from embstore.transfer import ExportReport, TransferReport, exporting
from tests.fakes import CountingEncoder
from tests.files import change, rows

SETTINGS = {"revision": "1", "role": "query", "dtype": "float16"}
DOCUMENTS = """
SELECT model_name, settings, collection, doc_id, content_hash, hex(vector)
FROM embeddings ORDER BY 1, 2, 3, 4
"""
VALUES = np.array([[0.1, -0.0, 1e-45, 65504.0], [3.4e38, -1.5, 2**-14, 0.0]], np.float32)

FORMATS: dict[str, tuple[Any, Any]] = {
    "npy": (transfer.export_npy, transfer.import_matrix),
    "parquet": (transfer.export_parquet, transfer.import_parquet),
    "safetensors": (transfer.export_safetensors, transfer.import_safetensors),
}
NEEDS = {"parquet": "pyarrow", "safetensors": "safetensors"}


def needs(kind: str) -> None:
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind], reason=f"needs the extra {kind}")


@pytest.fixture(params=list(FORMATS))
def kind(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return request.param


@pytest.fixture(params=[*FORMATS, "projector"])
def export(request: pytest.FixtureRequest) -> Callable[..., ExportReport]:
    needs(request.param)
    return getattr(transfer, f"export_{request.param}")


@pytest.fixture
def filled(tmp_path: Path, encoder: CountingEncoder) -> Path:
    """Awkward values, ids and models, and texts that are known and ones that are not."""
    path = tmp_path / "filled" / "embeddings.db"
    with EmbeddingCache(path) as cache:
        cache.put_many(["a\tb", "é\n", "again"], ["one", "two", "one"], VALUES[[0, 1, 0]], model_name="m")
        cache.put_many(["a\tb"], ["three"], VALUES[1:], model_name="m", collection="second")
        cache.put_many(["h"], ["half"], [[0.1, 0.2]], model_name="m", settings=SETTINGS)
    with CachedSemanticSearchEngine(encoder, path=path.parent, collection_name="exact", index="exact") as engine:
        engine.index_documents(["four\tfive\nsix", "\ud800"], ["d", "e"])
    return path


@pytest.mark.parametrize("rows_at_once", [1, 1000])
def test_a_round_trip_is_bit_exact(
    filled: Path, tmp_path: Path, kind: str, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ROWS_AT_ONCE", rows_at_once)
    export, import_ = FORMATS[kind]
    with EmbeddingCache(filled) as cache, EmbeddingCache(tmp_path / "back.db") as back:
        for model_name, settings, n_rows, dim in (("m", {}, 4, 4), ("m", SETTINGS, 1, 2), ("fake", {}, 2, 8)):
            target = tmp_path / f"{model_name}-{len(settings)}"
            report = export(cache, target, model_name, settings=settings)
            assert (report.path, report.n_rows, report.dim) == (str(target), n_rows, dim)
            n_vectors = min(n_rows, 3)
            assert import_(back, target) == TransferReport(_source(target), n_vectors, 0, n_rows, 0, (), ())
            assert import_(back, target) == TransferReport(_source(target), 0, n_vectors, 0, 0, (), ())
        assert back.verify() == []
    assert rows(tmp_path / "back.db", DOCUMENTS) == rows(filled, DOCUMENTS)


def _source(target: Path) -> str:
    return str(target / "vectors.npy") if target.is_dir() else str(target)


def test_a_model_without_documents_is_exported_too(cache: EmbeddingCache, tmp_path: Path, kind: str) -> None:
    export, import_ = FORMATS[kind]
    cache.embed(["alone"], CountingEncoder())
    assert export(cache, tmp_path / "empty", "fake").n_rows == 0
    assert import_(cache, tmp_path / "empty").n_documents == 0


def test_a_collection_is_exported_alone(filled: Path, tmp_path: Path, kind: str) -> None:
    export, import_ = FORMATS[kind]
    with EmbeddingCache(filled) as cache, EmbeddingCache(tmp_path / "back.db") as back:
        assert export(cache, tmp_path / "out", "m", settings={}, collection="second").n_rows == 1
        import_(back, tmp_path / "out", collection="other", model_name="renamed")
        (document,) = back.documents()
    assert (document.collection, document.doc_id, document.model_name) == ("other", "a\tb", "renamed")


# --- what the files are ----------------------------------------------------------------------


def test_numpy_and_json_read_the_folder(filled: Path, tmp_path: Path) -> None:
    with EmbeddingCache(filled) as cache:
        transfer.export_npy(cache, tmp_path / "out", "fake")
        doc_ids, vectors = cache.matrix("fake")
    assert np.load(tmp_path / "out" / "vectors.npy").tobytes() == vectors.tobytes()
    lines = (tmp_path / "out" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    hashes = {"d": content_hash("four\tfive\nsix").hex(), "e": content_hash("\ud800").hex()}
    expected = [{"id": doc_id, "content_hash": hashes[doc_id], "collection": "exact"} for doc_id in doc_ids]
    expected[doc_ids.index("d")]["text"] = "four\tfive\nsix"
    assert [json.loads(line) for line in lines] == expected
    model = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    assert model == {"model_name": "fake", "settings": {}}


def test_pyarrow_reads_the_columns(filled: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    with EmbeddingCache(filled) as cache:
        transfer.export_parquet(cache, tmp_path / "out.parquet", "fake")
        doc_ids, vectors = cache.matrix("fake")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "collection", "content_hash", "text", "vector"]
    assert table["id"].to_pylist() == doc_ids
    assert table["text"].to_pylist() == ["four\tfive\nsix" if doc_id == "d" else None for doc_id in doc_ids]
    values = table["vector"].combine_chunks().flatten().to_numpy()
    assert values.dtype == np.float32
    assert values.tobytes() == vectors.tobytes()


def test_a_parquet_file_is_hardly_larger_than_its_vectors(cache: EmbeddingCache, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    vectors = np.random.default_rng(1).standard_normal((2_000, 384)).astype(np.float32)
    ids = [str(i) for i in range(len(vectors))]
    cache.put_many(ids, ids, vectors, model_name="m")
    report = transfer.export_parquet(cache, tmp_path / "out.parquet", "m")
    assert report.size_bytes < 1.1 * vectors.nbytes


def test_the_projector_reads_as_many_lines_as_there_are_documents(filled: Path, tmp_path: Path) -> None:
    with EmbeddingCache(filled) as cache:
        report = transfer.export_projector(cache, tmp_path / "out", "m", settings={})
        vectors = cache.matrix("m", settings={})[1]
    lines = (tmp_path / "out" / "vectors.tsv").read_text(encoding="utf-8").split("\n")
    values = np.array([line.split("\t") for line in lines[:-1]], dtype=np.float64).astype(np.float32)
    assert (report.n_rows, values.tobytes(), lines[-1]) == (4, vectors.tobytes(), "")
    header, *metadata = (tmp_path / "out" / "metadata.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    assert header == "id\tcollection\tcontent_hash\ttext"
    assert sorted(line.split("\t")[:2] for line in metadata) == [
        ["a b", ""],
        ["a b", "second"],
        ["again", ""],
        ["é", ""],
    ]
    assert (tmp_path / "out" / "projector_config.pbtxt").read_text(encoding="utf-8") == (
        'embeddings {\n  tensor_name: "m"\n  tensor_path: "vectors.tsv"\n  metadata_path: "metadata.tsv"\n}\n'
    )


def test_nine_digits_of_the_projector_are_enough_for_every_float32(cache: EmbeddingCache, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 0x7F000000, size=(100, 16), dtype=np.uint32)
    ids = [f"{i}" for i in range(100)]
    cache.put_many(ids, ids, bits.view(np.float32), model_name="m")
    transfer.export_projector(cache, tmp_path / "out", "m")
    values = np.loadtxt(tmp_path / "out" / "vectors.tsv", delimiter="\t").astype(np.float32)
    assert values.tobytes() == cache.matrix("m")[1].tobytes()


# --- whole or not at all ---------------------------------------------------------------------


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_replaced_unless_it_is_an_export_and_that_is_wanted(
    filled: Path, tmp_path: Path, export: Callable[..., ExportReport]
) -> None:
    target = tmp_path / f"out.{export.__name__.removeprefix('export_')}"
    with EmbeddingCache(filled) as cache:
        export(cache, target, "fake")
        before = {path: path.read_bytes() for path in [target, *tmp_path.glob("out*/*")] if path.is_file()}
        with pytest.raises(TargetError, match="already"):
            export(cache, target, "m", settings={})
        assert {path: path.read_bytes() for path in before} == before
        report = export(cache, target, "m", settings={}, overwrite=True)
        assert (report.dim, left_in(tmp_path)) == (4, ["filled", target.name])
        with pytest.raises(TargetError, match=r"already|the cache"):
            export(cache, filled.parent, "m", settings={}, overwrite=True)
        with pytest.raises(TargetError, match=r"already|the cache"):
            export(cache, filled, "m", settings={}, overwrite=True)
        (tmp_path / "notes.txt").write_text("notes", encoding="utf-8")
        with pytest.raises(TargetError, match="already"):
            export(cache, tmp_path / "notes.txt", "m", settings={}, overwrite=True)
        assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "notes"
        with pytest.raises(TargetError, match="no folder"):
            export(cache, tmp_path / "nowhere" / "out", "m", settings={})
        assert cache.verify() == []


def test_what_cannot_be_exported_whole_leaves_nothing(
    filled: Path, tmp_path: Path, export: Callable[..., ExportReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ROWS_AT_ONCE", 1)
    with EmbeddingCache(filled) as cache:
        with pytest.raises(UnknownModelError):
            export(cache, tmp_path / "out", "unknown")
        change(filled, "UPDATE documents SET vector_id = 1 WHERE doc_id = 'a\tb' AND collection = 'second'")
        with pytest.raises(DamagedStoreError):
            export(cache, tmp_path / "out", "m", settings={})
    assert left_in(tmp_path) == ["filled"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_this_user_can_read_an_export(filled: Path, tmp_path: Path, export: Callable[..., ExportReport]) -> None:
    with EmbeddingCache(filled) as cache:
        export(cache, tmp_path / "out", "fake")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("kind", list(NEEDS))
def test_a_missing_extra_says_how_to_install_it(
    cache: EmbeddingCache, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, NEEDS[kind], None)
    cache.embed(["alone"], CountingEncoder())
    export, import_ = FORMATS[kind]
    told = pytest.raises(MissingExtraError, match=rf'pip install "embstore\[{kind}\]"')
    with told if kind == "parquet" else nullcontext():  # tensors are written without
        export(cache, tmp_path / "out", "fake")
    with told:
        import_(cache, tmp_path / "out")


def test_safetensors_reads_the_tensors(filled: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors", reason="needs the extra safetensors")
    with EmbeddingCache(filled) as cache:
        transfer.export_safetensors(cache, tmp_path / "out.safetensors", "m", settings=SETTINGS)
        doc_ids, vectors = cache.matrix("m", settings=SETTINGS)
    with safetensors.safe_open(tmp_path / "out.safetensors", framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        noted = file.metadata()
    assert (tensors["vectors"].dtype, tensors["vectors"].tobytes()) == (np.float32, vectors.tobytes())
    assert tensors["content_hashes"].tobytes() == content_hash("half")
    assert json.loads(tensors["rows"].tobytes()) == [["", doc_id] for doc_id in doc_ids]
    assert (noted["model_name"], json.loads(noted["settings"])) == ("m", SETTINGS)


# --- whatever there is -----------------------------------------------------------------------

VECTOR_VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
ROWS = st.dictionaries(NAMES, st.tuples(st.text(max_size=5), VECTOR_VALUES, VECTOR_VALUES), min_size=1, max_size=5)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=ROWS, collection=st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
def test_any_values_ids_and_collections_come_back(
    kind: str, tmp_path_factory: pytest.TempPathFactory, documents: dict[str, Any], collection: str
) -> None:
    export, import_ = FORMATS[kind]
    folder = tmp_path_factory.mktemp("any")
    vector_of = {text: values for text, *values in documents.values()}
    texts = [text for text, *_ in documents.values()]
    with EmbeddingCache(folder / "there.db") as there, EmbeddingCache(folder / "back.db") as back:
        there.put_many(documents, texts, [vector_of[text] for text in texts], model_name="m", collection=collection)
        export(there, folder / "out", "m")
        assert import_(back, folder / "out").ok
    assert rows(folder / "back.db", DOCUMENTS) == rows(folder / "there.db", DOCUMENTS)
