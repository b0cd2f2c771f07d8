"""A million documents against a hundred thousand: what a row costs, and what reading in pages takes of memory."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.competitors.base import BATCH
from benchmarks.corpus import BLOCK, Documents, InstantEncoder, Vectors, make_documents
from benchmarks.results import CaseResult
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn
from embstore import EmbeddingCache

SMALL, LARGE = 100_000, 1_000_000
PUT, PUT_MORE = "put_many, 10,000 a call", "put_many, 100,000 a call"  # each rewrites most of the index on hashes
GET, GET_SOME, MATRIX = "get_many, all", "get_many, 10,000 a call", "matrix"
LOAD = "np.load"  # of the same vectors: fresh memory of a GB and more has a price of its own
PUT_ROUNDS, READ_ROUNDS = 2, 5


def run(settings: Settings, folder: Path) -> CaseResult:
    """Put, read and measure; embstore alone takes part. Rounds are few: one of a million is a minute."""
    sizes = {"small": settings.scaled(SMALL), "large": settings.scaled(LARGE)}
    title = f"{sizes['large']:,} documents against {sizes['small']:,}"
    result = CaseResult(title, "us a document")
    large = make_documents(sizes["large"])
    corpora = {"small": large.first(sizes["small"]), "large": large}
    puts = ((PUT_MORE, settings.scaled(SMALL)), (PUT, BLOCK))  # the files of the last of them are read below
    for what, n_a_call in puts:
        turns = [_put(folder, name, documents, what, n_a_call) for name, documents in corpora.items()]
        result.rows += in_turn(turns, PUT_ROUNDS)
    files = {name: folder / f"{name}.db" for name in corpora}
    caches = {name: EmbeddingCache(file) for name, file in files.items()}
    try:
        turns = [turn for name, cache in caches.items() for turn in _reads(cache, name, corpora[name])]
        turns += [_load(folder, name, documents) for name, documents in corpora.items()]
        result.rows += in_turn(turns, min(settings.rounds, READ_ROUNDS))
    finally:
        for cache in caches.values():
            cache.close()
    for what in (PUT, PUT_MORE, GET, GET_SOME, MATRIX, LOAD):
        result.ratio(f"a row of {what}, 1,000,000 / 100,000", result.find(what, "large"), result.find(what, "small"))
    megabytes = memory_of_pages(files["large"])
    if megabytes is None:
        result.notes.append("skipped: memory of iter_matrix (this system does not tell the peak of a process)")
    else:
        result.figures["MB of iter_matrix over the start"] = megabytes
    return result


def _put(folder: Path, name: str, documents: Documents, what: str, n_a_call: int) -> Turn:
    """Put all into a new file; the last one stays."""
    file = folder / f"{name}.db"
    open_cache: list[EmbeddingCache] = []

    def prepare() -> None:
        file.unlink(missing_ok=True)
        open_cache.append(EmbeddingCache(file))

    def put() -> None:
        for batch in documents.batches(n_a_call):
            open_cache[0].put_many(batch.ids, batch.texts, batch.vectors, model_name=InstantEncoder.model_name)

    def tidy() -> None:
        open_cache.pop().close()

    return Turn(what, len(documents), put, name, prepare, tidy, durable="yes")


def _reads(cache: EmbeddingCache, name: str, documents: Documents) -> list[Turn]:
    encoder = InstantEncoder(documents.first(1))

    def get(some: Documents) -> Vectors:
        return cache.get_many(some.ids, some.texts, encoder, batch_size=BATCH, progress=False)

    some = documents.batches(BLOCK)[:: max(1, len(documents) // SMALL)]  # as many of both sizes

    def get_in_pieces() -> None:
        for batch in some:
            get(batch)

    def matrix() -> Vectors:
        return cache.matrix(InstantEncoder.model_name)[1]

    assert (matrix() == documents.vectors).all()
    return [
        Turn(GET, len(documents), partial(get, documents), name),
        Turn(GET_SOME, sum(map(len, some)), get_in_pieces, name),
        Turn(MATRIX, len(documents), matrix, name),
    ]


def _load(folder: Path, name: str, documents: Documents) -> Turn:
    file = folder / f"{name}.npy"
    np.save(file, documents.vectors)
    return Turn(LOAD, len(documents), partial(np.load, file), name)


def memory_of_pages(file: Path) -> float | None:
    """Read all pages in a process of its own, and give by how many MB its peak is over what it held before."""
    command = [sys.executable, "-m", "benchmarks.pages_memory", str(file), InstantEncoder.model_name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return float(done.stdout) if done.stdout.strip() != "unknown" else None
