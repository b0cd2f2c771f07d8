"""What comes from files and goes to files does so bit for bit where the cache is on a server, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from embstore import EmbeddingCache, transfer
from tests.transfer.test_exports import FORMATS, VALUES, needs
from tests.transfer.test_killed_transfers import IDS, TEXTS, VECTORS, N, llm


@pytest.mark.parametrize("kind", list(FORMATS))
def test_an_export_from_a_server_and_its_import_into_it_are_bit_exact(
    postgres_url: str, tmp_path: Path, kind: str
) -> None:
    needs(kind)
    export, import_ = FORMATS[kind]
    ids = ["a\tb", "é🎉", "again"]
    with EmbeddingCache(postgres_url) as server, EmbeddingCache(tmp_path / "file.db") as file:
        server.put_many(ids, ["one", "two", "one"], VALUES[[0, 1, 0]], model_name="m")
        assert export(server, tmp_path / "out", "m").n_rows == 3
        assert import_(file, tmp_path / "out").n_stored == 2
        assert file.matrix("m", doc_ids=ids)[1].tobytes() == VALUES[[0, 1, 0]].tobytes()
        server.clear()
        report = import_(server, tmp_path / "out")
        assert (report.n_stored, report.n_documents, report.ok) == (2, 3, True)
        assert import_(server, tmp_path / "out").n_stored == 0
        assert server.matrix("m", doc_ids=ids)[1].tobytes() == VALUES[[0, 1, 0]].tobytes()
        assert server.verify() == file.verify() == []


def test_a_database_of_llm_comes_to_a_server(postgres_url: str, tmp_path: Path) -> None:
    (source,) = llm(tmp_path / "source")
    with EmbeddingCache(postgres_url) as server:
        assert transfer.import_llm(server, source).n_stored == N
        assert transfer.import_llm(server, source, texts=TEXTS).n_stored == 0
        ids, vectors = server.matrix("m", doc_ids=IDS)
        assert (ids, vectors.tobytes()) == (IDS, VECTORS.tobytes())
