"""`python -m benchmarks.pages_memory FILE MODEL`: by how many MB reading in pages raises this process's peak."""

from __future__ import annotations

import sys
from pathlib import Path

from embstore import EmbeddingCache

STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """Give the most memory that this process has held.

    Not `ru_maxrss` on Linux: it starts at the peak of the process that started this one.
    """
    if STATUS.exists():
        line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def main() -> None:
    file, model_name = sys.argv[1:]
    with EmbeddingCache(file) as cache:
        before = peak_bytes()
        n_rows = sum(len(vectors) for _, vectors in cache.iter_matrix(model_name))
        after = peak_bytes()
        assert n_rows == len(cache)
    print("unknown" if before is None or after is None else (after - before) / 1e6)


if __name__ == "__main__":
    main()
