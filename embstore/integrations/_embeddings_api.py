"""One request for embeddings: sent, and repeated where that helps."""

from __future__ import annotations

import logging
import os
import random
import time
import weakref
from typing import Any

from embstore.errors import EncoderError, MissingExtraError
from embstore.inputs import check_count
from embstore.integrations._embeddings_answer import read_vectors, retry_after_s, shown
from embstore.seconds import check_seconds

BACKOFF_S = 0.5

LATER = {408, 425, 429, 500, 502, 503, 504}  # what may be answered otherwise when it is asked again
REFUSED = {400, 413, 422}  # what may be about one of the texts

_log = logging.getLogger("embstore.integrations.openai_compatible")


class RefusedError(EncoderError):
    """The server refuses the texts of a request, or one of them."""

    def naming(self, text: str) -> EncoderError:
        """Give the error of a text that was refused alone."""
        cure = "leave it out or split it" if text else "leave empty texts out"
        message = f"{self.message} -- the text is {text!r:.60}, {len(text)} characters long; {cure}"
        return EncoderError(message, **self.facts, text=text)


class EmbeddingsApi:
    """Posts to one address; connections are kept open, one client a process."""

    def __init__(self, url: str, timeout_s: float, *, max_retries: int, max_wait_s: float) -> None:
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("httpx", "openai", "an OpenAICompatibleEncoder") from error
        self.url = url
        self._timeout_s = check_seconds(timeout_s, "timeout_s")
        self._max_retries = check_count(max_retries, "max_retries", least=0)
        self._max_wait_s = check_seconds(max_wait_s, "max_wait_s")
        self._client: tuple[int, Any, Any] = (0, None, None)

    def vectors(self, request: dict[str, Any], n_texts: int, dim: int | None, key: str | None) -> list[Any]:
        """Ask for the vectors of texts, in the order of the texts; raise EncoderError or one of its kinds."""
        import httpx

        for attempt in range(self._max_retries + 1):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            try:
                answer = self._open_client().post(self.url, json=request, headers=headers)
            except httpx.RequestError as error:
                failure = self._no_answer(error)
                wait_s: float | None = self._backoff(attempt)
            except (httpx.InvalidURL, UnicodeError) as error:  # of the name of the server: no other answer will come
                raise self._no_answer(error) from error
            else:
                if answer.status_code == 200:
                    return read_vectors(answer, self.url, n_texts, dim, key)
                failure, wait_s = self._failure(answer, key), self._wait_for(answer, attempt)
            if wait_s is None or attempt == self._max_retries:
                raise failure
            _log.info("%s; asking again in %.1f s", failure.message, wait_s)
            time.sleep(wait_s)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close what this process has open."""
        pid, _, close = self._client
        if pid == os.getpid():
            close()
        self._client = (0, None, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": (0, None, None)}  # another process opens its own

    def _open_client(self) -> Any:
        if self._client[0] != os.getpid():  # a connection that was open at a fork is the parent's
            import httpx

            client = httpx.Client(timeout=self._timeout_s)
            self._client = (os.getpid(), client, weakref.finalize(self, client.close))
        return self._client[1]

    def _no_answer(self, error: Exception) -> EncoderError:
        return EncoderError(f"{self.url} gave no answer: {type(error).__name__}: {error}", url=self.url)

    def _failure(self, answer: Any, key: str | None) -> EncoderError:
        kind = RefusedError if answer.status_code in REFUSED else EncoderError
        message = f"{self.url} answered {answer.status_code}: {shown(answer, key)}"
        return kind(message, url=self.url, status=answer.status_code)

    def _wait_for(self, answer: Any, attempt: int) -> float | None:
        """Tell how many seconds to wait before asking again; None where asking again does not help."""
        if answer.status_code not in LATER or "insufficient_quota" in answer.text:
            return None
        asked_s = retry_after_s(answer.headers.get("Retry-After"))
        if asked_s is None:
            return self._backoff(attempt)
        return asked_s if asked_s <= self._max_wait_s else None

    def _backoff(self, attempt: int) -> float:
        """Wait twice as long each time, and not just as long: clients that failed together should not return so."""
        return random.uniform(0.5, 1) * min(BACKOFF_S * 2.0**attempt, self._max_wait_s)
