"""Progress bars: shown when a person looks at a terminal, silent otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(total: int | None, desc: str, enabled: bool | None = None, unit: str = "it") -> tqdm[Any]:
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
    tqdm
        One that stays on the screen where it is the outermost, and vanishes when done inside of another.
    """
    from tqdm import tqdm

    # tqdm's own meaning of None: no bar where stderr is no terminal, and none left behind by an inner bar.
    disable = None if enabled is None else not enabled
    return tqdm(total=total, desc=desc, unit=unit, disable=disable, leave=None)
