"""The report of a cache: what it holds, what it has saved, and whether it is sound, on a page to read and to print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from embstore.errors import DamagedStoreError
from embstore.pictures.page import check_target, page, static, write_page
from embstore.pictures.points import check_database
from embstore.pictures.report_parts import (
    duplicates_part,
    header,
    models_part,
    problems_part,
    space_part,
    tiles,
    time_part,
)
from embstore.search.defaults import CACHE_NAME
from embstore.stored import StoredEmbeddings
from embstore.stores.base import Problem, Stats
from embstore.stores.locations import is_url, name_of

_MOST_SHARED = 10  # contents
_SHARING = 3  # documents named of each


@dataclass(frozen=True)
class SharedContent:
    """A content that several documents of a model have.

    Attributes
    ----------
    content_hash, model_name : str
    n_documents : int
    doc_ids : tuple of str
        The first of them.
    """

    content_hash: str
    model_name: str
    n_documents: int
    doc_ids: tuple[str, ...]


@dataclass(frozen=True)
class DrawnReport:
    """A report that was drawn.

    Attributes
    ----------
    path : str
    size_bytes : int
        Of the page.
    stats : Stats or None
        What it tells of the cache; None where damage prevents counting.
    shared : tuple of SharedContent
        Those that most documents have.
    problems : tuple of Problem
        What `verify` found.
    """

    path: str
    size_bytes: int
    stats: Stats | None
    shared: tuple[SharedContent, ...] = ()
    problems: tuple[Problem, ...] = field(default=())


def draw_report(path: str | Path, target: str | Path) -> DrawnReport:
    """Draw what a cache holds on a page in one file, to look at in any browser, without a network, and to print.

    Models, growth, hits and misses, the model time saved, duplicates, size, and all that `verify` finds. The cache is
    only read; everything in it is, once. The page is written whole or not at all.

    Parameters
    ----------
    path : str or Path
        A library folder or a database file.
    target : str or Path
        The page. One that embstore wrote is replaced, no other file.

    Returns
    -------
    DrawnReport

    Raises
    ------
    InvalidInputError
        Nothing is there.
    StoreError
        The file is none of embstore's, or cannot be read at all.
    TargetError
        The page cannot be written.
    """
    file = check_target(target)
    place = str(path) if is_url(path) else Path(path)
    database = place / CACHE_NAME if isinstance(place, Path) and place.is_dir() else place
    check_database(database)
    with StoredEmbeddings(database) as cache:
        problems = cache.verify()
        try:
            stats, shared = cache.stats(), _most_shared(cache)
        except DamagedStoreError:
            if not problems:
                raise
            stats, shared = None, []
    name = name_of(place)
    drawn_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    parts = [header(name, drawn_at), tiles(stats, problems)]
    if stats is not None:
        parts += [models_part(stats), time_part(stats), duplicates_part(stats, shared), space_part(stats)]
    parts.append(problems_part(problems, name))
    body = f"<main>\n{''.join(part for part in parts if part)}</main>"
    text = page(f"{name} · embstore report", body, styles=static("page.css") + static("report.css"))
    return DrawnReport(str(file), write_page(file, text), stats, tuple(shared), tuple(problems))


def _most_shared(cache: StoredEmbeddings) -> list[SharedContent]:
    """Find the contents that most documents of a model have."""
    shared: list[SharedContent] = []
    for name in dict.fromkeys(model.model_name for model in cache.models()):
        counts = Counter(document.content_hash for document in cache.documents(model_name=name))
        most = {key: n for key, n in counts.most_common(_MOST_SHARED) if n > 1}
        ids: dict[str, list[str]] = {key: [] for key in most}
        if most:
            for document in cache.documents(model_name=name):
                if len(ids.get(document.content_hash, ids)) < _SHARING and document.content_hash in ids:
                    ids[document.content_hash].append(document.doc_id)
        shared += [SharedContent(key, name, n, tuple(ids[key])) for key, n in most.items()]
    return sorted(shared, key=lambda content: -content.n_documents)[:_MOST_SHARED]
