"""From the usual home-made cache: a JSON index, and a .npy file for each vector."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from embstore.errors import SourceError
from embstore.identity import Role, Setting, content_hash
from embstore.putting import PutEmbeddings
from embstore.transfer.arrays import open_npy
from embstore.transfer.digests import NO_TEXT, Digests, is_digest
from embstore.transfer.importing import Owner, SourceRow, broken, import_rows
from embstore.transfer.matrix_folder import ROWS_NAME, VECTORS_NAME
from embstore.transfer.report import Skipped, TransferReport

INDEX_NAME = "index.json"

# What such caches call these; the first that is there counts.
_TEXTS = ("text", "content")
_HASHES = ("content_hash", "text_hash", "hash", "sha256", "sha1", "md5")
_FILES = ("file", "path", "filename", "npy", "embedding_file", "embedding_path")
_MODELS = ("model_name", "model", "embedding_model")


def import_npy_folder(
    cache: PutEmbeddings,
    folder: str | Path,
    *,
    texts: Iterable[str] = (),
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    collection: str = "",
    source_model: str | None = None,
    progress: bool | None = None,
) -> TransferReport:
    """Take in a folder with an index in JSON and a .npy file for each vector.

    The index, ``index.json`` or the only .json file, is an object with an entry for each document: the hash of its
    text, where the vector is in ``ID.npy``, or an object with ``content_hash`` or ``text``, and ``file`` where that
    has another name. Entries by hash, with the name of the file, are read too. A SHA-256 is all that is needed; for
    SHA-1 and MD5 the texts are. Without an index entry, file or known text a row is skipped. So is a file that is
    newer than the index: its program may have ended before it wrote of which text the new vector is.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    folder : str or Path
    texts : iterable of str
        What the hashes may be of, where they are no SHA-256.
    model, model_name, settings, role
        Whose vectors they are, as of `EmbeddingCache.put_many`; a name of a model that can be loaded too.
    collection : str
    source_model : str, optional
        What the entries call the model, where they name one and it is not `model_name`. Those of others are skipped.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    SourceError
        The folder, an entry or a file is not as above; the message names it, and tells what was stored before.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    folder = Path(folder)
    owner = Owner.of(cache, model, model_name, settings, role)
    index_file = _index_in(folder)
    entries = _read_index(index_file)
    rows = _rows(folder, index_file, entries, Digests(texts), source_model or owner.identity.model_name, collection)
    return import_rows(cache, folder, owner, rows, total=len(entries), progress=progress)


def _index_in(folder: Path) -> Path:
    if not folder.is_dir():
        raise SourceError(f"{str(folder)!r} is no folder; give the one with the index", path=str(folder))
    if (folder / INDEX_NAME).is_file():
        return folder / INDEX_NAME
    if (folder / ROWS_NAME).is_file() and (folder / VECTORS_NAME).is_file():
        raise SourceError(
            f"{str(folder)!r} is an export of embstore; take it in by import_matrix, or --from matrix", path=str(folder)
        )
    files = sorted(folder.glob("*.json"))
    if len(files) != 1:
        told = ", ".join(file.name for file in files[:5]) or "no .json file"
        raise SourceError(f"{str(folder)!r} has no {INDEX_NAME}, but {told}; name the index so", path=str(folder))
    return files[0]


def _read_index(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(file.read_bytes(), object_pairs_hook=_once)
    except OSError as error:
        raise SourceError(f"{str(file)!r} cannot be read: {error.strerror}", path=str(file)) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{str(file)!r} is no JSON: {error}; restore it", path=str(file)) from error
    if not isinstance(entries, dict):
        raise SourceError(f"{str(file)!r} is no JSON object with an entry for each document", path=str(file))
    return entries


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; which of two entries a file belongs to is not known."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r:.80} stands in one object twice")
    return found


def _rows(
    folder: Path, index_file: Path, entries: dict[str, Any], digests: Digests, source_model: str, collection: str
) -> Iterator[SourceRow | Skipped]:
    used = set[Path]()
    written_ns = index_file.stat().st_mtime_ns
    root = folder.resolve()
    for key, value in entries.items():
        place = f"{index_file}: {key!r:.80}"
        entry = _Entry(place, index_file, key, value)
        file, file_written_ns = _file_of(root, entry)
        used.add(file)
        found = digests.find(entry.digest) if entry.text is None else content_hash(entry.text)
        if entry.model not in (None, source_model):
            yield Skipped(place, f"its model is {entry.model!r:.80}")
        elif file_written_ns is None:
            yield Skipped(place, "its file is not there")
        elif file_written_ns > written_ns:
            yield Skipped(place, "its file is newer than the index (where the folder was copied: touch the index)")
        elif entry.text is not None and is_digest(entry.digest) and Digests([entry.text]).find(entry.digest) != found:
            yield Skipped(place, "its hash is not that of its text")
        elif found is None:
            yield Skipped(place, NO_TEXT)
        else:
            yield SourceRow(place, found, _vector(file, place), entry.doc_id, collection)
    for file in sorted(set(root.rglob("*.npy")) - used):
        yield Skipped(str(file), "the index has no entry for it")


class _Entry:
    """An entry of the index, in whichever of its forms."""

    def __init__(self, place: str, index_file: Path, key: str, value: object) -> None:
        fields = {"content_hash": value} if is_digest(value) else {"file": value} if isinstance(value, str) else value
        if not isinstance(fields, dict):
            raise broken(index_file, place, f"its entry is neither a hash, a file nor an object: {value!r:.80}")
        self.place = place
        self.text = _first(fields, _TEXTS)
        is_by_hash = is_digest(key) and _first(fields, _HASHES) is None and self.text is None
        self.digest = key if is_by_hash else _first(fields, _HASHES) or ""
        self.doc_id = _first(fields, ("doc_id", "id")) if is_by_hash else key
        self.file = _first(fields, _FILES) or f"{key}.npy"
        self.model = _first(fields, _MODELS)
        if self.text is None and not is_digest(self.digest):
            raise broken(index_file, place, f"it has no hash and no text: {value!r:.80}")


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), None)


def _file_of(root: Path, entry: _Entry) -> tuple[Path, int | None]:
    """Find the file of an entry, which is in the folder, and when it was written to; None where it is not there."""
    try:
        file = (root / entry.file).resolve()
        if not file.is_relative_to(root):
            raise broken(root, entry.place, f"its file {entry.file!r:.80} is outside of the folder")
        return file, file.stat().st_mtime_ns if file.is_file() else None
    except SourceError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a loop of links, a name that is too long
        told = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise broken(root, entry.place, f"{entry.file!r:.80} can be no file: {told}") from error


def _vector(file: Path, place: str) -> npt.NDArray[Any]:
    values = open_npy(file, place)
    return values[0] if values.ndim == 2 and len(values) == 1 else values
