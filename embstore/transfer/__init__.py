"""Bring a cache along, and take it away: imports, exports, and the merging of cache files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embstore.lazy import loader

if TYPE_CHECKING:
    from embstore.transfer.chroma import import_chroma
    from embstore.transfer.langchain import import_langchain
    from embstore.transfer.llm import import_llm
    from embstore.transfer.matrix import import_matrix
    from embstore.transfer.matrix_folder import export_npy
    from embstore.transfer.merging import merge
    from embstore.transfer.npy_folder import import_npy_folder
    from embstore.transfer.parquet import export_parquet, import_parquet
    from embstore.transfer.projector import export_projector
    from embstore.transfer.report import Conflict, ExportReport, Skipped, TransferReport
    from embstore.transfer.safetensors_file import export_safetensors, import_safetensors

__all__ = [
    "Conflict",
    "ExportReport",
    "Skipped",
    "TransferReport",
    "export_npy",
    "export_parquet",
    "export_projector",
    "export_safetensors",
    "import_chroma",
    "import_langchain",
    "import_llm",
    "import_matrix",
    "import_npy_folder",
    "import_parquet",
    "import_safetensors",
    "merge",
]

# Each with its format, on first use.
_load = loader(
    __name__,
    {
        "embstore.transfer.chroma": ["import_chroma"],
        "embstore.transfer.langchain": ["import_langchain"],
        "embstore.transfer.llm": ["import_llm"],
        "embstore.transfer.matrix": ["import_matrix"],
        "embstore.transfer.matrix_folder": ["export_npy"],
        "embstore.transfer.merging": ["merge"],
        "embstore.transfer.npy_folder": ["import_npy_folder"],
        "embstore.transfer.parquet": ["export_parquet", "import_parquet"],
        "embstore.transfer.projector": ["export_projector"],
        "embstore.transfer.report": ["Conflict", "ExportReport", "Skipped", "TransferReport"],
        "embstore.transfer.safetensors_file": ["export_safetensors", "import_safetensors"],
    },
)

if not TYPE_CHECKING:  # or a type checker believes that every name is here
    __getattr__ = _load
