"""What callers give to an engine, checked as a whole before anything is read or written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.identity import check_storable
from embstore.inputs import check_count, check_doc_ids, check_texts
from embstore.search.base import HASH_KEY, Document, Metadata, Where
from embstore.search.plan import metadata_patch

_INT64 = range(-(2**63), 2**63)
_SCALARS = (str, int, float, bool)
_REFUSED_KEY_PREFIXES = ("chroma:", "#", "$")  # Chroma drops the first silently and refuses the others
_COLLECTION_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")


def check_documents(documents: Any, ids: Any = None, metadatas: Any = None) -> tuple[list[Document], int]:
    """Make documents of the parallel lists that a caller gives.

    Parameters
    ----------
    documents : iterable of n str
    ids : iterable of n str, optional
        doc_0, doc_1, ... where None.
    metadatas : iterable of n dicts or None, optional

    Returns
    -------
    list of Document
        With distinct ids, in the order given.
    int
        How many more were given that are the same, in all, as one of them.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        Naming the first offender.
    """
    texts = check_texts(documents)
    doc_ids = [f"doc_{i}" for i in range(len(texts))] if ids is None else check_doc_ids(ids)
    metadata_of = [None] * len(texts) if metadatas is None else _listed(metadatas)
    for what, values in (("ids", doc_ids), ("metadatas", metadata_of)):
        if len(values) != len(texts):
            raise InvalidInputError(f"{len(texts)} documents and {len(values)} {what}; give as many of each")
    checked: dict[str, Document] = {}
    for doc_id, text, metadata in zip(doc_ids, texts, metadata_of, strict=True):
        document = Document(doc_id, text, _checked_metadata(doc_id, metadata))
        first = checked.setdefault(document.doc_id, document)
        if first.text != document.text or metadata_patch(first.metadata, document.metadata):
            raise InvalidInputError(
                f"doc_id {document.doc_id!r:.80} is given twice with different texts or metadata; give each id once",
                doc_id=document.doc_id,
            )
    return list(checked.values()), len(texts) - len(checked)


def check_document(doc_id: Any, text: Any, metadata: Any) -> Document:
    """Make a document of what a caller gives for one; see `check_documents`."""
    check_id(doc_id)
    if not isinstance(text, str):
        raise InvalidTypeError(f"document {doc_id!r:.80} is {type(text).__name__}, not str", doc_id=doc_id)
    return Document(doc_id, text, _checked_metadata(doc_id, metadata))


def check_id(doc_id: Any) -> str:
    """Return `doc_id` where it is a non-empty str that can be stored."""
    if not isinstance(doc_id, str):
        raise InvalidTypeError(f"doc_id is {type(doc_id).__name__}, not str: {doc_id!r:.80}", doc_id=doc_id)
    return check_doc_ids([doc_id])[0]


def check_query(query: Any, n_results: Any, where: Any) -> None:
    """Refuse what cannot be searched for.

    Raises
    ------
    InvalidTypeError
        `query` is no str, `n_results` no int, `where` no dict.
    InvalidInputError
        `n_results` is not positive, `where` is empty or asks for the reserved key.
    """
    if not isinstance(query, str):
        raise InvalidTypeError(f"query is {type(query).__name__}, not str: {query!r:.80}")
    check_count(n_results, "n_results")
    if where is not None:
        _check_where(where)


def check_collection_name(name: Any) -> str:
    """Return `name` where a collection can have it.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no str, or breaks Chroma's rule for names.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"collection_name is {type(name).__name__}, not str: {name!r:.80}")
    if not _COLLECTION_NAME.fullmatch(name) or ".." in name:
        raise InvalidInputError(
            f"collection_name {name!r:.80} is not 3 to 512 characters of [a-zA-Z0-9._-], "
            f"beginning and ending with a letter or a digit, without two periods in a row",
            collection_name=name,
        )
    return name


def check_folder(path: Any) -> Path:
    """Return the path of a library folder, which need not exist.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no path, or empty.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(f"path is {type(path).__name__}, not a path: {path!r:.80}")
    if not os.fspath(path):
        raise InvalidInputError("path is empty; name a folder")
    return Path(path)


def _listed(metadatas: Any) -> list[Any]:
    if isinstance(metadatas, (str, bytes, Mapping)) or not isinstance(metadatas, Iterable):
        raise InvalidTypeError(f"metadatas is {type(metadatas).__name__}, not a list: {metadatas!r:.80}")
    return list(metadatas)


def _checked_metadata(doc_id: str, metadata: Any) -> Metadata:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InvalidTypeError(
            f"metadata of {doc_id!r:.80} is {type(metadata).__name__}, not a dict or None", doc_id=doc_id
        )
    for key, value in metadata.items():
        fault = _key_fault(key) or _value_fault(value)
        if fault:
            raise InvalidInputError(f"metadata of {doc_id!r:.80}: {key!r:.80}: {fault}", doc_id=doc_id, key=key)
        for text in (key, *(value if isinstance(value, list) else [value])):
            if isinstance(text, str):
                check_storable(text, f"metadata of {doc_id!r:.80}:")
    # A copy: the caller may change its dict while the documents are being indexed.
    return {key: list(value) if isinstance(value, list) else value for key, value in metadata.items()}


def _key_fault(key: Any) -> str | None:
    if type(key) is not str or not key:
        return "a key must be a non-empty str"
    if key == HASH_KEY:
        return "this key is reserved; use another"
    if key.startswith(_REFUSED_KEY_PREFIXES):
        return f"a key must not begin with {', '.join(_REFUSED_KEY_PREFIXES)}"
    return None


def _value_fault(value: Any) -> str | None:
    if type(value) is not list:
        return _scalar_fault(value)
    if not value:
        return "a list must not be empty; leave the key out"
    if len(set(map(type, value))) > 1:
        return "the values of a list must be of one type"
    return next(filter(None, map(_scalar_fault, value)), None)


def _scalar_fault(value: Any) -> str | None:
    # By exact type: NumPy's float64 and str_ are a float and a str to isinstance, and do not come back as they were.
    if type(value) not in _SCALARS:
        return f"a value must be a str, int, float, bool or a list of one of them, not {type(value).__name__}"
    if type(value) is float and not math.isfinite(value):
        return f"{value} cannot be stored; leave the key out"
    if type(value) is int and value not in _INT64:
        return f"{value} does not fit 64 bits; store it as a str"
    return None


def _check_where(where: Any) -> None:
    if not isinstance(where, dict):
        raise InvalidTypeError(f"where is {type(where).__name__}, not a dict or None: {where!r:.80}")
    if not where:
        raise InvalidInputError("where is empty; give None to search all documents")
    _refuse_reserved_key(where)


def _refuse_reserved_key(part: Where | Sequence[Any]) -> None:
    if isinstance(part, Mapping) and HASH_KEY in part:
        raise InvalidInputError(f"where asks for {HASH_KEY!r}, a reserved key", where=part)
    for inner in part.values() if isinstance(part, Mapping) else part:
        if isinstance(inner, (Mapping, list, tuple)):
            _refuse_reserved_key(inner)
