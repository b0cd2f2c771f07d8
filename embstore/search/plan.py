"""What indexing documents would do: one comparison of what is given with what an index holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from embstore.search.base import Document, Metadata, MetadataPatch, MetadataValue, StoredDocument


@dataclass(frozen=True)
class Plan:
    """Documents by what is to be done with them, each list in the order given.

    Attributes
    ----------
    added : list of Document
        The index does not hold the id.
    updated : list of Document
        It holds another text, or a record of another program, under the id.
    metadata_patches : dict of doc_id to MetadataPatch
        It holds the text with other metadata.
    unchanged : list of Document
        It holds the document as it is.
    """

    added: list[Document] = field(default_factory=list)
    updated: list[Document] = field(default_factory=list)
    metadata_patches: dict[str, MetadataPatch] = field(default_factory=dict)
    unchanged: list[Document] = field(default_factory=list)


def make_plan(documents: Iterable[Document], stored: Mapping[str, StoredDocument]) -> Plan:
    """Decide what is to be done with documents of distinct ids.

    Parameters
    ----------
    documents : iterable of Document
    stored : mapping of doc_id to StoredDocument
        What the index holds of them.

    Returns
    -------
    Plan
    """
    plan = Plan()
    for document in documents:
        held = stored.get(document.doc_id)
        if held is None:
            plan.added.append(document)
        elif held.content_hash != document.content_hash:
            plan.updated.append(document)
        elif patch := metadata_patch(held.metadata, document.metadata):
            plan.metadata_patches[document.doc_id] = patch
        else:
            plan.unchanged.append(document)
    return plan


def metadata_patch(old: Metadata, new: Metadata) -> MetadataPatch:
    """Give what turns one metadata into another: {} where they are the same.

    1, 1.0 and True are three values: a filter tells them apart.
    """
    patch: MetadataPatch = {key: value for key, value in new.items() if key not in old or not _same(old[key], value)}
    patch.update(dict.fromkeys(old.keys() - new.keys()))
    return patch


def _same(a: MetadataValue, b: MetadataValue) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b
