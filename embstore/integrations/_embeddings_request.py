"""What a request for embeddings is made of: an address, a key and no more texts than a server takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from embstore.errors import InvalidInputError

OPENAI_URL = "https://api.openai.com/v1"


def batches(texts: list[str], max_texts: int, max_chars: int) -> Iterator[list[str]]:
    """Split texts by number and length; one that is longer than `max_chars` is alone."""
    batch: list[str] = []
    n_chars = 0
    for text in texts:
        if batch and (len(batch) == max_texts or n_chars + len(text) > max_chars):
            yield batch
            batch, n_chars = [], 0
        batch.append(text)
        n_chars += len(text)
    if batch:
        yield batch


def key_of(variable: str | None, base_url: str) -> str | None:
    """Read the key from the environment; None where no variable is named.

    Raises
    ------
    InvalidInputError
        The variable holds none, or what no header can hold. What it holds is not repeated.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InvalidInputError(
            f"the environment variable {variable} holds no key for {base_url}; set it to one, or name another with "
            f"api_key_env="
        )
    return key


def checked_url(base_url: str) -> str:
    """Give an address as it stands in the identity.

    Raises
    ------
    InvalidInputError
        It is no http(s) URL, or holds what may be secret.
    """
    try:
        parts = urlsplit(base_url)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, TypeError, AttributeError):  # no brackets, no port, no text
        is_url, parts = False, urlsplit("")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # It is part of the identity, of errors and of repr, and is not repeated here either.
        raise InvalidInputError(
            "base_url holds a user, a password, a query or a fragment; give the key by api_key_env="
        )
    if not is_url or not base_url.isprintable() or " " in base_url:
        raise InvalidInputError(f"base_url {base_url!r:.80} is no http(s) URL; give one like {OPENAI_URL!r}")
    if parts.path.rstrip("/").endswith("/embeddings"):
        raise InvalidInputError(f"base_url {base_url!r:.80} ends in '/embeddings'; give what comes before it")
    return base_url.rstrip("/")
