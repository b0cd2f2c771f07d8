"""To a folder with a matrix in .npy, and what its rows are in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embstore.codec import VECTOR_DTYPE, little_endian
from embstore.identity import Role, Setting
from embstore.stored import StoredEmbeddings
from embstore.transfer.exporting import Outgoing, OutgoingPage
from embstore.transfer.report import ExportReport
from embstore.transfer.target import new_folder

VECTORS_NAME = "vectors.npy"
ROWS_NAME = "rows.jsonl"
MODEL_NAME = "model.json"


def export_npy(
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
    """Write the vectors of documents as one matrix, for everything that reads numpy's files.

    The folder has ``vectors.npy``, float32 of shape (n, dim); ``rows.jsonl``, where line i is ``{"id": ...,
    "content_hash": ...}`` of row i, with its ``collection`` and its ``text`` where there is one; and ``model.json``.
    `import_matrix` reads it back bit for bit. Memory is bounded. The folder appears when it is whole.

    Parameters
    ----------
    cache : StoredEmbeddings
    path : str or Path
        A folder that is not there yet, in one that is.
    model_name, role, settings, collection
        Which documents, as of `StoredEmbeddings.matrix`.
    overwrite : bool
        Replace a folder that such an export has written before; one that has other files is never replaced.
    progress : bool, optional
        Show a progress bar; by default where stderr is a terminal.

    Returns
    -------
    ExportReport

    Raises
    ------
    UnknownModelError, AmbiguousModelError
        Of the name.
    TargetError
        Something is at the path, or nothing can be put there.
    DamagedStoreError
        A row is not what was written. In each case nothing was exported.
    """
    outgoing = Outgoing(cache, model_name, role=role, settings=settings, collection=collection, progress=progress)
    names = (VECTORS_NAME, ROWS_NAME, MODEL_NAME)
    with new_folder(path, overwrite=overwrite, location=cache.location, names=names) as folder:
        with (folder / VECTORS_NAME).open("wb") as matrix, (folder / ROWS_NAME).open("w", encoding="utf-8") as rows:
            _write_header(matrix, 0, outgoing.dim)
            for page in outgoing.pages():
                matrix.write(little_endian(page.vectors).tobytes())
                rows.writelines(_lines(page))
            matrix.seek(0)
            _write_header(matrix, outgoing.n_rows, outgoing.dim)
        identity = outgoing.model.identity
        model: dict[str, Any] = {"model_name": identity.model_name, "settings": identity.settings}
        (folder / MODEL_NAME).write_text(json.dumps(model, indent=2) + "\n", encoding="utf-8")
    return outgoing.report(Path(path))


def _write_header(file: BinaryIO, n: int, dim: int) -> None:
    """Write the header of a matrix; numpy makes it as long for any number of rows, so that it can be written anew."""
    described = {"descr": np.lib.format.dtype_to_descr(VECTOR_DTYPE), "fortran_order": False, "shape": (n, dim)}
    np.lib.format.write_array_header_1_0(file, described)


def _lines(page: OutgoingPage) -> list[str]:
    return [
        json.dumps(
            {
                "id": doc_id,
                "content_hash": content_hash.hex(),
                **({"collection": collection} if collection else {}),
                **({} if text is None else {"text": text}),
            }
        )
        + "\n"
        for collection, doc_id, content_hash, text in zip(
            page.collections, page.doc_ids, page.content_hashes, page.texts, strict=True
        )
    ]
