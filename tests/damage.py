"""Damage to the vector index of a library that nobody has open, as unclean ends do it."""

from __future__ import annotations

import pickle
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

from embstore import ModelIdentity
from embstore.search.collection import MODEL_NAME_KEY, SETTINGS_KEY, open_client

# Of hnswlib's files: where header.bin tells the size of a node and the place of its label, and a node's flags.
_HEADER = struct.Struct("<i6Q")
_DELETED = 1 << 16


def create_collection(library: Path, model_name: str, sync_threshold: int = 20) -> None:
    """Create a collection as an engine does, but for how soon its vector index is written to files."""
    index: Any = {"space": "cosine", "sync_threshold": sync_threshold, "batch_size": sync_threshold // 2}
    identity = ModelIdentity(model_name)
    with closing(open_client(library)) as client:
        client.create_collection(
            "documents",
            embedding_function=None,
            configuration={"hnsw": index},
            metadata={MODEL_NAME_KEY: identity.model_name, SETTINGS_KEY: identity.settings_json},
        )


def segments(library: Path) -> list[Path]:
    """The folders of its vector indexes."""
    return sorted(path for path in library.iterdir() if path.is_dir())


def written_segment(library: Path) -> Path:
    """The one that was written to its files; Chroma leaves those of deleted collections, too."""
    (segment,) = (segment for segment in segments(library) if (segment / "index_metadata.pickle").exists())
    return segment


def lose(segment: Path, doc_ids: list[str], *, still_listed: bool = False) -> None:
    """Make searches miss records, without an error; Chroma's list of ids can still have them."""
    listed = pickle.loads((segment / "index_metadata.pickle").read_bytes())
    labels = {listed["id_to_label"][doc_id] for doc_id in doc_ids}
    _, _, _, n_nodes, stride, label_offset, _ = _HEADER.unpack_from((segment / "header.bin").read_bytes())
    nodes = bytearray((segment / "data_level0.bin").read_bytes())
    for start in range(0, n_nodes * stride, stride):
        (label,) = struct.unpack_from("<Q", nodes, start + label_offset)
        if label in labels:
            (flags,) = struct.unpack_from("<I", nodes, start)
            struct.pack_into("<I", nodes, start, flags | _DELETED)
    (segment / "data_level0.bin").write_bytes(nodes)
    if not still_listed:
        for doc_id in doc_ids:
            del listed["label_to_id"][listed["id_to_label"].pop(doc_id)]
        (segment / "index_metadata.pickle").write_bytes(pickle.dumps(listed, protocol=2))


def tear(file: Path, share: float = 0.5) -> None:
    """Cut a file off."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
