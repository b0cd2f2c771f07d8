"""Progress bars: shown when a person looks at a terminal, silent otherwise."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol, Self


class Bar(Protocol):
    """What is used of a bar of tqdm."""

    total: float | None
    n: Any

    def update(self, n: float | None = 1) -> object:
        """Move on."""

    def set_postfix(self, told: Mapping[str, object], refresh: bool = True) -> object:
        """Tell something at its end."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...


class Silence:
    """The bar that nobody sees. One of tqdm's that is not shown still makes locks of the system, and a thread."""

    total: float | None = None
    n: Any = 0

    def update(self, n: float | None = 1) -> None:
        """Do nothing."""

    def set_postfix(self, told: Mapping[str, object], refresh: bool = True) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def progress_bar(total: int | None, desc: str, enabled: bool | None = None, unit: str = "it") -> Bar:
    """Give a bar to be used as a context manager and moved on with `update`.

    Parameters
    ----------
    total : int or None
        How many units there are to do; None where only the end will tell.
    desc : str
        What is being done.
    enabled : bool, optional
        None shows the bar where stderr is a terminal.
    unit : str
        What is counted.

    Returns
    -------
    Bar
        One that stays on the screen where it is the outermost, and vanishes when done inside of another.
    """
    if enabled is None:
        enabled = sys.stderr is not None and sys.stderr.isatty()
    if not enabled:
        return Silence()
    from tqdm import tqdm

    bar: Any = tqdm(total=total, desc=desc, unit=unit, leave=None)  # an inner bar leaves nothing behind
    shown: Bar = bar
    return shown
