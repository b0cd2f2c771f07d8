"""The locks on a file, as another process sees them.

python -m tests.faults.locks PATH
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

# Where SQLite locks, whatever the size of the file (https://sqlite.org/src/file?name=src/os.h, PENDING_BYTE).
PENDING_BYTE = 0x40000000
RESERVED_BYTE = PENDING_BYTE + 1

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of Linux on 64 bits


def locked_by(path: Path) -> int:
    """Give the number of the process that has the lock of a writer, 0 where none has it; asked from another process."""
    done = subprocess.run([sys.executable, "-S", __file__, path], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main(path: str) -> None:
    import fcntl

    descriptor = os.open(path, os.O_RDWR)
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, RESERVED_BYTE, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    print(0 if kind == fcntl.F_UNLCK else pid)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
