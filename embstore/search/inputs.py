"""What callers give to an engine, checked before anything is read or written for it."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Literal, cast, get_args

from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.identity import check_storable
from embstore.inputs import check_count
from embstore.search.base import HASH_KEY, Document, Metadata
from embstore.search.beside import RESERVED_SUFFIXES
from embstore.search.filters import INT64, RESERVED_KEY_PREFIXES, compile_filter

IndexKind = Literal["chroma", "exact"]
INDEX_KINDS = get_args(IndexKind)

_SCALARS = (str, int, float, bool)
_COLLECTION_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")


def check_document(doc_id: Any, text: Any, metadata: Any, *, position: int | None = None) -> Document:
    """Make a document of what a caller gives for one.

    Parameters
    ----------
    doc_id : str
    text : str
    metadata : dict or None
        Copied: the caller may change its own while documents are being indexed.
    position : int, optional
        Where the document stands among others, for the message.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        Naming the document and what cannot be stored of it.
    """
    doc_id = check_id(doc_id, position)
    if not isinstance(text, str):
        raise InvalidTypeError(
            f"document {doc_id!r:.80} is {type(text).__name__}, not str: {text!r:.80}", doc_id=doc_id
        )
    return Document(doc_id, str.__str__(text), _checked_metadata(doc_id, metadata))


def check_id(doc_id: Any, position: int | None = None) -> str:
    """Return `doc_id` where it is a non-empty str that can be stored."""
    if type(doc_id) is str and doc_id and doc_id.isascii():
        return doc_id
    what = "doc_id" if position is None else f"the doc_id at position {position}"
    if not isinstance(doc_id, str):
        raise InvalidTypeError(f"{what} is {type(doc_id).__name__}, not str: {doc_id!r:.80}", doc_id=doc_id)
    if not doc_id:
        raise InvalidInputError(f"{what} is empty; give each document an id", doc_id=doc_id)
    check_storable(doc_id, what)
    return str.__str__(doc_id)  # of a subclass: str() of an Enum gives its name


def check_removal(remove_missing: Any, scope: Any, max_removed: Any = 1.0) -> None:
    """Refuse what makes no sense about removing the documents that a source does not have.

    Raises
    ------
    InvalidTypeError
        `scope` is no dict, `max_removed` no number.
    InvalidInputError
        `max_removed` is no share, `scope` is no filter, or stands without `remove_missing`.
    """
    if not isinstance(max_removed, (int, float)) or isinstance(max_removed, bool):
        raise InvalidTypeError(f"max_removed is {type(max_removed).__name__}, not a number: {max_removed!r:.80}")
    if not 0 <= max_removed <= 1:
        raise InvalidInputError(f"max_removed is {max_removed}; it is a share of the collection, 0 to 1")
    if scope is None:
        return
    if not remove_missing:
        raise InvalidInputError("scope says which documents may be removed; give it with remove_missing=True")
    compile_filter(scope, "scope")


def check_query(query: Any, n_results: Any, where: Any) -> None:
    """Refuse what cannot be searched for.

    Raises
    ------
    InvalidTypeError
        `query` is no str, `n_results` no int, `where` no dict.
    InvalidInputError
        `n_results` is not positive, or `where` is no filter.
    """
    if not isinstance(query, str):
        raise InvalidTypeError(f"query is {type(query).__name__}, not str: {query!r:.80}")
    check_count(n_results, "n_results")
    if where is not None:
        compile_filter(where)


def check_collection_name(name: Any) -> str:
    """Return `name` where a collection can have it.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no str, breaks Chroma's rule for names, or ends as what embstore builds beside a collection.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"collection_name is {type(name).__name__}, not str: {name!r:.80}")
    if not _COLLECTION_NAME.fullmatch(name) or ".." in name:
        raise InvalidInputError(
            f"collection_name {name!r:.80} is not 3 to 512 characters of [a-zA-Z0-9._-], "
            f"beginning and ending with a letter or a digit, without two periods in a row",
            collection_name=name,
        )
    if name.endswith(RESERVED_SUFFIXES):
        raise InvalidInputError(
            f"collection_name {name!r:.80} ends with one of {', '.join(RESERVED_SUFFIXES)}, which are reserved for "
            f"what is built or kept aside while a collection is mended; use another name",
            collection_name=name,
        )
    return name


def check_index(index: Any, client: Any = None) -> IndexKind:
    """Return `index` where there is such a one, and where it takes the client, if there is one.

    Raises
    ------
    InvalidInputError
    """
    if index not in INDEX_KINDS:
        raise InvalidInputError(f"index is {index!r:.80}; there are {' and '.join(map(repr, INDEX_KINDS))}")
    if index == "exact" and client is not None:
        raise InvalidInputError(
            "client= is a Chroma client, which an index 'exact' does not use; leave one of them out"
        )
    return cast(IndexKind, index)


def check_folder(path: Any) -> Path:
    """Return the path of a library folder, which need not exist.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        It is no path, or empty.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(f"path is {type(path).__name__}, not a path: {path!r:.80}")
    if not os.fspath(path) or "\0" in str(path):
        raise InvalidInputError(f"path is {str(path)!r:.80}; name a folder")
    return Path(path)


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
    return {key: list(value) if isinstance(value, list) else value for key, value in metadata.items()}


def _key_fault(key: Any) -> str | None:
    if type(key) is not str or not key:
        return "a key must be a non-empty str"
    if key == HASH_KEY:
        return "this key is reserved; use another"
    if key.startswith(RESERVED_KEY_PREFIXES):
        return f"a key must not begin with {', '.join(RESERVED_KEY_PREFIXES)}"
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
    if type(value) is int and value not in INT64:
        return f"{value} does not fit 64 bits; store it as a str"
    return None
