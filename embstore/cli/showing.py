"""The command that shows what is stored of one document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from embstore import EmbeddingCache
from embstore.cli import library as lib
from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.output import print_json_rows, printable, settings_in_words
from embstore.errors import LibraryLockedError, UnknownDocumentError
from embstore.search.exact_records import metadata_of
from embstore.stores.base import DocumentInfo

_SHOW_EPILOG = """\b
What is known of a file that was indexed:
  embstore show my-library notes/git.md
"""

_TEXT_CHARS = 1_000
_NAME_CHARS = 14


@dataclass(frozen=True)
class ShownDocument:
    """All that is known of a document under one model and in one collection.

    `vector` holds its leading values; `text` and `metadata` are None where no index has them, or another text.
    """

    doc_id: str
    collection: str
    content_hash: str
    model_name: str
    settings: dict[str, Any]
    dim: int
    dtype: str
    vector: list[float]
    metadata: dict[str, Any] | None
    text: str | None


@main.command(epilog=_SHOW_EPILOG)
@options.path
@click.argument("doc_id")
@click.option("--model", metavar="NAME", help="Only what is stored of this model_name.")
@click.option("--collection", help="Only in this collection.")
@click.option("--values", "n_values", type=click.IntRange(min=0), default=5, show_default=True, help="Of the vector.")
@options.as_json
def show(
    path: options.Place, doc_id: str, model: str | None, collection: str | None, n_values: int, as_json: bool
) -> None:
    """Show what is stored of the document DOC_ID in PATH.

    PATH is a library, a database file or the URL of a server. The text and the metadata are shown where an index holds
    them: a cache keeps no texts.
    """
    with EmbeddingCache(lib.database_in(path)) as cache:
        found = list(cache.documents(doc_id=doc_id, model_name=model, collection=collection))
        if not found:
            raise UnknownDocumentError(
                f"no document {doc_id!r:.80} is stored in {cache.location!r}; `embstore ls` lists all", doc_id=doc_id
            )
        shown = [_shown(cache, path, info, n_values) for info in found]
    if as_json:
        print_json_rows(shown)
        return
    for number, document in enumerate(shown):
        click.echo("\n" * (number > 0) + "\n".join(_lines(document)))


def _shown(cache: EmbeddingCache, path: options.Place, info: DocumentInfo, n_values: int) -> ShownDocument:
    _, vectors = cache.matrix(
        info.model_name,
        doc_ids=[info.doc_id],
        settings={**info.settings, "dtype": info.dtype},
        collection=info.collection,
    )
    text, metadata = _indexed(cache, path, info)
    return ShownDocument(
        doc_id=info.doc_id,
        collection=info.collection,
        content_hash=info.content_hash,
        model_name=info.model_name,
        settings=info.settings,
        dim=info.dim,
        dtype=info.dtype,
        vector=vectors[0, :n_values].tolist(),
        metadata=metadata,
        text=text,
    )


def _indexed(
    cache: EmbeddingCache, path: options.Place, info: DocumentInfo
) -> tuple[str | None, dict[str, Any] | None]:
    """Give the text and the metadata that an index has of a document, where it has them of this very content."""
    kept = cache.store.texts.find(info.collection, [info.doc_id]).get(info.doc_id)
    if kept is not None:
        return (kept.text, dict(metadata_of(kept))) if kept.content_hash.hex() == info.content_hash else (None, None)
    try:
        library = path if isinstance(path, Path) and path.is_dir() else None
        record = None if library is None else lib.chroma_record(library, info.collection, info.doc_id)
    except LibraryLockedError:
        click.echo("embstore: the text and the metadata are in an index that another process has open", err=True)
        record = None
    if record is None or record.content_hash != info.content_hash:
        return None, None
    return record.document, dict(record.metadata)


def _lines(document: ShownDocument) -> list[str]:
    more = ", ..." if len(document.vector) < document.dim else ""
    fields = {
        "doc_id": document.doc_id,
        "collection": document.collection,
        "content_hash": document.content_hash,
        "model_name": document.model_name,
        "settings": settings_in_words(document.settings),
        "vector": f"{document.dim} values of {document.dtype}: "
        + ", ".join(f"{value:.6g}" for value in document.vector)
        + more,
        "metadata": settings_in_words(document.metadata or {}),
        "text": "not kept here" if document.text is None else _cut(" ".join(document.text.split())),
    }
    return [f"{name:<{_NAME_CHARS}}{printable(value)}".rstrip() for name, value in fields.items()]


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}…"
