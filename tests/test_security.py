"""What SECURITY.md says, where no other test shows it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from embstore import EmbeddingCache, content_hash
from embstore.checksums import vector_checksums
from tests.fakes import CountingEncoder
from tests.files import change, dump

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))

IDS = ["'; DROP TABLE documents; --", "a' OR '1'='1", '"', "%", "_", "?", "{places}", "\0", "%s", "x" * 100_000]


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_tests_that_are_named_are_there(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not test or test in functions


def test_tests_are_named() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize("scan", [False, True])
def test_an_id_is_never_sql(scan: bool, cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    doc_ids = IDS + [f"other {i}" for i in range(300 if scan else 1)]
    for collection in (*IDS[:-1], ""):
        vectors = cache.get_many(doc_ids, doc_ids, encoder, collection=collection)
        assert np.array_equal(vectors, encoder.vectors(doc_ids))
    assert sorted(cache.matrix("fake", collection=IDS[0])[0]) == sorted(doc_ids)
    assert cache.invalidate(IDS[0], collection=IDS[1]) == 1
    assert [IDS[0] in [row.doc_id for row in cache.documents(collection=name)] for name in IDS[:3]] == [
        *(True, False, True)
    ]
    assert {"documents", "models", "vectors"} <= dump(cache.path).keys()


def test_a_forged_row_is_believed(cache_path: Path, encoder: CountingEncoder) -> None:
    forged = np.full((1, 8), 0.5, np.float32)
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", encoder)
        (model,) = cache.store.find_models()
        (checksum,) = vector_checksums(model.model_id, [content_hash("text")], False, forged).tolist()
        change(cache_path, "UPDATE vectors SET vector = ?, checksum = ?", forged.tobytes(), checksum)
        assert np.array_equal(cache.get("a", "text", encoder), forged[0])
        assert cache.verify() == []
