"""What 1e6 to 1e9 vectors take, reckoned from the rates that were measured: the table of docs/scale.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.corpus import DIM
from benchmarks.report import Cases

SIZES = (10**6, 10**7, 10**8, 10**9)
VALUE_BYTES = 4
CLIENTS = 8


@dataclass(frozen=True)
class Rates:
    """What a row costs, as measured.

    Attributes
    ----------
    file_bytes, server_bytes, index_bytes : float
        Of a row of DIM values in an SQLite file, on a server with its indexes, and in those alone.
    file_put_us, file_read_us, server_put_us, server_read_us : float
        Microseconds of one client, of a million rows.
    move_us : float
        Of `embstore merge` from a file to a server.
    parquet_bytes, parquet_us : float
        Of a row in a Parquet file, and of its export from a server.
    encode_us : float
        Of a real model on the CPU.
    """

    file_bytes: float
    server_bytes: float
    index_bytes: float
    file_put_us: float
    file_read_us: float
    server_put_us: float
    server_read_us: float
    move_us: float
    parquet_bytes: float
    parquet_us: float
    encode_us: float

    @classmethod
    def of(cls, postgres: Cases, sqlite: Cases) -> Rates:
        """Find them in the two files of results."""
        million, file = postgres["million"], sqlite["million"]
        read = _row(million, "iter_matrix")
        return cls(
            file_bytes=sqlite["size"]["figures"][f"file size, dim {DIM}"] * DIM * VALUE_BYTES,
            server_bytes=read["bytes_a_row"],
            index_bytes=read["index_bytes_a_row"],
            file_put_us=_row(file, "put_many, 10,000 a call", "large")["median"],
            file_read_us=_row(file, "matrix", "large")["median"],
            server_put_us=_row(million, "put_many", "last tenth")["median"],
            server_read_us=read["median"],
            move_us=_row(postgres["move"], "embstore", "file to server")["median"],
            parquet_bytes=_row(postgres["move"], "embstore", "server to Parquet")["bytes_a_row"],
            parquet_us=_row(postgres["move"], "embstore", "server to Parquet")["median"],
            encode_us=_row(sqlite["encode"], "the model alone")["median"],
        )


def markdown(postgres: Cases, sqlite: Cases) -> str:
    """Give what was measured, and the table that follows from it."""
    rates = Rates.of(postgres, sqlite)
    columns = ["raw", "SQLite's file", "on PostgreSQL", "of it, indexes", "load, 1 client", "read all, 1 client"]
    columns += [f"read all, {CLIENTS} shards", "encode, 2 cores"]
    lines = [
        f"| a row of {DIM} values | SQLite's file | PostgreSQL | Parquet |",
        "|---|---|---|---|",
        f"| bytes on the disk | {rates.file_bytes:,.0f} | {rates.server_bytes:,.0f} | {rates.parquet_bytes:,.0f} |",
        f"| of them, in indexes | | {rates.index_bytes:,.0f} | |",
        f"| µs to put one, of 1,000,000 | {rates.file_put_us:.1f} | {rates.server_put_us:.1f} | |",
        f"| µs to read one in bulk | {rates.file_read_us:.1f} | {rates.server_read_us:.1f} | |",
        f"| µs to bring one here, `merge` and `export` | | {rates.move_us:.1f} | {rates.parquet_us:.1f} |",
        "",
        f"| vectors of {DIM} values | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for n in SIZES:
        cells = [
            f"{n:,}",
            *(size(n * each) for each in (DIM * VALUE_BYTES, rates.file_bytes, rates.server_bytes, rates.index_bytes)),
            duration(n * rates.server_put_us / 1e6),
            duration(n * rates.server_read_us / 1e6),
            duration(n * rates.server_read_us / 1e6 / CLIENTS),
            duration(n * rates.encode_us / 1e6),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def size(n_bytes: float) -> str:
    """Give bytes to two digits, as disks are sold."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{_two_digits(n_bytes / scale)} {unit}"
    return f"{n_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Give a time to two digits."""
    for unit, scale in (("days", 172_800), ("h", 7_200), ("min", 120)):
        if seconds >= scale:
            return f"{_two_digits(seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit])} {unit}"
    return f"{_two_digits(seconds)} s"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.10g}"


def _row(case: dict[str, Any], name: str, group: str | None = None) -> dict[str, Any]:
    """Find a row of a case, the first of its name where no group is said."""
    rows: list[dict[str, Any]] = case["rows"]
    return next(row for row in rows if row["name"] == name and group in (None, row["group"]))
