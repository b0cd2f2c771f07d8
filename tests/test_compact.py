"""Giving back the space of a file that is not used."""

from __future__ import annotations

import numpy as np

from embstore import EmbeddingCache
from tests.fakes import CountingEncoder
from tests.files import dump, rows


def test_compacting_gives_space_back_and_keeps_every_row(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    ids = [f"doc {i}" for i in range(400)]
    cache.put_many(ids, ids, np.ones((400, 512)), model_name="big")
    cache.get("a", "text", encoder)
    cache.clear(model_name="big")
    before, size = dump(cache.path), cache.path.stat().st_size
    freed = cache.compact()
    assert freed == size - cache.path.stat().st_size > 400 * 512 * 2
    assert dump(cache.path) == before
    assert rows(cache.path, "PRAGMA page_size") == [(65536,)]
