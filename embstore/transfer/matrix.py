"""From a matrix, and what its rows are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from embstore.codec import HASH_BYTES, off_device
from embstore.errors import EmbstoreError, SourceError
from embstore.identity import Role, Setting, content_hash
from embstore.inputs import check_texts
from embstore.putting import PutEmbeddings
from embstore.transfer.arrays import open_npy
from embstore.transfer.importing import Owner, SourceRow, broken, import_rows
from embstore.transfer.matrix_folder import MODEL_NAME, ROWS_NAME, VECTORS_NAME
from embstore.transfer.report import Skipped, TransferReport

NO_TEXT = "it has neither a text nor a content_hash"

Named = tuple[str, Mapping[str, Any]]
"""A place, and the fields of what is there."""


def import_matrix(
    cache: PutEmbeddings,
    vectors: str | Path | npt.ArrayLike,
    ids: str | Path | Iterable[str] | None = None,
    texts: Mapping[str, str] | Iterable[str] | None = None,
    *,
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    collection: str | None = None,
    progress: bool | None = None,
) -> TransferReport:
    """Take in a matrix of vectors, or a folder that `export_npy` has written.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    vectors : array-like of shape (n, dim), path of a .npy file, or of the folder of an export
        Of the folder, its own ids, content hashes and model are taken where none are given.
    ids : iterable of n str, or path of a file
        Of row i the i-th. In a .jsonl file a line is an object with ``id``, ``text`` or ``content_hash``, and
        ``collection``; a .json file is a list of ids; in any other, a line is an id.
    texts : mapping of ids to str, or iterable of n str
        What rows whose ids come without are of. A row of no known text is skipped.
    model, model_name, settings, role
        Whose vectors they are, as of `EmbeddingCache.put_many`; a name of a model that can be loaded too.
    collection : str, optional
        By default that of the row, or "".
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    SourceError
        A file or a row is not as above; the message names it, and tells what was stored before.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    if isinstance(vectors, (str, Path)) and Path(vectors).is_dir():
        folder = Path(vectors)
        vectors, ids = folder / VECTORS_NAME, folder / ROWS_NAME if ids is None else ids
        if model is None and model_name is None:
            model_name, settings = _read_model(folder / MODEL_NAME)
    source = str(vectors) if isinstance(vectors, (str, Path)) else "the matrix"
    matrix = np.asarray(open_npy(Path(vectors)) if isinstance(vectors, (str, Path)) else _array(vectors))
    if matrix.ndim != 2:
        raise SourceError(f"{source} has the shape {matrix.shape}, and not a vector a row: (n, dim)", path=source)
    if ids is None:
        raise SourceError(f"{source} has no ids; give one for each row: ids=", path=source)
    owner = Owner.of(cache, model, model_name, settings, role)
    if isinstance(ids, (str, Path)):
        n_ids = sum(1 for _ in _read_ids(Path(ids)))  # all of it is looked at before a row is stored, and none is kept
        named = _read_ids(Path(ids))
    else:
        listed = list(ids)
        n_ids, named = len(listed), _listed(source, listed)
    if texts is not None and not isinstance(texts, Mapping):
        texts = check_texts(texts)
    for what, n in (("ids", n_ids), ("texts", len(texts) if isinstance(texts, list) else n_ids)):
        if n != len(matrix):
            raise SourceError(f"{source} has {len(matrix)} rows, and there are {n} {what}", path=source)
    rows = _rows(source, matrix, named, texts or {}, collection)
    return import_rows(cache, source, owner, rows, total=n_ids, progress=progress)


def _array(vectors: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(off_device(vectors))
    except (ValueError, TypeError) as error:  # ragged lists, other libraries' objects
        raise SourceError(
            f"the matrix is a {type(vectors).__name__}, and no numbers ({error})", path="the matrix"
        ) from error


def _rows(
    source: str,
    matrix: npt.NDArray[Any],
    named: Iterable[Named],
    texts: Mapping[str, str] | Sequence[str],
    collection: str | None,
) -> Iterator[SourceRow | Skipped]:
    texts_of_rows = repeat(None) if isinstance(texts, Mapping) else texts
    for (place, fields), vector, text in zip(named, matrix, texts_of_rows, strict=False):
        doc_id = fields.get("id")
        if not isinstance(doc_id, str):
            raise broken(source, place, f"its id is no text: {doc_id!r:.80}")
        if text is None:
            text = fields.get("text", texts.get(doc_id) if isinstance(texts, Mapping) else None)
        found = content_of(source, place, text, fields.get("content_hash"))
        if found is None:
            yield Skipped(place, NO_TEXT)
        else:
            scope = fields.get("collection", "") if collection is None else collection
            yield SourceRow(place, found, vector, doc_id, scope)


def content_of(source: str | Path, place: str, text: object, digest: object) -> bytes | None:
    """Give the content hash of a row that has its text, or says its hash in hex; None for one that has neither.

    Raises
    ------
    SourceError
        One of the two is none, or they say different things.
    """
    try:
        of_text = None if text is None else content_hash(text)  # type: ignore[arg-type]
    except EmbstoreError as error:
        raise broken(source, place, str(error)) from error
    if digest is None:
        return of_text
    said = b""
    with suppress(TypeError, ValueError):
        said = bytes.fromhex(digest)  # type: ignore[arg-type]
    if len(said) != HASH_BYTES:
        raise broken(source, place, f"its content_hash is no SHA-256 in hex: {digest!r:.80}")
    if of_text not in (None, said):
        raise broken(source, place, f"its content_hash is not that of its text {text!r:.60}")
    return said


def _listed(source: str, ids: Iterable[str]) -> Iterator[Named]:
    return ((f"{source}: row {row}", {"id": doc_id}) for row, doc_id in enumerate(ids))


def _read_ids(file: Path) -> Iterator[Named]:
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:  # not cut at U+2028 and its like
            yield from _listed_in(file, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{str(file)!r} cannot be read: {error}", path=str(file)) from error


def _listed_in(file: Path, lines: TextIO) -> Iterator[Named]:
    if file.suffix.lower() == ".json":
        listed = _parsed(file, str(file), lines.read())
        if not isinstance(listed, list):
            raise SourceError(f"{str(file)!r} is no list of ids", path=str(file))
        yield from _listed(str(file), listed)
        return
    for number, line in enumerate(lines, start=1):
        place = f"{file}:{number}"
        line = line.removesuffix("\n")
        fields = _parsed(file, place, line) if file.suffix.lower() == ".jsonl" else {"id": line.removesuffix("\r")}
        if not isinstance(fields, dict):
            raise broken(file, place, f"it is no object with an id: {line!r:.80}")
        yield place, fields


def _read_model(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        model = _parsed(file, str(file), file.read_text(encoding="utf-8"))
        return model["model_name"], model["settings"]
    except (OSError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise SourceError(
            f"{str(file)!r} does not say whose vectors these are; give model_name=", path=str(file)
        ) from error


def _parsed(file: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken(file, place, f"it is no JSON: {error}") from None
