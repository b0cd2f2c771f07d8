"""`python -m tests.docs_pages`: what the pages of docs/ say and something else knows, written into build/docs.

The pages take it in by name (`--8<-- "schema.sql"`): the schema from a new file, the promises from the counts of the
fault suite, the tables from the benchmarks, the commands from their --help, the reference from the public names. So
none of it can differ from what it is of, and none of it is in the repository twice.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

import embstore
from benchmarks import report, tables
from embstore import EmbeddingCache, integrations, pictures, transfer
from embstore.cli import main
from tests.faults.readme import promises
from tests.faults.tally import read_results

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = ROOT / "build" / "docs"

HELP_COLUMNS = 82  # as wide as a block of code on a page
REFERENCE = ("cache", "search", "transfer", "pictures", "integrations", "errors")
_MAIN = {"cache": ["EmbeddingCache", "StoredEmbeddings"], "search": ["CachedSemanticSearchEngine"]}


def write(folder: Path) -> None:
    """Write all of it anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pieces().items():
        (folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def pieces() -> dict[str, str]:
    """Give every piece by the name of its file."""
    return {
        "schema.sql": schema(),
        "promises.md": promises(read_results()).replace("\n  - ", "\n    - "),  # as Python-Markdown nests lists
        "not-promised.md": section("What is not"),
        "benchmarks.md": tables.markdown(report.read(ROOT / "benchmarks" / "results" / "benchmarks.json")),
        "commands.md": "\n".join(_help(main, click.Context(main, info_name="embstore"))),
        "recipes.md": "\n".join(f"- [{title}]({file.name})" for file, title in recipes()),
        **{f"reference-{page}.md": _directives(names) for page, names in public_names().items()},
    }


def schema() -> str:
    """Give the statements that made a new file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.db"
        EmbeddingCache(path).close()
        connection = sqlite3.connect(path)
        rows = connection.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '%sqlite_%' ORDER BY rowid"
        ).fetchall()
        connection.close()
    return "\n".join(f"{sql};" for (sql,) in rows)


def section(heading: str) -> str:
    """Give what stands in the README under a heading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, rest = readme.partition(f"\n## {heading}\n")
    assert found, f"README.md has no section {heading!r}, which docs/ takes in"
    return rest.partition("\n## ")[0].strip()


def recipes() -> list[tuple[Path, str]]:
    """Give the pages of docs/recipes and their titles."""
    files = sorted(file for file in (DOCS / "recipes").glob("*.md") if file.name != "index.md")
    return [(file, file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")) for file in files]


def public_names() -> dict[str, list[str]]:
    """Give the public names, each with its module, by the page of the reference that they are on."""
    pages: dict[str, list[str]] = {page: [] for page in REFERENCE}
    for package in (embstore, transfer, pictures):
        for name in package.__all__:
            value = getattr(package, name)
            room = value.__module__.split(".")[1]
            pages[room if room in pages else "cache"].append(f"{value.__module__}.{name}")
    for file in sorted(Path(integrations.__file__).parent.glob("[!_]*.py")):
        pages["integrations"].append(f"{integrations.__name__}.{file.stem}")
    for page, first in _MAIN.items():
        pages[page].sort(key=lambda name: name.rpartition(".")[2] not in first)
    return pages


def _directives(names: list[str]) -> str:
    """Give what mkdocstrings puts the docstrings in place of; a module with those of all that it holds."""
    return "\n\n".join(f"::: {name}" for name in names)


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = HELP_COLUMNS
    yield from (f"## {context.command_path}", "", "```text", command.get_help(context), "```", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _help(inner, click.Context(inner, info_name=name, parent=context))


if __name__ == "__main__":
    write(GENERATED)
