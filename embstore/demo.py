"""The demonstration: real documents, indexed three times, and a few questions.

The documents are first paragraphs of docstrings of Python's standard library, which every machine has, and of numpy
where a standard library was stripped of too many.
"""

from __future__ import annotations

import ast
import os
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embstore.errors import EmbstoreError, InvalidInputError
from embstore.search import CachedSemanticSearchEngine, IndexReport, SearchHit

N_DOCUMENTS = 1_000
N_FORGOTTEN = 10
N_HITS = 3
QUERIES = (
    "make a temporary folder that is removed afterwards",
    "run another program and get its output",
    "compare two texts line by line and show what differs",
)

# One line that says enough to be found by, and short enough to be encoded in about a minute altogether.
_MIN_CHARS, _MAX_CHARS = 40, 300
# Tests, copies of other projects and what many machines leave out.
_SKIPPED = {"dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter"}


@dataclass(frozen=True)
class DocumentedName:
    """A public function, class or method, and the first paragraph of its docstring."""

    doc_id: str
    text: str
    module: str


@dataclass(frozen=True)
class Answer:
    """A question and the documents found for it, best first."""

    query: str
    hits: tuple[SearchHit, ...]


@dataclass(frozen=True)
class DemoResult:
    """What `run` did.

    Attributes
    ----------
    runs : tuple of three IndexReport
        Everything new; `n_forgotten` documents forgotten; nothing changed.
    n_forgotten : int
    answers : tuple of Answer
    """

    runs: tuple[IndexReport, IndexReport, IndexReport]
    n_forgotten: int
    answers: tuple[Answer, ...]

    @property
    def broken_promises(self) -> list[str]:
        """What did not come out as embstore promises, a sentence each: runs that encoded too much or too little."""
        wanted = (self.runs[0].total, self.n_forgotten, 0)
        return [
            f"run {number} encoded {run.encoded} texts, expected are {n_texts}"
            for number, (run, n_texts) in enumerate(zip(self.runs, wanted, strict=True), start=1)
            if run.encoded != n_texts
        ]


def collect(n_documents: int = N_DOCUMENTS) -> list[DocumentedName]:
    """Collect documents with distinct texts from Python sources, which are read and not run.

    Returns
    -------
    list of DocumentedName
        The same on every call: the standard library's names that lie least deep, then by alphabet, then numpy's.

    Raises
    ------
    EmbstoreError
        The sources are not there.
    """
    library = Path(sysconfig.get_path("stdlib"))
    names = _distinct_names(library, library)
    if len(names) < n_documents:
        numpy = Path(np.__file__).parent
        texts = {name.text for name in names}
        names += [name for name in _distinct_names(numpy, numpy.parent) if name.text not in texts]
    if len(names) < n_documents:
        raise EmbstoreError(
            f"{library} and numpy have docstrings of {len(names)} names, {n_documents} are needed", path=str(library)
        )
    return names[:n_documents]


def _distinct_names(root: Path, import_root: Path) -> list[DocumentedName]:
    """List names with distinct texts below a folder: those that lie least deep first, then by alphabet."""
    by_text: dict[str, DocumentedName] = {}
    for file in _sources(root):
        for name in _documented_names(file, file.relative_to(import_root)):
            by_text.setdefault(name.text, name)
    by_id = {name.doc_id: name for name in by_text.values()}  # a property's getter and setter have one name
    return sorted(by_id.values(), key=lambda name: (name.doc_id.count("."), name.doc_id))


def _sources(root: Path) -> Iterator[Path]:
    # Not rglob(): it would walk through site-packages too, which can hold a hundred thousand files.
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED)
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))


def _documented_names(file: Path, relative: Path) -> Iterator[DocumentedName]:
    parts = relative.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # some distributions ship samples of broken code
        return
    for qualified, node in _public_nodes(tree, module):
        text = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
        if _MIN_CHARS <= len(text) <= _MAX_CHARS:
            yield DocumentedName(qualified, text, module)


def _public_nodes(
    parent: ast.Module | ast.ClassDef, name: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Walk functions and classes, and those in classes, whose names do not begin with an underscore."""
    if name.startswith("_") or "._" in name:
        return
    for node in parent.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            qualified = f"{name}.{node.name}"
            yield qualified, node
            if isinstance(node, ast.ClassDef):
                yield from _public_nodes(node, qualified)


def run(engine: CachedSemanticSearchEngine, documents: Sequence[DocumentedName]) -> DemoResult:
    """Index documents, forget some, index them twice more, and search.

    Parameters
    ----------
    engine : CachedSemanticSearchEngine
        One with nothing in it.
    documents : sequence of at least 10 DocumentedName
        With distinct ids and texts.

    Returns
    -------
    DemoResult

    Raises
    ------
    InvalidInputError
        There are fewer documents than are to be forgotten.
    """
    if len(documents) < N_FORGOTTEN:
        raise InvalidInputError(f"{len(documents)} documents, at least {N_FORGOTTEN} are needed")

    def index() -> IndexReport:
        return engine.index_documents(
            [document.text for document in documents],
            ids=[document.doc_id for document in documents],
            metadatas=[{"module": document.module} for document in documents],
        )

    first = index()
    forgotten = [document.doc_id for document in documents[:: len(documents) // N_FORGOTTEN]][:N_FORGOTTEN]
    engine.delete_documents(forgotten)
    engine.cache.invalidate(forgotten)
    second, third = index(), index()
    answers = tuple(Answer(query, tuple(engine.search(query, n_results=N_HITS))) for query in QUERIES)
    return DemoResult((first, second, third), len(forgotten), answers)
