"""`python -m tests.faults.readme`: put what the fault suite has shown into the README, with its counts.

What is promised is written here, beside the faults that each promise was tried with, and their counts are those of
`results.json`: none is written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.tally import read_results

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- python -m tests.faults.readme: begin -->"
END = "<!-- end of faults -->"

PROMISES = {
    "What a call returned survives `kill -9`, whatever the process was at, and a power cut. A batch is there whole or "
    "not at all, the next opening takes less than a second, and nothing lies beside the file then.": [
        "killed while writing",
        "killed while another's journal is rolled back",
        "killed while compacting",
        "killed while migrating",
        "killed while backing up",
        "power lost while writing",
        "power lost, control without fsync",
    ],
    "Where the disk is full, or a call of the operating system fails, there is an error of ours and the state before, "
    "or success and the state after. Only where the folder cannot be synced after a commit there is an error and the "
    "state after, and `UnconfirmedWriteError` says so.": [
        "a full disk",
        "a limit to the size of files",
        "a system call fails",
    ],
    "Damage gives no wrong vector and no incomplete answer, and `verify()` sees each row that it lost. `repair` keeps "
    "every row that is whole, and names the others, or counts those whose names are gone too.": [
        "damage at rest, bit flips",
        "damage at rest, damage of many bytes",
        "damage at rest, truncations",
        "repair after bit flips",
        "repair after damage of many bytes",
        "repair after truncations",
    ],
    "Threads, processes and forks may share a file, and make it together. None sees half a batch, and none is told of "
    "a lock.": [
        "processes that put and read the same keys",
        "threads of one cache",
        "processes that create a file together",
        "forks with an open cache",
        "multiprocessing by fork with an open cache",
        "multiprocessing by spawn with an open cache",
        "locks dropped",
        "backed up under two writers",
    ],
    "Nothing of a batch is stored in which an encoder returned too few rows, too many, NaN, another dimension or no "
    "numbers, and no row is shifted. Batches before it stay. A model that was swapped behind its name is refused.": [
        "bad batches",
        "float vectors of any form",
        "a model swapped behind its name",
    ],
    "Nothing that a file holds is run, and reading it takes bounded memory and time: `SECURITY.md` says what is "
    "trusted.": ["hostile files", "hostile folders", "fuzz"],
    "What can only be read is read, nothing is made beside it, and files are made for their owner alone.": [
        "read-only",
        "file modes",
    ],
    "Ctrl-C and cancelled threads leave nothing behind, clocks may jump, and a process may run for long.": [
        "Ctrl-C in get_many",
        "Ctrl-C in index_documents (chroma)",
        "Ctrl-C in index_documents (exact)",
        "a cancelled thread in get_many",
        "a cancelled thread in index_documents (chroma)",
        "a cancelled thread in index_documents (exact)",
        "a clock that jumps ten years",
        "a soak",
    ],
}

Results = Mapping[str, Mapping[str, int]]


def promises(results: Results) -> str:
    """Give each promise, and what came of the faults that it was tried with, in Markdown."""
    lines = []
    for promise, faults in PROMISES.items():
        lines += [f"- {promise}", *(f"  - *{fault}*: {_in_words(results[fault])}" for fault in faults)]
    return "\n".join(lines)


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{f'{n:,}' if n else 'no'} {name.replace('_', ' ')}" for name, n in counts.items())


def write_into(readme: Path, results: Results) -> None:
    """Put the promises in place of those that stand between two comments."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{readme} has no {BEGIN} ... {END}"
    readme.write_text(f"{before}{BEGIN}\n{promises(results)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_into(README, read_results())
