"""Files to documents: a text file is one document, each line of a .jsonl file is one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.search.base import Document
from embstore.search.inputs import check_document

_FIELDS = ("id", "text", "metadata")


def read_documents(files: Iterable[Path]) -> list[Document]:
    """Read and check all files before anything is done with one of them.

    Parameters
    ----------
    files : iterable of Path
        A ``.jsonl`` file has one JSON object a line: an ``id``, a ``text`` and, where wanted, ``metadata``.
        Any other file is one document whose id, and ``source`` in its metadata, is its path.

    Returns
    -------
    list of Document
        In the order of the files and of their lines, with distinct ids.

    Raises
    ------
    InvalidInputError
        A file cannot be read or is not UTF-8, a line is not such an object, or an id comes twice; it names the place.
    """
    documents = []
    places: dict[str, str] = {}
    for place, document in _documents(files):
        if document.doc_id in places:
            raise InvalidInputError(
                f"{place}: id {document.doc_id!r:.80} is taken by {places[document.doc_id]}; each needs its own",
                doc_id=document.doc_id,
            )
        places[document.doc_id] = place
        documents.append(document)
    return documents


def _documents(files: Iterable[Path]) -> Iterator[tuple[str, Document]]:
    """Give each document with the place it was read from."""
    for file in files:
        text = _read(file)
        if file.suffix.lower() != ".jsonl":
            path = file.as_posix()
            yield str(file), _checked(str(file), path, text, {"source": path})
            continue
        # Not splitlines(): it also cuts at U+2028 and its like, which a JSON string may hold as they are.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{file}:{number}", _parse(f"{file}:{number}", line)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # without the byte order mark that editors on Windows write
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); convert it first", path=str(file)
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{file}: {error.strerror or error}", path=str(file)) from error


def _parse(place: str, line: str) -> Document:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{place}: not JSON: {error}") from None
    if not isinstance(record, dict) or "id" not in record or "text" not in record:
        raise InvalidInputError(f"{place}: not an object with id and text: {line.strip()!r:.80}")
    for field in record:
        if field not in _FIELDS:
            raise InvalidInputError(f"{place}: unknown field {field!r:.80}; put it into metadata or leave it out")
    return _checked(place, record["id"], record["text"], record.get("metadata"))


def _checked(place: str, doc_id: object, text: object, metadata: object) -> Document:
    try:
        return check_document(doc_id, text, metadata)
    except (InvalidInputError, InvalidTypeError) as error:
        raise InvalidInputError(f"{place}: {error}") from error
