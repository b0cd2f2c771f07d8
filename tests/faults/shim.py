"""The library that fails calls, compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def can_compile() -> bool:
    return sys.platform.startswith("linux") and COMPILER is not None


needs_shim = pytest.mark.skipif(not can_compile(), reason="needs Linux's LD_PRELOAD and a C compiler")


def compiled(folder: Path) -> Path:
    """Compile it into a folder."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", library, source, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return library
