"""Text in the columns of a server, which can hold any character but U+0000."""

from __future__ import annotations

from collections.abc import Iterable

from embstore.errors import InvalidInputError

LONGEST_KEY_BYTES = 2_600  # together: an index takes no longer ones


def stored(text: str) -> str:
    """Give the text to be stored for a text: itself, but for two characters; in the same order."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def given(text: str) -> str:
    """Give the text that another one was stored for."""
    if "\1" in text:
        return text.replace("\1\1", "\0").replace("\1\2", "\1")
    return text


def check_keys(scope: str, keys: Iterable[bytes], what: str = "doc_id") -> None:
    """Refuse keys that no index takes.

    Parameters
    ----------
    scope : str
        What is in the key too, such as the collection.
    keys : iterable of bytes
        UTF-8.

    Raises
    ------
    InvalidInputError
        One is too long.
    """
    room = LONGEST_KEY_BYTES - len(scope.encode())
    longest = max(keys, key=len, default=b"")
    if len(longest) > room:
        raise InvalidInputError(
            f"{what} {longest.decode()!r:.80} has {len(longest)} bytes, and a server stores no more than {room}; "
            f"give a shorter one, such as its SHA-256"
        )
