"""A process that merges one store into another, and tells of each page and of the texts and values after them.

    python -m tests.transfer.merger SOURCE TARGET

The last line is the report's n_stored, n_present, n_documents, n_values and the number of conflicts.
"""

from __future__ import annotations

import sys
from typing import Any

from embstore import EmbeddingCache
from embstore.transfer import merge, merging
from embstore.transfer.incoming import Incoming

ROWS = 100


def main(source: str, target: str) -> None:
    take, take_values = Incoming.take, merging._take_values

    def taking(self: Incoming, *arguments: Any) -> None:
        tell("page")
        take(self, *arguments)

    def taking_values(*arguments: Any) -> None:
        tell("values")
        take_values(*arguments)

    merging.ROWS_AT_ONCE, merging.FAR = ROWS, 1
    Incoming.take, merging._take_values = taking, taking_values  # type: ignore[assignment, method-assign]
    with EmbeddingCache(target) as cache:
        report = merge(cache, source)
    counts = (report.n_stored, report.n_present, report.n_documents, report.n_values, len(report.conflicts))
    tell(" ".join(map(str, counts)))


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
