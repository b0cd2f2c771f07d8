"""Long documents in pieces that a model reads whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embstore.encoders import NamedEncoder
from embstore.encoders.base import without_surrogates
from embstore.encoders.tokens import TokenCounter, token_counter
from embstore.errors import InvalidInputError, MissingExtraError
from embstore.search.base import Document, Metadata

if TYPE_CHECKING:
    from embstore.search import CachedSemanticSearchEngine


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

    def __str__(self) -> str:
        return f"{self.n_tokens}+{self.n_overlap}"

    @classmethod
    def parse(cls, written: str) -> Chunking:
        """Read what `str` wrote; ValueError where it is something else."""
        n_tokens, _, n_overlap = written.partition("+")
        return cls(int(n_tokens), int(n_overlap))

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


def former_ids(
    engine: CachedSemanticSearchEngine, documents: list[Document], given_ids: list[str], *, were_whole: bool
) -> list[str]:
    """List what a collection holds of documents as they were split before, and that is not given now.

    Parameters
    ----------
    engine : CachedSemanticSearchEngine
    documents : list of Document
        Before they were split.
    given_ids : list of str
        What they are now: the ids of their pieces, or their own.
    were_whole : bool
        Whether they may be there under their own ids.
    """
    whole, given = {document.doc_id for document in documents}, set(given_ids)
    former = [doc_id for doc_id in engine.doc_ids({"chunk": {"$gte": 0}}) if doc_id.rpartition("#")[0] in whole]
    if were_whole:
        former += [doc_id for doc_id in engine.doc_ids() if doc_id in whole]
    return [doc_id for doc_id in former if doc_id not in given]


def _pieces(document: Document, splitter: Any) -> Iterator[Document]:
    # A text of blanks alone has no pieces, and is to be a document all the same.
    for number, text in enumerate(splitter.chunks(without_surrogates(document.text)) or [document.text]):
        added: Metadata = {"source": document.doc_id, "chunk": number}
        yield Document(f"{document.doc_id}#{number}", text, {**added, **document.metadata})
