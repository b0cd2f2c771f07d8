"""Reading .npy files that may be anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.errors import SourceError


def open_npy(file: Path, place: str | None = None) -> npt.NDArray[Any]:
    """Map the array of a .npy file, which is read when its values are; one of Python objects is refused.

    Raises
    ------
    SourceError
        It cannot be read, or it is no such file; the message names `place`.
    """
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # numpy raises what its parser of the header raises
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0:1]
        why = told if isinstance(told, str) else " ".join(told) or type(error).__name__
        raise SourceError(
            f"{place or file}: {str(file)!r} is no .npy file of numbers that can be read ({why:.200}); restore it, or "
            f"take it out of the source",
            path=str(file),
        ) from error
