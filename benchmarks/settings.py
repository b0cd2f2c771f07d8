"""How large and how often."""

from __future__ import annotations

from dataclasses import dataclass

DOCUMENTS = 10_000


@dataclass(frozen=True)
class Settings:
    """What the command line asks for; all sizes grow and shrink with `documents`."""

    documents: int = DOCUMENTS
    rounds: int = 7

    def scaled(self, n: int) -> int:
        """Give n, or fewer or more in the proportion of `documents` to its default."""
        return max(20, n * self.documents // DOCUMENTS)
