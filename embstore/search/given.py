"""The documents that a caller gives, in windows: lists are checked as a whole first, iterators as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.search.base import Document
from embstore.search.inputs import check_document

WINDOW = 1000  # documents that are compared, encoded and written before the next ones

_DIGEST_BYTES = 16  # so that no two of any number of ids share a digest


@dataclass(frozen=True)
class Window:
    """Some documents of a call.

    Attributes
    ----------
    documents : list of Document
        With distinct ids, none of which came before in the call.
    n_repeated : int
        How many more were given with them that are the same, in all, as one that came before.
    """

    documents: list[Document]
    n_repeated: int


class GivenDocuments:
    """The documents of one call, to be iterated once, in windows.

    Where `documents` has a length, all of them are checked before the first window is given. An iterator may be of
    any length: each window is checked when its turn comes, and of those before only two short digests a document
    are kept.

    Parameters
    ----------
    documents : iterable of n str
    ids : iterable of n str, optional
        doc_0, doc_1, ... where None.
    metadatas : iterable of n dicts or None, optional

    Attributes
    ----------
    n_documents : int or None
        How many are given; None where only the end of an iterator will tell.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        Naming the first offender; also while an iterator is iterated.
    """

    def __init__(
        self,
        documents: Iterable[str],
        ids: Iterable[str] | None = None,
        metadatas: Iterable[dict[str, Any] | None] | None = None,
    ) -> None:
        self.n_documents = len(documents) if isinstance(documents, Sized) else None
        self._contents_of: dict[bytes, bytes] = {}
        self._windows = self._checked(
            _iterator(documents, "documents"),
            None if ids is None else _iterator(ids, "ids"),
            None if metadatas is None else _iterator(metadatas, "metadatas"),
        )
        if self.n_documents is not None:
            self._windows = iter(list(self._windows))

    def __iter__(self) -> Iterator[Window]:
        return self._windows

    @property
    def n_ids(self) -> int:
        """How many distinct ids were given so far."""
        return len(self._contents_of)

    def lacking(self, doc_ids: Iterable[str]) -> list[str]:
        """Give those of some doc_ids that no document had so far."""
        return [doc_id for doc_id in doc_ids if _digest(doc_id) not in self._contents_of]

    def _checked(
        self, texts: Iterator[Any], doc_ids: Iterator[Any] | None, metadatas: Iterator[Any] | None
    ) -> Iterator[Window]:
        start = 0
        while True:
            some_texts = list(islice(texts, WINDOW))
            end = start + len(some_texts)
            some_ids = [f"doc_{i}" for i in range(start, end)] if doc_ids is None else list(islice(doc_ids, WINDOW))
            some_metadatas = [None] * len(some_texts) if metadatas is None else list(islice(metadatas, WINDOW))
            _check_same_end(end, "ids", start + len(some_ids))
            _check_same_end(end, "metadatas", start + len(some_metadatas))
            if not some_texts:
                return
            rows = enumerate(zip(some_ids, some_texts, some_metadatas, strict=True), start)
            documents = [check_document(*row, position=position) for position, row in rows]
            distinct = [document for document in documents if self._is_new(document)]
            yield Window(distinct, len(documents) - len(distinct))
            start = end

    def _is_new(self, document: Document) -> bool:
        """Note a document, and tell whether its id comes for the first time; a second time it must be the same."""
        key = _digest(document.doc_id)
        contents = _digest(f"{document.content_hash}{sorted(document.metadata.items())}")
        n_before = len(self._contents_of)
        if self._contents_of.setdefault(key, contents) != contents:
            raise InvalidInputError(
                f"doc_id {document.doc_id!r:.80} is given twice with different texts or metadata; give each id once",
                doc_id=document.doc_id,
            )
        return len(self._contents_of) > n_before


def _iterator(values: Any, name: str) -> Iterator[Any]:
    if isinstance(values, (str, bytes, Mapping)):
        raise InvalidTypeError(f"{name} is one {type(values).__name__}; give a list or an iterator: {values!r:.80}")
    try:
        return iter(values)
    except TypeError:
        raise InvalidTypeError(f"{name} is {type(values).__name__}, not a list or an iterator") from None


def _check_same_end(n_documents: int, name: str, n: int) -> None:
    if n != n_documents:
        (n_before, ended), (_, other) = sorted([(n_documents, "documents"), (n, name)])
        raise InvalidInputError(f"the {ended} end after {n_before:,}, and there are more {other}; give as many of each")


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
