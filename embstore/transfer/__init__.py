"""Bring a cache along, and take it away: imports, exports, and the merging of cache files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embstore.lazy import loader

if TYPE_CHECKING:
    from embstore.transfer.merging import merge
    from embstore.transfer.npy_folder import import_npy_folder
    from embstore.transfer.report import Conflict, ExportReport, Skipped, TransferReport

__all__ = [
    "Conflict",
    "ExportReport",
    "Skipped",
    "TransferReport",
    "import_npy_folder",
    "merge",
]

# Each with its format, on first use.
__getattr__ = loader(
    __name__,
    {
        "embstore.transfer.merging": ["merge"],
        "embstore.transfer.npy_folder": ["import_npy_folder"],
        "embstore.transfer.report": ["Conflict", "ExportReport", "Skipped", "TransferReport"],
    },
)
