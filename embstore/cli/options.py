"""The arguments and options that several commands have, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from embstore.cli.chunking import Chunking, former_ids
from embstore.cli.files import documents_in
from embstore.cli.library import chunking_of
from embstore.cli.output import counted
from embstore.cli.paths import expanded
from embstore.cli.rows import Columns
from embstore.encoders import as_encoder
from embstore.errors import InvalidInputError
from embstore.search.base import Document, Metadata
from embstore.search.defaults import DEFAULT_COLLECTION
from embstore.stores.locations import is_url

if TYPE_CHECKING:
    from embstore.search import CachedSemanticSearchEngine

Place = Path | str
"""A library folder or a database file, or else the URL of a server."""


class PlaceType(click.Path):
    """What PATH of a command is."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Leave a URL as it is: a path would have one slash where it has two."""
        return value if is_url(value) else super().convert(value, parameter, context)


path = click.argument("path", type=PlaceType(path_type=Path))
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, in the words of the Python API.")
collection = click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="Part of the library.")
truncate_dim = click.option(
    "--truncate-dim",
    type=click.IntRange(min=1),
    metavar="N",
    help="Search N leading values of the vectors. Default: as the collection was indexed, all for a new one.",
)

columns = [
    click.option("--id-column", metavar="NAME", help="Of rows: the ids, texts or whole numbers. Default: id."),
    click.option("--text-column", metavar="NAME", help="Of rows: the texts. Default: text."),
    click.option(
        "--metadata-column",
        "metadata_columns",
        metavar="NAME",
        multiple=True,
        help="Of rows: what to filter by; may be given again. Default: all other columns.",
    ),
    click.option("--sql", metavar="QUERY", help="FILES are SQLite files, and documents the rows of this query."),
    click.option(
        "--chunk-tokens",
        type=click.IntRange(min=0),
        metavar="N",
        help="Split documents into pieces of at most N tokens of the model, a#0, a#1, ...; 0 leaves them whole. "
        "Default: as the collection was indexed, whole for a new one.",
    ),
    click.option(
        "--chunk-overlap",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        help="Let a piece begin with at most N tokens of the one before.",
    ),
]
source = [click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path)), *columns]

Command = TypeVar("Command", bound=Callable[..., Any])


def with_columns(command: Command) -> Command:
    """Give a command the options that say what the documents of rows are."""
    for option in reversed(columns):
        command = option(command)
    return command


@dataclass(frozen=True)
class Source:
    """Documents as they were read, and into which pieces they are to be split, and were when last indexed."""

    documents: list[Document]
    chunking: Chunking | None
    former: Chunking | None

    def given_to(self, engine: CachedSemanticSearchEngine) -> Given:
        """Give them as an engine takes them; its model's tokenizer says how long a piece is."""
        documents = self.documents
        if self.chunking is not None:
            documents = self.chunking.split(documents, as_encoder(engine.model, engine.model_name))
        return Given(
            [document.text for document in documents],
            [document.doc_id for document in documents],
            [document.metadata for document in documents],
        )

    def former_ids(self, engine: CachedSemanticSearchEngine, given: Given) -> list[str]:
        """List what the collection still holds of these documents as they were split before, or not split."""
        if self.chunking is None and self.former is None:
            return []
        return former_ids(engine, self.documents, given.ids, were_whole=self.former is None)


class Given(NamedTuple):
    """Texts, ids and metadata, in the order of an engine's arguments."""

    texts: list[str]
    ids: list[str]
    metadatas: list[Metadata]


def read_source(
    files: tuple[Path, ...],
    id_column: str | None,
    text_column: str | None,
    metadata_columns: tuple[str, ...],
    sql: str | None,
    chunk_tokens: int | None,
    chunk_overlap: int,
    *,
    library: Path,
    collection: str,
) -> Source:
    """Read the documents that a command was pointed at; say on stderr what was left out as no text.

    The library, which may lie among them, is left out too. What is not said of their pieces is as the collection was
    indexed.

    Raises
    ------
    InvalidInputError, MissingExtraError
        As `documents_in` and `expanded`, or the options make no sense together.
    """
    if chunk_overlap and not chunk_tokens:
        raise InvalidInputError("--chunk-overlap says how --chunk-tokens splits; give both")
    former = chunking = chunking_of(library, collection)
    if chunk_tokens is not None:
        chunking = Chunking(chunk_tokens, chunk_overlap) if chunk_tokens else None
    found, no_texts = expanded(files, leave_out=library)
    is_said = id_column or text_column or metadata_columns
    said = Columns(id_column or "id", text_column or "text", metadata_columns or None) if is_said else None
    documents = documents_in(found, said, sql)
    if no_texts:
        click.echo(f"embstore: {counted(len(no_texts), 'file')} left out, no text: {no_texts[0]}", err=True)
    if former is not None and chunking != former:
        click.echo(
            f"embstore: the collection was split by --chunk-tokens {former.n_tokens} --chunk-overlap "
            f"{former.n_overlap}; documents that are not among FILES stay as they are",
            err=True,
        )
    return Source(documents, chunking, former)
