"""To a .safetensors file, and back."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from embstore.codec import HASH_BYTES, little_endian
from embstore.errors import MissingExtraError, SourceError
from embstore.identity import Role, Setting
from embstore.putting import PutEmbeddings
from embstore.stored import StoredEmbeddings
from embstore.transfer.exporting import Outgoing
from embstore.transfer.importing import ROWS_AT_ONCE, Owner, SourceRow, broken, import_rows
from embstore.transfer.report import ExportReport, TransferReport
from embstore.transfer.target import new_file

_TENSORS = ("vectors", "content_hashes", "rows")

_MOST_ROWS = 2**40  # no number in a header is longer than with so many


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
    `import_safetensors` reads it back bit for bit. Memory is bounded. The file appears when it is whole.

    Parameters
    ----------
    cache, path, model_name, role, settings, collection, overwrite, progress
        As of `export_npy`, but `path` is that of a file, which is replaced only where it ends in ``.safetensors``.

    Returns
    -------
    ExportReport

    Raises
    ------
    UnknownModelError, AmbiguousModelError, TargetError, DamagedStoreError
        As of `export_npy`; nothing was exported.
    """
    outgoing = Outgoing(cache, model_name, role=role, settings=settings, collection=collection, progress=progress)
    identity = outgoing.model.identity
    metadata = {"model_name": identity.model_name, "settings": identity.settings_json}
    room = len(_header(metadata, _MOST_ROWS, outgoing.dim, 2**60))
    with (
        new_file(path, overwrite=overwrite, location=cache.location, suffix=".safetensors") as part,
        part.open("wb") as file,
        tempfile.TemporaryFile(dir=part.parent) as hashes,
        tempfile.TemporaryFile(dir=part.parent) as rows,
    ):
        file.write(bytes(room))
        for page in outgoing.pages():
            file.write(little_endian(page.vectors).tobytes())
            hashes.write(b"".join(page.content_hashes))
            listed = json.dumps([*zip(page.collections, page.doc_ids, strict=True)])
            rows.write((", " if rows.tell() else "[").encode() + listed[1:-1].encode("ascii"))
        rows.write(b"]" if rows.tell() else b"[]")
        n_bytes = rows.tell()
        for tensor in (hashes, rows):  # which follow the last of the vectors, wherever that is
            tensor.seek(0)
            shutil.copyfileobj(tensor, file)
        file.seek(0)
        file.write(_header(metadata, outgoing.n_rows, outgoing.dim, n_bytes, room))
    return outgoing.report(Path(path))


def _header(metadata: Mapping[str, str], n: int, dim: int, n_bytes: int, room: int = 0) -> bytes:
    """Give what a file begins with: 8 bytes of length, and JSON with spaces up to a multiple of 8, or to fill a room.

    https://huggingface.co/docs/safetensors, "Format". The library itself writes what is in memory as a whole.
    """
    tensors: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, dtype, shape, size in (
        ("vectors", "F32", (n, dim), 4 * n * dim),
        ("content_hashes", "U8", (n, HASH_BYTES), n * HASH_BYTES),
        ("rows", "U8", (n_bytes,), n_bytes),
    ):
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, start + size)}
        start += size
    written = json.dumps(tensors).encode("ascii")
    length = room - 8 if room else len(written) + -len(written) % 8
    return length.to_bytes(8, "little") + written.ljust(length)


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
    with _opened(Path(path)) as (metadata, tensors):
        if model is None and model_name is None:
            model_name, settings = _noted_model(Path(path), metadata)
        owner = Owner.of(cache, model, model_name, settings, role)
        rows = _rows(Path(path), tensors, collection)
        total = tensors["vectors"].get_shape()[:1]
        return import_rows(cache, path, owner, rows, total=total[0] if total else None, progress=progress)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Give the metadata of a file and its tensors, of which only what is asked for is read."""
    try:
        import safetensors
    except ImportError as error:
        raise MissingExtraError("safetensors", "safetensors", "a .safetensors file") from error
    with ExitStack() as stack:
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
            tensors = {name: file.get_slice(name) for name in _TENSORS}
        except (OSError, safetensors.SafetensorError) as error:
            raise SourceError(
                f"{str(path)!r} is no .safetensors file with {', '.join(_TENSORS)} ({error}); give one that "
                f"export_safetensors has written",
                path=str(path),
            ) from error
        yield file.metadata() or {}, tensors


def _noted_model(path: Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, Setting]]:
    try:
        return metadata["model_name"], dict(json.loads(metadata["settings"]))
    except (LookupError, ValueError, TypeError) as error:
        raise SourceError(
            f"{str(path)!r} does not say whose vectors these are; give model_name=", path=str(path)
        ) from error


def _rows(path: Path, tensors: Mapping[str, Any], collection: str | None) -> Iterator[SourceRow]:
    vectors, hashes = tensors["vectors"], tensors["content_hashes"]
    try:
        rows = [(str(name), doc_id) for name, doc_id in json.loads(tensors["rows"][:].tobytes())]
        shapes = [tuple(tensor.get_shape()) for tensor in (vectors, hashes)]
        if hashes.get_dtype() != "U8" or shapes[1] != (len(rows), HASH_BYTES) or shapes[0][:1] != (len(rows),):
            raise ValueError(f"vectors of shape {shapes[0]}, hashes of shape {shapes[1]}, {len(rows)} rows")
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(f"{str(path)!r}: its tensors do not fit together: {error}", path=str(path)) from error
    for start in range(0, len(rows), ROWS_AT_ONCE):
        named = rows[start : start + ROWS_AT_ONCE]
        end = start + len(named)
        try:
            read = zip(named, vectors[start:end], hashes[start:end], strict=True)
        except Exception as error:  # a type that numpy has not, and what else the library raises
            raise broken(path, f"{path}: row {start} or after", f"it cannot be read: {error}") from error
        for i, ((name, doc_id), vector, content_hash) in enumerate(read, start):
            scope = name if collection is None else collection
            yield SourceRow(f"{path}: row {i}", content_hash.tobytes(), vector, doc_id, scope)
