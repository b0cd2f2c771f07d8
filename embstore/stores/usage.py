"""What was encoded of each model, and what was found: the values that are counted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple


def today() -> str:
    """Name the day of UTC that it is, as "2026-01-31"."""
    return time.strftime("%Y-%m-%d", time.gmtime())


class Counts(NamedTuple):
    """What was counted of a model.

    Attributes
    ----------
    n_hits : int
        Texts whose vectors were asked for and found; the same text twice in a call counts once.
    n_hit_chars : int
        Their characters.
    n_encoded : int
        Texts that the model encoded: the misses. Canaries do not count.
    n_stored : int
        Vectors that were stored of contents that had none, also those that were put.
    encode_s : float
        Seconds that the model took.
    """

    n_hits: int = 0
    n_hit_chars: int = 0
    n_encoded: int = 0
    n_stored: int = 0
    encode_s: float = 0.0

    def plus(self, other: Counts) -> Counts:
        """Add two up, each count by itself."""
        return Counts(
            self.n_hits + other.n_hits,
            self.n_hit_chars + other.n_hit_chars,
            self.n_encoded + other.n_encoded,
            self.n_stored + other.n_stored,
            self.encode_s + other.encode_s,
        )


@dataclass(frozen=True)
class DayUsage:
    """What was counted of a model on a day of UTC, which is named as "2026-01-31"; see `Counts`."""

    day: str
    n_hits: int
    n_hit_chars: int
    n_encoded: int
    n_stored: int
    encode_s: float


@dataclass(frozen=True)
class ModelUsage:
    """What a model has done, and what the cache has saved it.

    A call that finds everything writes nothing: its hits are stored with the next write of its process. Where there is
    none they are in no file.

    Attributes
    ----------
    n_hits : int
        Texts whose vectors were asked for and found, those of this process that are not stored yet among them; the
        same text twice in a call counts once. None were counted before schema version 4.
    n_encoded : int
        Texts that the model encoded: the misses.
    encode_s : float
        Seconds that it took.
    saved_s : float
        Seconds that it would have taken for the hits, by their characters; 0 where nothing tells how long it takes.
    days : tuple of DayUsage
        The same by day, ascending, as far as it is stored.
    """

    n_hits: int = 0
    n_encoded: int = 0
    encode_s: float = 0.0
    saved_s: float = 0.0
    days: tuple[DayUsage, ...] = ()
