from __future__ import annotations

from benchmarks.competitors.base import BATCH, Competitor
from benchmarks.corpus import Documents, InstantEncoder, Vectors
from benchmarks.results import OURS
from embstore import EmbeddingCache


class EmbstoreCache(Competitor):
    name = OURS
    durable = "yes"

    def open(self) -> None:
        self.encoder = InstantEncoder(self.documents)
        self.cache = EmbeddingCache(self.folder / "embeddings.db")

    def fill(self) -> None:
        self.read(self.documents)

    def read(self, documents: Documents) -> Vectors:
        return self.cache.get_many(documents.ids, documents.texts, self.encoder, batch_size=BATCH, progress=False)

    def get(self, doc_id: str, text: str) -> Vectors:
        return self.cache.get(doc_id, text, self.encoder)

    def close(self) -> None:
        self.cache.close()


class EmbstoreInOrder(EmbstoreCache):
    """Filled a batch a call, so that the order of the file is that of the documents.

    One call for all encodes the longest first, and stores groups in that order.
    """

    def fill(self) -> None:
        for batch in self.documents.batches(BATCH):
            self.read(batch)
