from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from benchmarks.competitors.base import BATCH, Competitor
from benchmarks.corpus import Documents, InstantEncoder, Vectors

# llm has no call that gives many vectors back; its table is documented, and so is np.frombuffer(..., "<f4") of it.
READ_ALL = """
SELECT content_hash, embedding
FROM embeddings
WHERE collection_id = ?
"""
READ_ONE = (
    READ_ALL
    + """
    AND content_hash = ?
"""
)


class LLMCollection(Competitor):
    """Vectors are read by the content hash that llm keeps, all of the collection in one statement."""

    name = "llm collection"
    requires = ("llm", "sqlite_utils")
    durable = "yes"

    def open(self) -> None:
        import llm
        import sqlite_utils

        encoder = InstantEncoder(self.documents)

        class Model(llm.EmbeddingModel):  # type: ignore[name-defined,misc]
            model_id = encoder.model_name
            batch_size = BATCH

            def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
                return iter(encoder.encode([str(item) for item in items]).tolist())

        self.database = sqlite_utils.Database(self.folder / "embeddings.db")
        self.collection = llm.Collection("documents", self.database, model=Model())

    def fill(self) -> None:
        self.collection.embed_multi(zip(self.documents.ids, self.documents.texts, strict=True), batch_size=BATCH)

    def read(self, documents: Documents) -> Vectors:
        stored = dict(self.database.execute(READ_ALL, [self.collection.id]).fetchall())
        blobs = [stored[self.collection.content_hash(text)] for text in documents.texts]
        return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1)

    def get(self, doc_id: str, text: str) -> Vectors:
        content_hash = self.collection.content_hash(text)
        ((_, blob),) = self.database.execute(READ_ONE, [self.collection.id, content_hash]).fetchall()
        return np.frombuffer(blob, dtype="<f4")

    def close(self) -> None:
        self.database.close()
