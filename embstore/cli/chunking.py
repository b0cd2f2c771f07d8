"""Long documents in pieces that a model reads whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from embstore.encoders import NamedEncoder
from embstore.encoders.base import without_surrogates
from embstore.encoders.tokens import TokenCounter, token_counter
from embstore.errors import InvalidInputError, MissingExtraError
from embstore.search.base import Document, Metadata


@dataclass(frozen=True)
class Chunking:
    """How long pieces may be, and how much of one comes again in the next, in the model's tokens."""

    n_tokens: int
    n_overlap: int = 0

    def __post_init__(self) -> None:
        if self.n_overlap >= self.n_tokens:
            raise InvalidInputError(
                f"--chunk-overlap {self.n_overlap} leaves nothing new in chunks of {self.n_tokens} tokens; give less"
            )

    def split(self, documents: list[Document], encoder: NamedEncoder) -> list[Document]:
        """Split documents where sections, paragraphs, sentences or words end, the longest of these that fit.

        Returns
        -------
        list of Document
            The pieces of a document ``a`` are ``a#0``, ``a#1`` and so on, also where there is one alone. Their metadata
            are those of the document and, as far as it has no such keys itself, ``source``, its id, and ``chunk``, the
            number of the piece.

        Raises
        ------
        InvalidInputError
            The model shows no tokenizer, or would not read such pieces whole.
        MissingExtraError
            semantic-text-splitter is not installed.
        """
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError as error:
            raise MissingExtraError("semantic-text-splitter", "chunk", "--chunk-tokens") from error
        counter = self._counter(encoder)
        splitter = TextSplitter.from_huggingface_tokenizer(counter.tokenizer, self.n_tokens, self.n_overlap)
        return [piece for document in documents for piece in _pieces(document, splitter)]

    def _counter(self, encoder: NamedEncoder) -> TokenCounter:
        counter = token_counter(encoder)
        if counter is None:
            raise InvalidInputError(
                f"--chunk-tokens: the model {encoder.model_name!r:.80} shows no tokenizer to count by"
            )
        if counter.room is not None and self.n_tokens > counter.room:
            raise InvalidInputError(
                f"--chunk-tokens {self.n_tokens} is more than the model {encoder.model_name!r:.80} reads of a text; "
                f"give at most {counter.room}: it reads {counter.max_tokens}, {counter.n_added} of which are its own"
            )
        return counter


def _pieces(document: Document, splitter: Any) -> Iterator[Document]:
    # A text of blanks alone has no pieces, and is to be a document all the same.
    for number, text in enumerate(splitter.chunks(without_surrogates(document.text)) or [document.text]):
        added: Metadata = {"source": document.doc_id, "chunk": number}
        yield Document(f"{document.doc_id}#{number}", text, {**added, **document.metadata})
