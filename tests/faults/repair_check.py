"""What `repair` makes of a damaged file, held against the file as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embstore import EmbeddingCache
from embstore.errors import DamagedStoreError
from embstore.repairing import RepairReport, repair
from embstore.stores.pages import Pages, Row
from tests.files import rows

Key = tuple[Any, ...]

# What rows say, without the numbers that a new file gives them anew.
SAID = {
    "models": "SELECT model_id, model_name, settings, dim, dtype FROM models",
    "encodings": "SELECT * FROM encodings",
    "vectors": "SELECT model_id, content_hash, dim, standalone, checksum, vector FROM vectors",
    "documents": """
        SELECT documents.model_id, collection, doc_id, content_hash, documents.checksum
        FROM documents JOIN vectors USING (vector_id)""",
    "collections": "SELECT collection, model_name, settings FROM collections",
    "texts": "SELECT collection, doc_id, content_hash, metadata, text, checksum FROM texts",
    "usage": "SELECT * FROM usage",
    "byte_values": "SELECT key, value, checksum FROM byte_values",
}

NOT_NAMED = ("encodings", "usage")


class Everything:
    """All types of values, to `Pages.rows`."""

    def __contains__(self, types: object) -> bool:
        return True


class PagesOfRows(Pages):
    """Notes the pages that each row was read from."""

    def rows_with_pages(self) -> Iterator[tuple[Row, frozenset[int]]]:
        for number in self.live:
            self._touched = {number}
            for row in self._rows(number, Everything()):
                yield row, frozenset(self._touched)
                self._touched = {number}

    def _page(self, number: int) -> bytes:
        self.__dict__.setdefault("_touched", set()).add(number)
        return super()._page(number)


class Repairs:
    """Repairs damaged copies of a sound file.

    Parameters
    ----------
    sound : Path
    page_size : int
    """

    def __init__(self, sound: Path, page_size: int) -> None:
        self._sound = sound.read_bytes()
        self._page_size = page_size
        self._said = said(sound)
        self._pages = pages_of(self._sound, sound)

    def check(self, damaged: Path, new: Path) -> dict[str, Any]:
        """Repair a file, and tell what broke a promise."""
        before = damaged.read_bytes()
        expected = self._expected(before)
        broken, report = [], None
        try:
            report = repair(damaged, new)
        except DamagedStoreError as error:
            broken += [f"repair: {len(expected)} sound rows, and {error}"] if expected else []
        except Exception as error:
            broken.append(f"repair: {error!r}")
        if damaged.read_bytes() != before:
            broken.append("repair: the damaged file was changed")
        if report is None:
            broken += ["repair: a file, and an error"] if new.exists() else []
            return {"broken": broken, "is_repaired": 0, "kept": 0, "named": 0, "may_hold_removed": 0}
        broken += self._compared(report, expected, new)
        n_kept = report.n_vectors + report.n_documents + report.n_texts
        return {
            "broken": broken,
            "is_repaired": 1,
            "kept": n_kept,
            "named": len(report.lost),
            "may_hold_removed": int(report.may_hold_removed),
        }

    def _compared(self, report: RepairReport, expected: set[tuple[str, Key]], new: Path) -> list[str]:
        broken = []
        with EmbeddingCache(new) as cache:
            if cache.verify():
                broken.append("repair: the new file is not sound")
        kept = said(new)
        if expected - kept:
            broken.append(f"repair: {len(expected - kept)} sound rows are not kept: {_short(expected - kept)}")
        if kept - self._said and not report.may_hold_removed:
            broken.append(f"repair: {len(kept - self._said)} rows that were not there: {_short(kept - self._said)}")
        if self._said - kept and report.ok and any(row[0] not in NOT_NAMED for row in self._said - kept):
            broken.append(f"repair: {len(self._said - kept)} rows lost, none named: {_short(self._said - kept)}")
        return broken

    def _expected(self, data: bytes) -> set[tuple[str, Key]]:
        """The rows all of whose pages are as they were, and of those that they belong to."""
        size = self._page_size
        whole = {
            number
            for number in range(1, -(-len(self._sound) // size) + 1)
            if data[(number - 1) * size : number * size] == self._sound[(number - 1) * size : number * size]
        }
        there = {row for row in self._said if self._pages[row] <= whole}
        models = {key[0] for table, key in there if table == "models"}
        vectors = {key[:2] for table, key in there if table == "vectors"}
        if not models:
            return set()
        names = {key[0] for table, key in there if table == "collections"}
        return {
            (table, key)
            for table, key in there
            if table in ("models", "collections", "byte_values")
            or (table in ("encodings", "usage", "vectors") and key[0] in models)
            or (table == "documents" and key[0] in models and (key[0], key[3]) in vectors)
            or (table == "texts" and key[0] in names)
        }


def said(path: Path) -> set[tuple[str, Key]]:
    """What all rows of a file say."""
    return {(table, row) for table, sql in SAID.items() for row in rows(path, sql)}


def pages_of(data: bytes, path: Path) -> dict[tuple[str, Key], frozenset[int]]:
    """The pages of each row of a sound file."""
    hash_of = dict(rows(path, "SELECT vector_id, content_hash FROM vectors"))
    pages: dict[tuple[str, Key], frozenset[int]] = {}
    for row, numbers in PagesOfRows(data).rows_with_pages():
        values = row.values
        if row.rowid is None and len(values) == 5:
            pages["documents", (*values[:3], hash_of[values[3]], values[4])] = numbers
        elif row.rowid is None and len(values) == 7:
            pages["collections", values[:3]] = numbers
        elif row.rowid is None and len(values) == 8:
            pages["usage", values] = numbers
        elif row.rowid is not None:
            pages["models", (row.rowid, *values[1:5])] = numbers
            pages["encodings", (row.rowid, *values[1:])] = numbers
            pages["vectors", values[1:]] = numbers
            pages["texts", values[1:]] = numbers
            pages["byte_values", values] = numbers
    return pages


def _short(found: set[tuple[str, Key]]) -> str:
    table, key = min(found, key=repr)
    return f"{table} {key[:3]!r:.120}"
