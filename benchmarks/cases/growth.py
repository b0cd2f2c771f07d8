"""One file that doubles and doubles: what a row costs at each size."""

from __future__ import annotations

from pathlib import Path

from benchmarks.competitors.base import BATCH
from benchmarks.corpus import BLOCK, Documents, InstantEncoder, make_documents
from benchmarks.results import CaseResult, Row
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn, seconds
from embstore import EmbeddingCache

FIRST, LAST = 10_000, 1_280_000
PUT, GET, MATRIX, PAGES = "put_many", "get_many", "matrix", "iter_matrix"
MOST_CALLS = 8
READ_ROUNDS = 2


def run(settings: Settings, folder: Path) -> CaseResult:
    """Put what doubles the file, 10,000 documents a call, then read; get_many of 10,000 a call, at most 8 calls."""
    first, last = settings.scaled(FIRST), settings.scaled(LAST)
    result = CaseResult(f"a file that doubles from {first:,} to {last:,} documents", "us a document")
    result.notes.append(
        f"{PUT} and {GET} have {min(first, BLOCK):,} documents a call; {PUT} is of those that doubled the file"
    )
    n_stored, n = 0, first
    with EmbeddingCache(folder / "embeddings.db") as cache:
        while n <= last:
            result.rows.append(_put(cache, n_stored, n))
            result.rows += in_turn(_reads(cache, n, first), min(settings.rounds, READ_ROUNDS))
            n_stored, n = n, 2 * n
    return result


def _put(cache: EmbeddingCache, n_stored: int, n: int) -> Row:
    """Make and put one block after the other, so that only one is in memory; making it is not timed."""
    taken = 0.0
    for start in range(n_stored, n, BLOCK):
        documents = _documents(start, min(BLOCK, n - start))
        taken += seconds(
            lambda some=documents: cache.put_many(  # type: ignore[misc]
                some.ids, some.texts, some.vectors, model_name=InstantEncoder.model_name
            )
        )
    return Row(PUT, n, [taken / (n - n_stored) * 1e6], group=f"{n:,}", durable="yes")


def _documents(start: int, n: int) -> Documents:
    """Make documents from anywhere on: a block has a beginning of its own."""
    offset = start % BLOCK
    documents = make_documents(offset + n, start=start - offset)
    return Documents(documents.ids[offset:], documents.texts[offset:], documents.vectors[offset:])


def _reads(cache: EmbeddingCache, n: int, size: int) -> list[Turn]:
    starts = range(0, n, size)[:: max(1, n // size // MOST_CALLS)]
    blocks = [_documents(start, min(size, BLOCK)) for start in starts]
    encoder = InstantEncoder(blocks[0].first(1))

    def get() -> None:
        for block in blocks:
            cache.get_many(block.ids, block.texts, encoder, batch_size=BATCH, progress=False)

    def pages() -> None:
        assert sum(len(vectors) for _, vectors in cache.iter_matrix(InstantEncoder.model_name)) == n

    found = cache.get_many(blocks[-1].ids, blocks[-1].texts, encoder, progress=False)
    assert (found == blocks[-1].vectors).all()
    group = f"{n:,}"
    return [
        Turn(GET, sum(map(len, blocks)), get, group),
        Turn(MATRIX, n, lambda: cache.matrix(InstantEncoder.model_name), group),
        Turn(PAGES, n, pages, group),
    ]
