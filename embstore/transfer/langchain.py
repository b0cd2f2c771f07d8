"""From the folder of a LangChain LocalFileStore in which CacheBackedEmbeddings has cached vectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.errors import SourceError
from embstore.identity import Role, Setting
from embstore.putting import PutEmbeddings
from embstore.transfer.digests import NO_TEXT, Digests, is_digest
from embstore.transfer.importing import Owner, SourceRow, broken, import_rows
from embstore.transfer.report import Skipped, TransferReport


def import_langchain(
    cache: PutEmbeddings,
    folder: str | Path,
    texts: Iterable[str] = (),
    *,
    namespace: str = "",
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    progress: bool | None = None,
) -> TransferReport:
    """Take in what LangChain's `CacheBackedEmbeddings` has written to a `LocalFileStore`.

    A file is named by the namespace and a digest of the text, which itself is not there. A key that was made with
    ``key_encoder="sha256"`` tells the content by itself; of those of "sha1", "blake2b" and "sha512" the vectors are
    taken whose texts are given, and the others are skipped. Vectors are cached without an id. LangChain writes floats
    so that they come back bit for bit.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    folder : str or Path
        The store's `root_path`.
    texts : iterable of str
        What may have been cached: the documents that were embedded.
    namespace : str
        As it was given to `CacheBackedEmbeddings.from_bytes_store`; by default, as there, none. Files of others are
        skipped: they are of other models.
    model, model_name, settings, role
        Whose vectors they are, as of `EmbeddingCache.put_many`; a name of a model that can be loaded too.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    SourceError
        There is no such folder, or a file holds no vector; the message names it, and tells what was stored before.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{str(folder)!r} is no folder; give the root_path of the LocalFileStore", path=str(folder))
    owner = Owner.of(cache, model, model_name, settings, role)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    rows = _rows(folder, files, namespace, Digests(texts))
    return import_rows(cache, folder, owner, rows, total=len(files), progress=progress)


def _rows(folder: Path, files: list[Path], namespace: str, digests: Digests) -> Iterator[SourceRow | Skipped]:
    for file in files:
        place = str(file)
        key = file.relative_to(folder).as_posix()
        digest = key.removeprefix(namespace)
        if not key.startswith(namespace) or not is_digest(digest):
            yield Skipped(place, f"it is no key of the namespace {namespace!r:.80}")
            continue
        found = digests.find(digest)
        yield Skipped(place, NO_TEXT) if found is None else SourceRow(place, found, _vector(folder, file))


def _vector(folder: Path, file: Path) -> npt.NDArray[Any]:
    try:
        values = json.loads(file.read_bytes())
        if not isinstance(values, list) or {*map(type, values)} - {float, int}:
            raise ValueError("it is no JSON list of numbers")
        return np.array(values)
    except (ValueError, RecursionError, OverflowError) as error:
        raise broken(folder, str(file), f"it holds no vector: {error}") from error
    except OSError as error:
        raise SourceError(f"{str(file)!r} cannot be read: {error.strerror}", path=str(file)) from error
