"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from embstore import __version__
from embstore.stores.sqlite_errors import sqlite3

PACKAGES = (
    "numpy",
    "sqlite-utils",
    "chromadb",
    "diskcache",
    "langchain-classic",
    "langchain-community",
    "llama-index-core",
    "llm",
    "mteb",
    "sentence-transformers",
    "torch",
)


def describe(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Give versions and machine, without a name that would tell whose it is."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": versions(packages),
        "machine": machine(),
    }


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    found = {"embstore": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, OSError, ValueError):
        return None
