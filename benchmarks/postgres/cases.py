"""What is measured on a server: filling, reading in bulk, looking up, sizes, and the way from and to a file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.competitors import installed
from benchmarks.corpus import BLOCK, DIM, Documents, make_documents
from benchmarks.postgres.rivals import (
    ROWS_A_TRANSACTION,
    Bare,
    Embstore,
    LangChainPostgres,
    Limit,
    OnServer,
    PgvectorColumn,
)
from benchmarks.postgres.server import Server
from benchmarks.results import OURS, CaseResult, Row
from benchmarks.settings import Settings
from benchmarks.timing import Turn, in_turn, seconds
from embstore import EmbeddingCache, transfer

RIVALS: tuple[type[OnServer], ...] = (Embstore, Bare, Limit, PgvectorColumn, LangChainPostgres)
DOCUMENTS = 100_000
DIMS = (384, 768, 1024, 1536, 3072)
FILL = f"upserts, {DOCUMENTS:,} x {DIM}"
BULK = f"bulk read, {DOCUMENTS:,} x {DIM}"
LOOK_UP = f"get_many, all of {ROWS_A_TRANSACTION:,} stored"


def fill(settings: Settings, server: Server) -> CaseResult:
    """Fill a new schema each time; the first time see that it gives back what was stored, and how large it is."""
    documents = make_documents(settings.scaled(DOCUMENTS))
    result = _result(FILL, documents)
    sizes: dict[str, float] = {}
    turns = [_fresh(kind, server, documents, sizes) for kind in _present(result)]
    result.rows = in_turn(turns, settings.rounds)
    for row in result.rows:
        row.facts.update(rows_a_second=1e6 / row.median, times_raw_bytes=sizes[row.name])
    _compare(result, "rows a second")
    return result


def bulk(settings: Settings, server: Server) -> CaseResult:
    """Read everything there is into one matrix."""
    documents = make_documents(settings.scaled(DOCUMENTS))
    result = _result(BULK, documents)
    with ExitStack() as filled:
        rivals = [filled.enter_context(_Filled(kind, server, documents)).rival for kind in _present(result)]
        for rival in rivals:
            rival.check_all()
        turns = [Turn(each.name, len(each.documents), each.read_all) for each in rivals]
        result.rows = in_turn(turns, settings.rounds)
    for row in result.rows:
        row.facts.update(rows_a_second=1e6 / row.median)
    _compare(result, "rows a second")
    return result


def look_up(settings: Settings, server: Server) -> CaseResult:
    """Ask for everything by its texts, in an order of its own."""
    documents = make_documents(settings.scaled(ROWS_A_TRANSACTION))
    result = _result(LOOK_UP, documents)
    with ExitStack() as filled:
        kinds = [kind for kind in _present(result) if kind is not Limit]
        rivals = [filled.enter_context(_Filled(kind, server, documents)).rival for kind in kinds]
        turns = []
        for rival in rivals:
            shuffled = rival.documents.shuffled()
            rival.check(shuffled)
            turns.append(Turn(rival.name, len(shuffled), partial(rival.read, shuffled)))
        result.rows = in_turn(turns, settings.rounds)
    for row in result.rows:
        row.facts.update(rows_a_second=1e6 / row.median)
    _compare(result, "rows a second")
    return result


def size(settings: Settings, server: Server) -> CaseResult:
    """Tell what a vector and its document take on the server: tables and indexes, without the write-ahead log."""
    n = settings.scaled(ROWS_A_TRANSACTION)
    result = CaseResult(f"{n:,} vectors on the server beside their raw bytes", "times the raw bytes")
    for dim in DIMS:
        with _Filled(Embstore, server, make_documents(n, dim)) as filled:
            taken, of_indexes = server.bytes_a_row(filled.rival, n)
        facts = {"bytes_a_row": taken, "index_bytes_a_row": of_indexes}
        result.rows.append(Row(OURS, n, [taken / (4 * dim)], group=f"dim {dim}", facts=facts))
        result.figures[f"dim {dim}"] = taken / (4 * dim)
    return result


def million(settings: Settings, server: Server) -> CaseResult:
    """Put ten times as many, and see what a row costs at the beginning and at the end; then read them in pages."""
    block = settings.scaled(DOCUMENTS)
    result = CaseResult(f"{10 * block:,} x {DIM} on PostgreSQL, put {ROWS_A_TRANSACTION:,} a call", "us a document")
    rival = server.rival(Embstore, make_documents(1))
    with EmbeddingCache(rival.url) as cache:
        costs = []
        for start in range(0, 10 * block, min(block, BLOCK)):
            documents = make_documents(min(block, BLOCK), start=start)
            put = partial(cache.put_many, documents.ids, documents.texts, documents.vectors, model_name="instant")
            costs.append(seconds(put) / len(documents) * 1e6)
        n = len(costs) // 10
        result.rows = [
            Row("put_many", block, costs[:n], group="first tenth", durable="yes"),
            Row("put_many", block, costs[-n:], group="last tenth", durable="yes"),
        ]
        server.analyze()
        facts = dict(zip(("bytes_a_row", "index_bytes_a_row"), server.bytes_a_row(rival, 10 * block), strict=True))
        read = Turn("iter_matrix", 10 * block, partial(_read_pages, cache, 10 * block), facts=facts)
        result.rows += in_turn([read], min(settings.rounds, 3))
    server.drop(rival)
    for row in result.rows:
        row.facts.update(rows_a_second=1e6 / row.median)
    result.ratio("put_many, last tenth / first tenth", result.rows[1], result.rows[0])
    return result


def _read_pages(cache: EmbeddingCache, n: int) -> None:
    assert sum(len(vectors) for _, vectors in cache.iter_matrix("instant")) == n


TO_SERVER, AGAIN, TO_FILE, TO_PARQUET = "file to server", "again", "server to file", "server to Parquet"


def move(settings: Settings, server: Server) -> CaseResult:
    """Merge a file into an empty schema, again when all is there, that into a new file, and export it."""
    documents = make_documents(settings.scaled(DOCUMENTS))
    result = CaseResult(f"merges and an export, {len(documents):,} x {DIM}", "us a document")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        moved = _Moved(Path(folder), server, documents)
        for _ in range(min(settings.rounds, 3)):
            moved.once()
    result.rows = [
        Row(OURS, len(documents), taken, group=group, durable="yes", facts={"rows_a_second": 1e6 / median(taken)})
        for group, taken in moved.rounds.items()
    ]
    result.rows[-1].facts.update(bytes_a_row=moved.parquet_bytes / len(documents))
    return result


class _Moved:
    """A file whose rows go to a server, and from there to another file and to Parquet."""

    def __init__(self, folder: Path, server: Server, documents: Documents) -> None:
        self._folder, self._server, self._documents = folder, server, documents
        self.rounds: dict[str, list[float]] = {group: [] for group in (TO_SERVER, AGAIN, TO_FILE, TO_PARQUET)}
        self.parquet_bytes = 0
        with EmbeddingCache(folder / "embeddings.db") as cache:
            for some in documents.batches(ROWS_A_TRANSACTION):
                cache.put_many(some.ids, some.texts, some.vectors, model_name="instant")

    def once(self) -> None:
        rival, back = self._server.rival(Embstore, self._documents), self._folder / "back.db"
        parquet = self._folder / "vectors.parquet"
        with EmbeddingCache(rival.url) as there, EmbeddingCache(back) as here:
            for group, work in (
                (TO_SERVER, partial(transfer.merge, there, self._folder / "embeddings.db")),
                (AGAIN, partial(transfer.merge, there, self._folder / "embeddings.db")),
                (TO_FILE, partial(transfer.merge, here, rival.url)),
                (TO_PARQUET, partial(transfer.export_parquet, there, parquet, "instant")),
            ):
                self._server.settle()
                self.rounds[group].append(seconds(work) / len(self._documents) * 1e6)
            _, vectors = here.matrix("instant", doc_ids=self._documents.ids)
            assert (vectors == self._documents.vectors).all()
        self.parquet_bytes = parquet.stat().st_size
        for file in (back, parquet):
            file.unlink()
        self._server.drop(rival)


Case = Callable[[Settings, Server], CaseResult]
CASES: dict[str, Case] = {
    "fill": fill,
    "bulk": bulk,
    "look-up": look_up,
    "size": size,
    "move": move,
    "million": million,
}


def _result(what: str, documents: Documents) -> CaseResult:
    return CaseResult(f"{what} on PostgreSQL ({len(documents):,} documents)", "us a document")


def _present(result: CaseResult) -> list[type[OnServer]]:
    present, notes = installed(RIVALS)
    result.notes += notes
    return [kind for kind in RIVALS if kind in present]


def _compare(result: CaseResult, what: str) -> None:
    """Note our rate beside that of each other: their time by ours, the median of the rounds' ratios."""
    ours = result.find(OURS)
    for row in result.rows:
        if row.name != OURS:
            result.ratio(f"{what} / {row.name}", row, ours)


def _fresh(kind: type[OnServer], server: Server, documents: Documents, sizes: dict[str, float]) -> Turn:
    present: list[OnServer] = []

    def prepare() -> None:
        rival = server.rival(kind, documents)
        rival.open()
        present.append(rival)
        server.settle()

    def tidy() -> None:
        rival = present.pop()
        try:
            if kind.name not in sizes:
                rival.check_all()
                whole, _ = server.bytes_a_row(rival, len(rival.documents))
                sizes[kind.name] = whole / rival.documents.vectors[0].nbytes
        finally:
            rival.close()
            server.drop(rival)

    return Turn(
        kind.name,
        len(kind.share(documents)),
        lambda: present[0].fill(),
        prepare=prepare,
        tidy=tidy,
        durable=kind.durable,
    )


class _Filled:
    """A competitor that has all of its documents, while a block runs."""

    def __init__(self, kind: type[OnServer], server: Server, documents: Documents) -> None:
        self._server = server
        self.rival = server.rival(kind, documents)

    def __enter__(self) -> _Filled:
        self.rival.open()
        self.rival.fill()
        self._server.analyze()
        return self

    def __exit__(self, *_: object) -> None:
        self.rival.close()
        self._server.drop(self.rival)
