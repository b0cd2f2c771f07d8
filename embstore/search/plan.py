"""What indexing documents would do: one comparison of what is given with what an index holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from embstore.errors import CollectionMismatchError
from embstore.search.base import (
    Document,
    IndexPlan,
    Metadata,
    MetadataPatch,
    MetadataValue,
    StoredDocument,
    VectorSource,
)
from embstore.search.given import Window

_HEX_DIGITS = 16  # of a content hash, enough to tell texts apart in a count


@dataclass(frozen=True)
class Plan:
    """Documents by what is to be done with them, each list in the order given; what is as given is not in it.

    Attributes
    ----------
    added : list of Document
        The index does not hold the id.
    updated : list of Document
        It holds another text under the id.
    metadata_patches : dict of doc_id to MetadataPatch
        It holds the text with other metadata.
    foreign : list of str
        The ids under which it holds a record of another program, which is not to be touched.
    """

    added: list[Document] = field(default_factory=list)
    updated: list[Document] = field(default_factory=list)
    metadata_patches: dict[str, MetadataPatch] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    def __add__(self, other: Plan) -> Plan:
        """Give a plan for the documents of two, none of which is in both."""
        return Plan(
            self.added + other.added,
            self.updated + other.updated,
            self.metadata_patches | other.metadata_patches,
            self.foreign + other.foreign,
        )

    def __len__(self) -> int:
        """Count the documents that something is to be done with."""
        return len(self.added) + len(self.updated) + len(self.metadata_patches)

    @property
    def needed(self) -> list[Document]:
        """The documents whose vectors are needed."""
        return self.updated + self.added


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
        elif held.content_hash is None:
            plan.foreign.append(document.doc_id)
        elif held.content_hash != document.content_hash:
            plan.updated.append(document)
        elif patch := metadata_patch(held.metadata, document.metadata):
            plan.metadata_patches[document.doc_id] = patch
    return plan


def check_none_foreign(doc_ids: Sequence[str], collection_name: str) -> None:
    """Raise CollectionMismatchError where documents have the ids of records that another program wrote."""
    if doc_ids:
        raise CollectionMismatchError(
            f"doc_id {doc_ids[0]!r:.80} (and {len(doc_ids) - 1} more): collection {collection_name!r} holds a record "
            f"of another program under this id, which is not replaced; give the document another id, use another "
            f"collection_name=, or remove the record by delete_documents",
            collection_name=collection_name,
            doc_ids=list(doc_ids),
        )


class PlanTotals:
    """The totals of the plans of a call; of the texts in them only short hashes are kept.

    Parameters
    ----------
    source : VectorSource
        Asked for what it would encode; the model is not called.
    """

    def __init__(self, source: VectorSource) -> None:
        self._source = source
        self._counts: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._to_encode: set[bytes] = set()

    def watched(self, windows: Iterable[Window]) -> Iterator[Window]:
        """Give windows on, and count the texts that come again in them."""
        for window in windows:
            keys = {_key(document) for document in window.documents}
            n_documents = len(window.documents) + window.n_repeated
            self._counts["duplicates"] += n_documents - len(keys - self._seen)
            self._seen |= keys
            yield window

    def add(self, n_unchanged: int, plan: Plan) -> None:
        """Count documents that are as given, and those of a plan with the texts that the model would encode."""
        self._counts.update(
            new=len(plan.added),
            changed=len(plan.updated),
            metadata_only=len(plan.metadata_patches),
            unchanged=n_unchanged,
        )
        key_of = {document.text: _key(document) for document in plan.needed}
        if not self._source.keeps_vectors:
            self._to_encode.clear()  # a text of an earlier plan is encoded once more
        for text in self._source.missing(list(key_of)) if key_of else ():
            if key_of[text] not in self._to_encode:
                self._to_encode.add(key_of[text])
                self._counts.update(to_encode=1, n_chars=len(text))

    def index_plan(self, n_to_remove: int) -> IndexPlan:
        """Give the totals."""
        documents = {name: self._counts[name] for name in ("new", "changed", "metadata_only", "unchanged")}
        to_encode, n_chars = self._counts["to_encode"], self._counts["n_chars"]
        return IndexPlan(
            total=sum(documents.values()),
            **documents,
            duplicates=self._counts["duplicates"],
            to_remove=n_to_remove,
            to_encode=to_encode,
            estimated_s=self._source.estimate_s(n_chars) if to_encode else 0.0,
        )


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


def _key(document: Document) -> bytes:
    return bytes.fromhex(document.content_hash[:_HEX_DIGITS])
