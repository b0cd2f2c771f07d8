"""To a Parquet file, and from one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embstore.errors import MissingExtraError, SourceError
from embstore.identity import Role, Setting
from embstore.putting import PutEmbeddings
from embstore.stored import StoredEmbeddings
from embstore.transfer.exporting import Outgoing, OutgoingPage
from embstore.transfer.importing import ROWS_AT_ONCE, Owner, SourceRow, broken, import_rows
from embstore.transfer.matrix import NO_TEXT, content_of
from embstore.transfer.report import ExportReport, Skipped, TransferReport
from embstore.transfer.target import new_file

_MODEL_KEY, _SETTINGS_KEY = b"embstore:model_name", b"embstore:settings"
BUFFER_BYTES = 2**20
_VECTOR_COLUMNS = ("vector", "embedding", "embeddings", "vectors")


def export_parquet(
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
    """Write the vectors of documents to a Parquet file.

    Its columns are ``id``, ``collection``, ``content_hash`` (hex), ``text`` (null where the cache does not know it)
    and ``vector``, a list of dim float32; its metadata has the model's name and settings. pandas, polars and DuckDB
    read it, ``embedding-atlas FILE --text text --vector vector`` shows it, and `import_parquet` reads it back bit for
    bit. Memory is bounded. The file appears when it is whole.

    Parameters
    ----------
    cache, path, model_name, role, settings, collection, overwrite, progress
        As of `export_npy`, but `path` is that of a file, which is replaced only where it ends in ``.parquet``.

    Returns
    -------
    ExportReport

    Raises
    ------
    MissingExtraError
        The extra ``parquet`` is not installed.
    UnknownModelError, AmbiguousModelError, TargetError, DamagedStoreError
        As of `export_npy`; nothing was exported.
    """
    pyarrow, parquet = _import_pyarrow()
    outgoing = Outgoing(cache, model_name, role=role, settings=settings, collection=collection, progress=progress)
    identity = outgoing.model.identity
    texts = [(name, pyarrow.string()) for name in ("id", "collection", "content_hash", "text")]
    schema = pyarrow.schema(
        [*texts, ("vector", pyarrow.list_(pyarrow.float32(), outgoing.dim))],
        metadata={_MODEL_KEY: identity.model_name, _SETTINGS_KEY: identity.settings_json},
    )
    with (
        new_file(path, overwrite=overwrite, location=cache.location, suffix=".parquet") as file,
        # By default floats go into a dictionary first, which makes vectors, whose floats all differ, a third longer.
        parquet.ParquetWriter(file, schema, use_dictionary=["collection"]) as writer,
    ):
        for page in outgoing.pages():
            writer.write_batch(_batch(pyarrow, schema, page))
    return outgoing.report(Path(path))


def _batch(pyarrow: Any, schema: Any, page: OutgoingPage) -> Any:
    values = pyarrow.array(page.vectors.reshape(-1), pyarrow.float32())
    vectors = pyarrow.FixedSizeListArray.from_arrays(values, page.vectors.shape[1])
    hashes = [content_hash.hex() for content_hash in page.content_hashes]
    columns = (page.doc_ids, page.collections, hashes, page.texts)
    return pyarrow.record_batch([*(pyarrow.array(column, pyarrow.string()) for column in columns), vectors], schema)


def import_parquet(
    cache: PutEmbeddings,
    path: str | Path,
    *,
    id_column: str = "id",
    text_column: str = "text",
    vector_column: str | None = None,
    model: Any = None,
    model_name: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    role: Role = "document",
    collection: str | None = None,
    progress: bool | None = None,
) -> TransferReport:
    """Take in the vectors of a Parquet file.

    Parameters
    ----------
    cache : EmbeddingCache
        Where everything comes to.
    path : str or Path
    id_column : str
        Of texts or whole numbers. Where there is none, and where it is null, vectors are cached without an id.
    text_column : str
        What vectors are of; a ``content_hash``, a SHA-256 in hex, does too. Rows with neither are skipped.
    vector_column : str, optional
        Of lists of floats; by default the one of ``vector``, ``embedding``, ``embeddings`` and ``vectors`` there is.
    model, model_name, settings, role
        Whose vectors they are, as of `import_matrix`; by default the file of an `export_parquet` says so.
    collection : str, optional
        By default that of a column of this name, or "".
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    TransferReport

    Raises
    ------
    MissingExtraError
        The extra ``parquet`` is not installed.
    SourceError
        The file or a row is not as above; the message names it, and tells what was stored before.
    InvalidInputError, DimensionError, OutOfRangeError, StoreError
        Of the cache and the model; likewise.
    """
    file = _open(Path(path))
    try:
        if model is None and model_name is None:
            model_name, settings = _noted_model(Path(path), file.schema_arrow.metadata or {})
        owner = Owner.of(cache, model, model_name, settings, role)
        asked = {"id": id_column, "text": text_column, "vector": vector_column}
        columns = _columns(Path(path), file.schema_arrow.names, asked)
        rows = _rows(Path(path), file, columns, collection)
        return import_rows(cache, path, owner, rows, total=file.metadata.num_rows, progress=progress)
    finally:
        file.close()


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "a Parquet file") from error
    return pyarrow, pyarrow.parquet


def _open(path: Path) -> Any:
    pyarrow, parquet = _import_pyarrow()
    try:
        # By small pieces: others write all rows as one group, which would be read as a whole.
        return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"{str(path)!r} is no Parquet file that can be read: {error}", path=str(path)) from error


def _columns(path: Path, names: list[str], asked: Mapping[str, str | None]) -> dict[str, str]:
    """Tell which column each field is in, for those that are there; a name that was given has to be."""
    candidates = _VECTOR_COLUMNS if asked["vector"] is None else (asked["vector"],)
    vectors = [name for name in candidates if name in names]
    if len(vectors) != 1:
        raise _other_columns(path, names, "say by vector_column= which has the vectors")
    wanted = {**asked, "vector": vectors[0], "content_hash": "content_hash", "collection": "collection"}
    for field, name in wanted.items():
        if name not in names and name != field:
            raise _other_columns(path, names, f"{field}_column={name!r:.80} is none of them")
        if names.count(str(name)) > 1:
            raise _other_columns(path, names, f"rename one {name!r:.80}, which is there twice")
    return {field: name for field, name in wanted.items() if name is not None and name in names}


def _other_columns(path: Path, names: list[str], cure: str) -> SourceError:
    return SourceError(f"{str(path)!r} has the columns {', '.join(names):.400}; {cure}", path=str(path))


def _noted_model(path: Path, metadata: Mapping[bytes, bytes]) -> tuple[str, dict[str, Setting]]:
    try:
        return metadata[_MODEL_KEY].decode(), dict(json.loads(metadata[_SETTINGS_KEY]))
    except (LookupError, ValueError, TypeError) as error:
        raise SourceError(
            f"{str(path)!r} does not say whose vectors these are; give model_name=", path=str(path)
        ) from error


def _rows(path: Path, file: Any, there: Mapping[str, str], collection: str | None) -> Iterator[SourceRow | Skipped]:
    pyarrow = _import_pyarrow()[0]
    columns = list(dict.fromkeys(there.values()))
    number = 0
    try:
        # pyarrow 18 fails where a file has no rows.
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns) if file.num_row_groups else ():
            fields = {field: batch.column(name).to_pylist() for field, name in there.items() if field != "vector"}
            vectors = batch.column(there["vector"])
            for i in range(batch.num_rows):
                place, vector = f"{path}: row {number}", vectors[i]
                if not isinstance(vector, pyarrow.ListScalar):
                    raise broken(path, place, f"its vector is no list, but {vector.type}")
                row = {field: values[i] for field, values in fields.items()}
                yield _row(path, place, row, vector, collection)
                number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise broken(path, f"{path}: row {number} or after", f"it cannot be read: {error}") from error


def _row(path: Path, place: str, row: Mapping[str, Any], vector: Any, collection: str | None) -> SourceRow | Skipped:
    found = content_of(path, place, row.get("text"), row.get("content_hash"))
    if found is None:
        return Skipped(place, NO_TEXT)
    if not vector.is_valid:
        return Skipped(place, "it has no vector")
    doc_id = row.get("id")
    if doc_id is not None and type(doc_id) not in (str, int):
        raise broken(path, place, f"its id is neither a text nor a whole number: {doc_id!r:.80}")
    doc_id = None if doc_id is None else str(doc_id)
    scope = row.get("collection") or "" if collection is None else collection
    return SourceRow(place, found, vector.values.to_numpy(zero_copy_only=False), doc_id, scope)
