"""Who embstore is compared with: one small file each, all by their own public API."""

from __future__ import annotations

import importlib
import warnings

from benchmarks.competitors.base import Competitor
from benchmarks.competitors.chroma_collection import ChromaCollection
from benchmarks.competitors.disk_cache import DiskCache
from benchmarks.competitors.embstore_cache import EmbstoreCache, EmbstoreInOrder
from benchmarks.competitors.json_npy import JsonNpy
from benchmarks.competitors.langchain_file import LangChainFiles
from benchmarks.competitors.langchain_sql import LangChainSQL
from benchmarks.competitors.limit import Limit
from benchmarks.competitors.llama_index_kv import LlamaIndexCache
from benchmarks.competitors.llm_collection import LLMCollection
from benchmarks.competitors.mteb_numpy import MTEBNumpyCache

COMPETITORS: tuple[type[Competitor], ...] = (
    MTEBNumpyCache,
    DiskCache,
    LLMCollection,
    LlamaIndexCache,
    JsonNpy,
    LangChainSQL,
    LangChainFiles,
    ChromaCollection,
)

__all__ = ["COMPETITORS", "Competitor", "EmbstoreCache", "EmbstoreInOrder", "Limit", "installed"]


def installed(competitors: tuple[type[Competitor], ...]) -> tuple[list[type[Competitor]], list[str]]:
    """Tell who can take part, and of the others by name what they lack."""
    present, notes = [], []
    for competitor in competitors:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of deprecations in other projects
                for module in competitor.requires:
                    importlib.import_module(module)
        except ImportError as error:
            notes.append(f'skipped: {competitor.name} ({error}); pip install "embstore[bench]"')
        else:
            present.append(competitor)
    return present, notes
