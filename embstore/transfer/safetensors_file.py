"""To a .safetensors file, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embstore.codec import HASH_BYTES
from embstore.errors import MissingExtraError, SourceError
from embstore.identity import Role, Setting
from embstore.putting import PutEmbeddings
from embstore.stored import StoredEmbeddings
from embstore.transfer.exporting import Outgoing
from embstore.transfer.importing import Owner, SourceRow, import_rows
from embstore.transfer.report import ExportReport, TransferReport
from embstore.transfer.target import new_file

_TENSORS = ("vectors", "content_hashes", "rows")


def export_safetensors(
    cache: StoredEmbeddings,
    path: str | Path,
    model_name: str,
    *,
    role: Role = "document",
    settings: Mapping[str, Setting] | None = None,
    collection: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> ExportReport:
    """Write the vectors of documents as tensors.

    The file has ``vectors``, float32 of shape (n, dim); ``content_hashes``, uint8 of shape (n, 32); ``rows``, the
    bytes of a JSON list of n pairs (collection, id); and the model's name and settings as metadata.
    `import_safetensors` reads it back bit for bit. All is in memory meanwhile. The file appears when it is whole.

    Parameters
    ----------
    cache, path, model_name, role, settings, collection, overwrite, progress
        As of `export_npy`, but `path` is that of a file, which is replaced only where it ends in ``.safetensors``.

    Returns
    -------
    ExportReport

    Raises
    ------
    MissingExtraError
        The extra ``safetensors`` is not installed.
    UnknownModelError, AmbiguousModelError, TargetError, DamagedStoreError
        As of `export_npy`; nothing was exported.
    """
    numpy_format = _import_safetensors()[0]
    outgoing = Outgoing(cache, model_name, role=role, settings=settings, collection=collection, progress=progress)
    vectors, hashes, rows = [np.empty((0, outgoing.dim), np.float32)], list[bytes](), list[tuple[str, str]]()
    with new_file(path, overwrite=overwrite, location=cache.location, suffix=".safetensors") as file:
        for page in outgoing.pages():
            vectors.append(page.vectors)
            hashes += page.content_hashes
            rows += zip(page.collections, page.doc_ids, strict=True)
        tensors = {
            "vectors": np.concatenate(vectors),
            "content_hashes": np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES),
            "rows": np.frombuffer(json.dumps(rows).encode("ascii"), np.uint8),
        }
        identity = outgoing.model.identity
        metadata = {"model_name": identity.model_name, "settings": identity.settings_json}
        numpy_format.save_file(tensors, file, metadata=metadata)
    return outgoing.report(Path(path))


def import_safetensors(
    cache: PutEmbeddings,
    path: str | Path,
    *,
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    collection: str | None = None,
    progress: bool | None = None,
) -> TransferReport:
    """Take in what `export_safetensors` has written.

    Parameters
    ----------
    cache, model, model_name, settings, role, collection, progress
        As of `import_matrix`; by default the file says whose vectors they are.
    path : str or Path

    Returns
    -------
    TransferReport

    Raises
    ------
    MissingExtraError
        The extra ``safetensors`` is not installed.
    SourceError
        It is no such file; nothing was stored, or the message tells what.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    metadata, tensors = _read(Path(path))
    if model is None and model_name is None:
        model_name, settings = _noted_model(Path(path), metadata)
    owner = Owner.of(cache, model, model_name, settings, role)
    rows = _rows(Path(path), tensors, collection)
    return import_rows(cache, path, owner, rows, total=len(tensors["vectors"]), progress=progress)


def _import_safetensors() -> tuple[Any, Any]:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "safetensors", "a .safetensors file") from error
    return safetensors.numpy, safetensors


def _read(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    safetensors = _import_safetensors()[1]
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in _TENSORS}
    except (OSError, safetensors.SafetensorError) as error:
        raise SourceError(
            f"{str(path)!r} is no .safetensors file with {', '.join(_TENSORS)} ({error}); give one that "
            f"export_safetensors has written",
            path=str(path),
        ) from error


def _noted_model(path: Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, Setting]]:
    try:
        return metadata["model_name"], dict(json.loads(metadata["settings"]))
    except (LookupError, ValueError, TypeError) as error:
        raise SourceError(
            f"{str(path)!r} does not say whose vectors these are; give model_name=", path=str(path)
        ) from error


def _rows(path: Path, tensors: Mapping[str, npt.NDArray[Any]], collection: str | None) -> Iterator[SourceRow]:
    vectors, hashes = tensors["vectors"], tensors["content_hashes"]
    try:
        rows = [(str(name), doc_id) for name, doc_id in json.loads(tensors["rows"].tobytes())]
        if hashes.dtype != np.uint8 or hashes.shape != (len(rows), HASH_BYTES) or vectors.shape[:1] != (len(rows),):
            raise ValueError(f"vectors of shape {vectors.shape}, hashes of shape {hashes.shape}, {len(rows)} rows")
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(f"{str(path)!r}: its tensors do not fit together: {error}", path=str(path)) from error
    for i, (name, doc_id) in enumerate(rows):
        yield SourceRow(
            f"{path}: row {i}", hashes[i].tobytes(), vectors[i], doc_id, name if collection is None else collection
        )
