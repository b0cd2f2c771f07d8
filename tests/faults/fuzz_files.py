"""Mutated cache files, read by every call, for as long as is asked: ``make fuzz``.

A finding is an exception that is not of embstore, a vector that is not the one of its text, or more memory than a
stranger's file may take; a call that does not end is one of libFuzzer's. An input is a byte, 1 where checksums were
made to fit, and a file. The mutations know that it is one: most leave its header and its schema alone, and a third of
them put values into rows whose checksums they then make to fit, so that what lies behind these is reached.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embstore.checksums import (
    bytes_checksum,
    collection_checksum,
    document_checksums,
    model_checksum,
    text_checksum,
    vector_checksums,
)
from embstore.codec import VECTOR_DTYPE
from embstore.search.defaults import CACHE_NAME
from embstore.stores.tables import encodings, usage
from embstore.stores.usage import Counts
from tests.faults.hostile import LOOSE, edited
from tests.faults.reading import MEMORY_BYTES, WrongVectorError, make_library, read_everything
from tests.faults.tally import Tally

PAGE_BYTES = 512  # small pages make small files, of many pages
HEADER_BYTES = 100
AS_READ, FORGED = b"\0", b"\1"
FAULT = "fuzz"
SLOW_CALLS = ("repair",)

COLUMNS = {
    "models": ["model_id", "model_name", "settings", "dim", "dtype", "created_at", "canary"],
    "vectors": ["model_id", "content_hash", "dim", "standalone", "vector"],
    "documents": ["model_id", "collection", "doc_id", "vector_id"],
    "encodings": ["n_texts", "n_chars", "seconds"],
    "collections": ["collection", "model_name", "settings", "n_texts", "texts_version", "vectors_version"],
    "texts": ["collection", "doc_id", "content_hash", "metadata", "text"],
    "byte_values": ["key", "value"],
    "usage": ["model_id", "day", "n_hits", "n_hit_chars", "n_encoded", "n_stored", "encode_s"],
}

VALUES: list[Any] = [
    *(None, 0, 1, -1, 2, 7, 8, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, -0.0, 1e300, float("inf")),
    *("", "fake", "doc 1", "\0", "a\0b", "é" * 40, "x" * 5000, "{}", "[]", "{", "null", '{"dtype":"float16"}'),
    *('{"a":' + "[" * 2000, '{"a":1e999}', '{"a":NaN}', '{"year":{"x":1}}', '{"year":2001,"year":[1,"a",null]}'),
    *(b"", b"\0", b"\xff" * 7, bytes(8), bytes(32), bytes(16), b"\0\0\xc0\x7f" * 8, b"\0\0\x80\xff" * 8, bytes(4096)),
]


def corpus(folder: Path) -> list[bytes]:
    """A library's file with small pages, as it was read from there."""
    library = folder / "made"
    path = make_library(library)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("VACUUM")
    data = path.read_bytes()
    shutil.rmtree(library)
    return [AS_READ + data]


# --- mutations --------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random, folder: Path) -> bytes:
    """Another file made of one."""
    flag, content = data[:1], bytearray(data[1:])
    if len(content) <= PAGE_BYTES or rng.random() < 1 / 3:
        with contextlib.suppress(sqlite3.Error):
            return FORGED + forge(bytes(content), rng, folder / "forging.db")
    kept = bytes(content[:HEADER_BYTES])
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        rng.choice(CHANGES)(content, rng)
    if rng.random() < 0.9:
        content[:HEADER_BYTES] = kept
    return flag + bytes(content)


def _flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at : at + 4] = rng.choice([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", rng.randbytes(4)])


def _page(content: bytearray, rng: random.Random) -> slice:
    at = rng.randrange(max(1, len(content) // PAGE_BYTES)) * PAGE_BYTES
    return slice(at, at + PAGE_BYTES)


def _copy_page(content: bytearray, rng: random.Random) -> None:
    to = _page(content, rng)
    content[to] = content[_page(content, rng)][: len(content[to])]


def _lead_to_page(content: bytearray, rng: random.Random) -> None:
    """Put the number of a page where one may stand: at the beginning of a page, in its header, or in a cell."""
    page = _page(content, rng)
    at = page.start + rng.choice([0, 8, 8, rng.randrange(PAGE_BYTES)])
    content[at : at + 4] = rng.randrange(1, len(content) // PAGE_BYTES + 1).to_bytes(4, "big")


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(PAGE_BYTES, len(content) + 1) :]


def _type(content: bytearray, rng: random.Random) -> None:
    """Change a byte in a page's last third, where cells are: types and lengths stand there."""
    page = _page(content, rng)
    at = min(page.start + rng.randrange(PAGE_BYTES // 3, PAGE_BYTES), len(content) - 1)
    content[at] = rng.choice([0, 1, 6, 7, 8, 9, 12, 13, 0x7F, 0x80, 0xFF, rng.randrange(256)])


CHANGES: list[Callable[[bytearray, random.Random], None]] = [
    *(_flip, _flip, _overwrite, _type, _type, _type, _copy_page, _lead_to_page, _lead_to_page, _cut),
]


def forge(content: bytes, rng: random.Random, path: Path) -> bytes:
    """Put values into rows as if the tables took everything, and make the checksums fit."""
    path.write_bytes(content)
    with edited(path) as connection:
        kept = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        connection.executemany(
            "UPDATE sqlite_master SET sql = ?2 WHERE type = 'table' AND name = ?1", list(LOOSE.items())
        )
    with edited(path) as connection:
        for _ in range(rng.choice([1, 1, 2, 3])):
            table = rng.choice(list(COLUMNS))
            column, value = rng.choice(COLUMNS[table]), rng.choice(VALUES)
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE random() % 3 = 0", (value,))
            _make_sound(connection, table)
        connection.executemany("UPDATE sqlite_master SET sql = ?2 WHERE type = 'table' AND name = ?1", kept)
    return path.read_bytes()


def _make_sound(connection: sqlite3.Connection, table: str) -> None:
    """Write the checksums that rows would have, had they been written as they are."""
    key = {"documents": "model_id, collection, doc_id", "collections": "collection", "usage": "model_id, day"}.get(
        table, "rowid"
    )
    columns = ", ".join(COLUMNS[table])
    for row in connection.execute(f"SELECT {columns}, {key} FROM {table}").fetchall():
        values = row[: len(COLUMNS[table])]
        with contextlib.suppress(Exception):
            where = " AND ".join(f"{name} IS ?" for name in key.split(", "))
            parameters = (_checksum(connection, table, values, row[-1]), *row[len(values) :])
            connection.execute(f"UPDATE {table} SET checksum = ? WHERE {where}", parameters)


def _checksum(connection: sqlite3.Connection, table: str, values: tuple[Any, ...], rowid: int) -> int:
    if table == "models":
        return model_checksum(values[0], values[1:6], values[6])
    if table == "vectors":
        owner, key, _, standalone, vector = values
        return int(vector_checksums(owner, [key], bool(standalone), np.frombuffer(vector, VECTOR_DTYPE)[np.newaxis])[0])
    if table == "documents":
        (key,) = connection.execute("SELECT content_hash FROM vectors WHERE vector_id = ?", values[3:]).fetchone()
        return int(document_checksums(values[0], values[1], [values[2]], [key])[0])
    if table == "encodings":
        return encodings._checksum(rowid, values)  # type: ignore[arg-type]
    if table == "byte_values":
        return bytes_checksum(*values)
    if table == "usage":
        return usage._checksum(values[0], values[1], Counts(*values[2:]))
    return collection_checksum(values) if table == "collections" else text_checksum(*values)


# --- the target -------------------------------------------------------------------------------


@dataclass
class Target:
    """Reads files in a folder of its own, and keeps what should not have come of one."""

    folder: Path
    executions: int = 0
    findings: dict[tuple[str, str], str] = field(default_factory=dict)

    def run(self, data: bytes) -> None:
        """Read an input by every call."""
        library = self.folder / "library"
        shutil.rmtree(library, ignore_errors=True)
        library.mkdir(parents=True)
        (library / CACHE_NAME).write_bytes(data[1:])
        _forget_peak()
        before = _peak_bytes()
        slow = SLOW_CALLS if self.executions % 10 else ()  # a process each
        outcomes = read_everything(library, without=slow)
        self.executions += 1
        for call, outcome in outcomes.items():
            is_of_forged = data[:1] == FORGED and outcome[1] == WrongVectorError.__name__
            if outcome[0] == "leaked" and not is_of_forged:
                self._keep(data, call, f"{outcome[1]}: {outcome[2]}")
        if _peak_bytes() - before > MEMORY_BYTES:
            self._keep(data, "all", "memory")

    def _keep(self, data: bytes, call: str, what: str) -> None:
        if (call, what[:40]) not in self.findings:
            self.findings[call, what[:40]] = what
            kept = self.folder / f"finding-{len(self.findings)}"
            kept.write_bytes(data)
            _say(f"FOUND {call}: {what:.300} ({kept})")


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """The most memory since `_forget_peak`; 0 where that cannot be told."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def mutations(seeds: list[bytes], rng: random.Random, folder: Path) -> Iterator[bytes]:
    """Mutate without end: half of the time a seed, else a file that was made before."""
    pool = list(seeds)
    while True:
        data = mutate(rng.choice(seeds if rng.random() < 0.5 else pool), rng, folder)
        if len(pool) < 50:
            pool.append(data)
        else:
            pool[rng.randrange(len(seeds), len(pool))] = data
        yield data


def main() -> None:
    """Fuzz for some seconds, and put the counts into the results of the fault suite."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz_files")
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["embstore"]):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("embstore", "tests")]:
            del sys.modules[name]
        from tests.faults import fuzz_files
    fuzz_files.fuzz(atheris, arguments.seconds)


def fuzz(atheris: Any, seconds: float) -> None:
    """Let libFuzzer choose what to mutate by what it reaches; ends the process."""
    folder = Path(tempfile.mkdtemp(prefix="embstore-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    target = Target(folder)
    seeds = folder / "seeds"
    seeds.mkdir()
    sound = corpus(folder)
    for number, data in enumerate(sound):
        (seeds / str(number)).write_bytes(data)
    ends_at = time.monotonic() + seconds

    def one_input(data: bytes) -> None:
        if len(data) > HEADER_BYTES:
            target.run(data)
        if time.monotonic() > ends_at:
            tally = Tally()
            tally.add(FAULT, executions=target.executions, seconds=round(seconds), findings=len(target.findings))
            tally.save()
            _say(*tally.lines())
            if not target.findings:
                shutil.rmtree(folder)
            os._exit(bool(target.findings))

    def one_mutation(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        # What is forged stays so: without new beginnings no vector could be told to be wrong after a while.
        return mutate(rng.choice(sound) if rng.random() < 0.3 else data, rng, folder)[:max_size]

    options = [
        "-max_len=200000",
        "-timeout=60",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(seeds)], one_input, custom_mutator=one_mutation)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
