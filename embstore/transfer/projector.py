"""To a folder that TensorBoard's embedding projector opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from embstore.identity import Role, Setting
from embstore.stored import StoredEmbeddings
from embstore.transfer.exporting import Outgoing
from embstore.transfer.report import ExportReport
from embstore.transfer.target import new_folder

VECTORS_NAME = "vectors.tsv"
METADATA_NAME = "metadata.tsv"
CONFIG_NAME = "projector_config.pbtxt"

_VALUE = "%.9g"  # of nine digits every float32 comes back bit for bit
_HEADER = ("id", "collection", "content_hash", "text")
_TEXT_CHARS = 200


def export_projector(
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
    """Write the vectors of documents for TensorBoard's embedding projector.

    The folder has ``vectors.tsv``, ``metadata.tsv`` and ``projector_config.pbtxt``: ``tensorboard --logdir FOLDER``
    shows it, and https://projector.tensorflow.org loads the first two. Of a text its first 200 characters are written;
    tabs and line breaks become spaces. Memory is bounded. The folder appears when it is whole.

    Parameters
    ----------
    cache, path, model_name, role, settings, collection, overwrite, progress
        As of `export_npy`.

    Returns
    -------
    ExportReport

    Raises
    ------
    UnknownModelError, AmbiguousModelError, TargetError, DamagedStoreError
        As of `export_npy`; nothing was exported.
    """
    outgoing = Outgoing(cache, model_name, role=role, settings=settings, collection=collection, progress=progress)
    line = "\t".join([_VALUE] * outgoing.dim) + "\n"
    names = (VECTORS_NAME, METADATA_NAME, CONFIG_NAME)
    with new_folder(path, overwrite=overwrite, location=cache.location, names=names) as folder:
        with (
            (folder / VECTORS_NAME).open("w", encoding="utf-8", newline="\n") as vectors,
            (folder / METADATA_NAME).open("w", encoding="utf-8", newline="\n") as metadata,
        ):
            metadata.write("\t".join(_HEADER) + "\n")
            for page in outgoing.pages():
                vectors.writelines(line % tuple(row) for row in page.vectors.tolist())
                for name, doc_id, content_hash, text in zip(
                    page.collections, page.doc_ids, page.content_hashes, page.texts, strict=True
                ):
                    cells = (doc_id, name, content_hash.hex(), (text or "")[:_TEXT_CHARS])
                    metadata.write("\t".join(map(_cell, cells)) + "\n")
        (folder / CONFIG_NAME).write_text(_config(str(outgoing.model.identity)), encoding="utf-8")
    return outgoing.report(Path(path))


def _cell(value: str) -> str:
    return " ".join(value.split())


def _config(name: str) -> str:
    # The text format of protocol buffers writes a string as JSON does.
    return (
        "embeddings {\n"
        f"  tensor_name: {json.dumps(name, ensure_ascii=False)}\n"
        f'  tensor_path: "{VECTORS_NAME}"\n'
        f'  metadata_path: "{METADATA_NAME}"\n'
        "}\n"
    )
