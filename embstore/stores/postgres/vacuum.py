"""What looks after the tables of a server as a whole, and what its own tools do better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from embstore.errors import NotAFileError, ReadOnlyError
from embstore.stores.postgres.condition import SIZE
from embstore.stores.postgres.model_store import PostgresModels
from embstore.stores.postgres.schema import MIGRATIONS, TABLES

VACUUM = f"""
VACUUM (ANALYZE) {", ".join(name for name in TABLES if name not in ("embeddings", MIGRATIONS))}
"""


class PostgresVacuum(PostgresModels):
    """The part of a `Store` on a server that is about it as a whole; see `embstore.stores.base.Store`."""

    def compact(self) -> int:
        """See `Store.compact`: others read and write meanwhile, and space amid a table is for new rows.

        Raises
        ------
        ReadOnlyError
            The role does not own the tables.
        """
        before, location = self._size_bytes(), self._server.location
        warnings = self._server.run_alone(VACUUM)
        if warnings:
            raise ReadOnlyError(f"{location!r}: {warnings[0]}; let the owner of its tables do it", path=location)
        return max(0, before - self._size_bytes())

    def backup(
        self, path: str | Path, *, allow_network_filesystem: bool, on_progress: Callable[[int, int], object]
    ) -> NoReturn:
        """Refuse: a file is copied so.

        Raises
        ------
        NotAFileError
        """
        location = self._server.location
        raise NotAFileError(
            f"{location!r} is on a server, whose own pg_dump makes a backup of it; `embstore merge {location} FILE` "
            f"copies all of it into a cache file",
            path=location,
        )

    def _size_bytes(self) -> int:
        return int(self._server.fetch(SIZE)[0][0])
