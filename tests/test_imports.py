"""A process may begin with any module: one that unpickles an object imports the module of its class first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import embstore

ROOT = Path(embstore.__file__).parent
PACKAGES = ("", "encoders")

IMPORT_EACH_FIRST = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    for module in [module for module in sys.modules if module.partition(".")[0] == "embstore"]:
        del sys.modules[module]
    try:
        import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


def test_any_module_can_be_imported_first() -> None:
    files = sorted(file for package in PACKAGES for file in (ROOT / package).glob("*.py"))
    names = [".".join(("embstore", *file.relative_to(ROOT).with_suffix("").parts)) for file in files]
    modules = [name.removesuffix(".__init__") for name in names]
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH_FIRST, *modules], capture_output=True, text=True, check=False, timeout=200
    )
    assert (ended.stdout, ended.returncode) == ("", 0), ended.stderr
