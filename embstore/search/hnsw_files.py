"""Whether the files of one of Chroma's vector indexes agree, told without loading them.

Chroma 1.5 writes them one after the other in place, and takes what an unclean end leaves of that as it is: it raises,
misses records, ends with SIGSEGV, or goes on for ever when it is next written to. The files are those of hnswlib
(``HierarchicalNSW::persistDirty``), and a pickled dict of which id has which label in the graph.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

_HEADER = struct.Struct("<i6QiI3QdQ")
_VERSION = 1
_DELETED = 0x10000  # in the word that holds the number of a node's neighbours
_DEGREE = 0xFFFF
_WORD = 4


class _FaultError(Exception):
    """What does not agree."""


@dataclass(frozen=True)
class _Header:
    """What header.bin tells of the other files; sizes in bytes."""

    version: int
    offset_level_0: int
    capacity: int
    n_nodes: int
    node_size: int
    label_offset: int
    vector_offset: int
    top_level: int
    entry_point: int
    max_degree: int
    max_degree_0: int
    m: int
    level_factor: float
    ef_construction: int


def find_fault(segment: Path) -> str | None:
    """Tell what is wrong with the files of a vector index.

    Parameters
    ----------
    segment : Path
        Its folder, which need not be there.

    Returns
    -------
    str or None
        None where nothing is, where nothing was written yet, or where the files are of a version not known here.
    """
    if not (segment / "header.bin").exists():
        return None
    try:
        _check(segment)
    except _FaultError as fault:
        return str(fault)
    except Exception as error:  # unpickling and what it gave can fail in any way
        return f"{type(error).__name__}: {error}"
    return None


def _check(segment: Path) -> None:
    content = (segment / "header.bin").read_bytes()
    if len(content) >= _WORD and struct.unpack_from("<i", content)[0] != _VERSION:
        return
    _demand(len(content) >= _HEADER.size, "header.bin is cut off")
    header = _Header(*_HEADER.unpack_from(content))
    if not header.n_nodes and not (segment / "index_metadata.pickle").exists():
        return
    _demand((segment / "length.bin").stat().st_size >= header.n_nodes * _WORD, "length.bin is cut off")
    labels = _check_nodes(segment, header)
    _check_upper_levels(segment, header)
    _check_ids(segment, labels)


def _check_nodes(segment: Path, header: _Header) -> npt.NDArray[np.uint64]:
    """Check the graph that all nodes are in, and give the labels of those that are not deleted."""
    n, size = header.n_nodes, header.node_size
    _demand((segment / "data_level0.bin").stat().st_size >= n * size, "data_level0.bin is cut off")
    _demand(n == 0 or header.entry_point < n, "header.bin names an entry point that is not there")
    _demand(header.vector_offset == (header.max_degree_0 + 1) * _WORD, "header.bin contradicts itself")
    if not n:
        return np.empty(0, dtype=np.uint64)
    nodes = np.memmap(segment / "data_level0.bin", dtype=np.uint8, mode="r", shape=(n, size))
    links = np.ascontiguousarray(nodes[:, : header.vector_offset]).view("<u4")
    labels = np.ascontiguousarray(nodes[:, header.label_offset :]).view("<u8")[:, 0]
    degrees = links[:, 0] & _DEGREE
    _demand(bool((degrees <= header.max_degree_0).all()), "data_level0.bin: a node has too many neighbours")
    is_link = np.arange(header.max_degree_0) < degrees[:, np.newaxis]
    _demand(bool((links[:, 1:][is_link] < n).all()), "data_level0.bin: a neighbour is not there")
    _demand(len(np.unique(labels)) == n, "data_level0.bin: two nodes have one label")
    alive: npt.NDArray[np.uint64] = labels[(links[:, 0] & _DELETED) == 0]
    return alive


def _check_upper_levels(segment: Path, header: _Header) -> None:
    """Check the graphs that some nodes are in too: of each node a length in bytes, and a list a level."""
    words = np.fromfile(segment / "link_lists.bin", dtype="<u4").tolist()
    list_words = header.max_degree + 1
    start = 0
    for _ in range(header.n_nodes):
        _demand(start < len(words), "link_lists.bin is cut off")
        n_lists, rest = divmod(words[start], list_words * _WORD)
        end = start + 1 + n_lists * list_words
        _demand(not rest and n_lists <= max(header.top_level, 0), "link_lists.bin: a node has an impossible level")
        _demand(end <= len(words), "link_lists.bin is cut off")
        for at in range(start + 1, end, list_words):
            _demand(words[at] <= header.max_degree, "link_lists.bin: a node has too many neighbours")
            neighbours = words[at + 1 : at + 1 + words[at]]
            _demand(all(node < header.n_nodes for node in neighbours), "link_lists.bin: a neighbour is not there")
        start = end


def _check_ids(segment: Path, labels: npt.NDArray[np.uint64]) -> None:
    """Check that the list of ids was written after the graph, and for it."""
    _demand((segment / "index_metadata.pickle").exists(), "index_metadata.pickle is not there")
    with (segment / "index_metadata.pickle").open("rb") as file:
        listed: dict[str, Any] = _PlainUnpickler(file).load()
    id_of, label_of = listed["label_to_id"], listed["id_to_label"]
    _demand(id_of == {label: doc_id for doc_id, label in label_of.items()}, "index_metadata.pickle contradicts itself")
    _demand(set(labels.tolist()) == id_of.keys(), "index_metadata.pickle is of another state than data_level0.bin")
    _demand(max(id_of, default=0) <= listed["total_elements_added"], "index_metadata.pickle lost count")


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, strings and numbers, and nothing that could run."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise _FaultError(f"index_metadata.pickle wants {module_name}.{global_name}")


def _demand(holds: bool, fault: str) -> None:
    if not holds:
        raise _FaultError(fault)
