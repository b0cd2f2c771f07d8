"""A page in one file: styles, scripts and data stand in it, and its browser is told to load nothing else."""

from __future__ import annotations

import base64
import html
import json
import os
import uuid
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.errors import TargetError

GENERATOR = '<meta name="generator" content="embstore">'
"""By which a page of ours is known, so that it can be drawn anew in its place."""

_HEAD_BYTES = 1024

# Browsers hold a page to this: whatever a document says, nothing is fetched and nothing is sent. plotly.js compiles its
# WebGL calls with `new Function`.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def page(title: str, body: str, *, styles: str, scripts: tuple[str, ...] = (), data: Any = None) -> str:
    """Put a page together.

    Parameters
    ----------
    title : str
        Plain text.
    body : str
        HTML, in which whatever came from outside is escaped.
    styles : str
        CSS of ours.
    scripts : tuple of str
        JavaScript, run in this order after the body is there.
    data : optional
        What `as_json` takes; scripts find it in the element "data".

    Returns
    -------
    str
        HTML.
    """
    policy = _POLICY.format(scripts="'unsafe-inline' 'unsafe-eval'" if scripts else "'none'")
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        GENERATOR,
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html.escape(title)}</title>\n<style>\n{styles}</style>\n</head>\n<body>\n{body}",
    ]
    if data is not None:
        parts.append(f'<script type="application/json" id="data">{as_json(data)}</script>')
    parts += [f"<script>\n{script}\n</script>" for script in scripts]
    return "\n".join([*parts, "</body>\n</html>\n"])


def as_json(value: Any) -> str:
    """Write JSON that can stand in a script element: no text in it ends the element or begins a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def packed(values: npt.NDArray[Any]) -> str:
    """Write an array as its little-endian bytes in base64, as a typed array reads them."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def as_float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Give numbers as the page has them; those that float32 has no place for are infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float64).astype(np.float32)


def static(name: str) -> str:
    """Read a style or a script that is shipped with this package."""
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def check_target(target: str | Path) -> Path:
    """Give the file that a page is to be written to, before any work is done for it.

    Raises
    ------
    TargetError
        There is something that is no page of ours, or no folder to put it in.
    """
    file = Path(target)
    try:
        if not file.parent.is_dir():
            raise TargetError(f"{str(file.parent)!r} is no folder; create it first", path=str(file))
        if file.exists() and not file.is_file():
            raise TargetError(f"{str(file)!r} is there, and no file; name another", path=str(file))
        if file.exists() and not _is_page(file):
            raise TargetError(f"{str(file)!r} is there, and no page of embstore; name another file", path=str(file))
    except (OSError, ValueError) as error:
        raise _unwritable(file, error) from error
    return file


def write_page(file: Path, text: str) -> int:
    """Write a page whole or not at all, in the place of one that is there; a link to it stays.

    Returns
    -------
    int
        Its bytes.

    Raises
    ------
    TargetError
    """
    content = text.encode("utf-8", "replace")  # metadata can hold lone surrogates
    place = Path(os.path.realpath(file))
    written = place.with_name(f".{place.name[:80]}.{uuid.uuid4().hex}")
    try:
        written.write_bytes(content)
        written.replace(place)
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        with suppress(OSError):
            written.unlink()
    return len(content)


def _is_page(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    return not head or GENERATOR.encode() in head


def _unwritable(file: Path, error: Exception) -> TargetError:
    if isinstance(error, TargetError):
        return error
    return TargetError(f"{str(file)!r} cannot be written: {error}", path=str(file))
