from __future__ import annotations

from typing import Any

from benchmarks.competitors.base import BATCH, Competitor
from benchmarks.corpus import Documents, InstantEncoder, as_lists


class LlamaIndexCache(Competitor):
    """embeddings_cache with a SimpleKVStore, which is a dict in memory; persist() writes all of it as JSON."""

    name = "LlamaIndex embeddings_cache"
    requires = ("llama_index.core.base.embeddings.base", "llama_index.core.storage.kvstore")
    most_documents = 2_000

    def open(self) -> None:
        from llama_index.core.base.embeddings.base import BaseEmbedding
        from llama_index.core.storage.kvstore import SimpleKVStore

        encoder = InstantEncoder(self.documents)

        class Instant(BaseEmbedding):
            def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                return as_lists(encoder.encode(texts))

            def _get_text_embedding(self, text: str) -> list[float]:
                return self._get_text_embeddings([text])[0]

            def _get_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

        self.file = self.folder / "cache.json"
        self.store: Any = SimpleKVStore.from_persist_path(str(self.file)) if self.file.exists() else SimpleKVStore()
        self.model = Instant(embeddings_cache=self.store, embed_batch_size=BATCH)

    def fill(self) -> None:
        self.model.get_text_embedding_batch(self.documents.texts)
        self.store.persist(str(self.file))

    def read(self, documents: Documents) -> list[list[float]]:
        return self.model.get_text_embedding_batch(documents.texts)

    def get(self, doc_id: str, text: str) -> list[float]:
        return self.model.get_text_embedding(text)
