"""An encoder for every server that answers `POST /v1/embeddings` as OpenAI's does."""

from __future__ import annotations

from typing import Any, Literal

from embstore.encoders import without_surrogates
from embstore.identity import Setting
from embstore.inputs import check_count
from embstore.integrations._embeddings_api import EmbeddingsApi, RefusedError
from embstore.integrations._embeddings_request import OPENAI_URL, batches, checked_url, key_of

OPENAI_KEY = "OPENAI_API_KEY"


class OpenAICompatibleEncoder:
    """A model behind `POST {base_url}/embeddings`.

    The identity of its vectors is the model's name with `dimensions` and `server`: two servers may serve different
    weights under one name. The key is read from the environment for each request and kept nowhere else.

    Parameters
    ----------
    model : str
        The model's name there, which is also its name in the cache.
    base_url : str
        Up to and without "/embeddings".
    dimensions : int, optional
        How many values the server is to cut its vectors to.
    api_key_env : str, optional
        The environment variable that holds the key. By default OPENAI_API_KEY for OpenAI's own server, and no key for
        any other, so that no key goes to a server it is not meant for.
    server : str, optional
        What stands for `base_url` in the identity, for a server that may move.
    encoding_format : "float" or "base64"
        What to ask for; either is understood.
    max_texts, max_chars : int
        The most that one request carries; a text that is longer than `max_chars` goes alone.
    timeout_s : float
        How long to wait for each of connecting, sending and the next bytes of an answer.
    max_retries : int
        How often a request is made again after no answer, or one that says to come later; the waits double.
    max_wait_s : float
        The longest wait; a server that asks for more with Retry-After is an error at once.

    Raises
    ------
    InvalidInputError, InvalidTypeError, MissingExtraError
        A parameter cannot be used, or httpx is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = OPENAI_URL,
        dimensions: int | None = None,
        api_key_env: str | None = None,
        server: str | None = None,
        encoding_format: Literal["float", "base64"] = "float",
        max_texts: int = 256,
        max_chars: int = 250_000,
        timeout_s: float = 60.0,
        max_retries: int = 5,
        max_wait_s: float = 60.0,
    ) -> None:
        self.model_name = model
        self.base_url = checked_url(base_url)
        self.dimensions = dimensions if dimensions is None else check_count(dimensions, "dimensions")
        self.server = self.base_url if server is None else server
        self.max_texts, self.max_chars = check_count(max_texts, "max_texts"), check_count(max_chars, "max_chars")
        self.api_key_env = api_key_env or (OPENAI_KEY if self.base_url == OPENAI_URL else None)
        self._fields: dict[str, Any] = {"model": model, "encoding_format": encoding_format}
        if self.dimensions is not None:
            self._fields["dimensions"] = self.dimensions
        self._api = EmbeddingsApi(
            f"{self.base_url}/embeddings", timeout_s, max_retries=max_retries, max_wait_s=max_wait_s
        )

    @property
    def model_settings(self) -> dict[str, Setting]:
        """What changes its vectors beside the name."""
        settings: dict[str, Setting] = {"server": self.server}
        return settings if self.dimensions is None else {**settings, "dimensions": self.dimensions}

    def encode(self, texts: list[str], /) -> list[Any]:
        """Ask for the vectors of texts.

        Returns
        -------
        list of len(texts) lists or ndarrays of shape (dim,)

        Raises
        ------
        EncoderError
            The server cannot be reached or refuses (attribute `status`); a text that it refuses is named.
        EncoderOutputError
            It answers with anything but one vector a text, each of `dimensions` values where these were asked for.
        """
        return [vector for batch in batches(texts, self.max_texts, self.max_chars) for vector in self._ask(batch)]

    def close(self) -> None:
        """Close its connections; another request opens them again."""
        self._api.close()

    def __repr__(self) -> str:
        return f"OpenAICompatibleEncoder({self.model_name!r}, base_url={self.base_url!r}, dimensions={self.dimensions})"

    def _ask(self, texts: list[str]) -> list[Any]:
        """Ask for one batch, and for its halves where the server refuses it: the whole may be too much, or one text."""
        request = {**self._fields, "input": [without_surrogates(text) for text in texts]}
        try:
            return self._api.vectors(request, len(texts), self.dimensions, key_of(self.api_key_env, self.base_url))
        except RefusedError as refusal:
            if len(texts) == 1:
                raise refusal.naming(texts[0]) from None
            # A cache sends the longest texts first, so that little is answered before a text is refused.
            half = len(texts) // 2
        return self._ask(texts[:half]) + self._ask(texts[half:])
