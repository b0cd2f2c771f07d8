"""How many tokens of a text a model reads, by its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embstore.encoders.base import NamedEncoder, without_surrogates
from embstore.encoders.model2vec import is_static_model

_TEXTS_AT_ONCE = 1_000


@dataclass(frozen=True)
class TokenCounter:
    """What counts the tokens of texts as a model does.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        A copy of the model's, without truncation and padding.
    max_tokens : int or None
        The most tokens that the model reads, what it adds itself among them; None where there is no limit.
    n_added : int
        Tokens that the model adds to each text: its special ones and those of its prompt.
    """

    tokenizer: Any
    max_tokens: int | None
    n_added: int

    @property
    def room(self) -> int | None:
        """The most tokens that a text can have without being cut off."""
        return None if self.max_tokens is None else max(0, self.max_tokens - self.n_added)

    def may_cut(self, text: str) -> bool:
        """Tell whether a text has more bytes than there is room for tokens, each of which has one at least."""
        room = self.room
        return room is not None and (len(text) > room or len(without_surrogates(text).encode()) > room)

    def count_cut(self, texts: Sequence[str]) -> int:
        """Count the texts of which the model does not read the end."""
        room = self.room
        if room is None:
            return 0
        long = [without_surrogates(text) for text in texts if self.may_cut(text)]
        n_cut = 0
        for start in range(0, len(long), _TEXTS_AT_ONCE):
            encoded = self.tokenizer.encode_batch_fast(long[start : start + _TEXTS_AT_ONCE], add_special_tokens=False)
            n_cut += sum(len(each.ids) > room for each in encoded)
        return n_cut


def token_counter(encoder: NamedEncoder) -> TokenCounter | None:
    """Give what counts tokens as a model does.

    Parameters
    ----------
    encoder : NamedEncoder
        Of a SentenceTransformer, a StaticModel, a TextEmbedding, or any object with such a `tokenizer`.

    Returns
    -------
    TokenCounter or None
        None where the model shows no tokenizer.
    """
    found = _tokenizer_of(encoder.model)
    if found is None:
        return None
    truncation = found.truncation
    tokenizer = type(found).from_str(found.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings = encoder.identity("document").settings
    max_tokens = settings.get("max_seq_length") or settings.get("max_length") or (truncation or {}).get("max_length")
    n_added = 0 if is_static_model(encoder.model) else tokenizer.num_special_tokens_to_add(False)
    prompt = settings.get("prompt")
    if isinstance(prompt, str):
        n_added += len(tokenizer.encode(prompt, add_special_tokens=False).ids)
    return TokenCounter(tokenizer, int(max_tokens) if isinstance(max_tokens, (int, float)) else None, n_added)


def _tokenizer_of(model: Any) -> Any:
    """Find the tokenizer of the library `tokenizers` behind a model; fastembed keeps it one step further in."""
    for holder in (model, getattr(model, "model", None)):
        found = getattr(holder, "tokenizer", None)
        found = getattr(found, "backend_tokenizer", found)
        if hasattr(found, "encode_batch_fast") and hasattr(found, "to_str"):
            return found
    return None
