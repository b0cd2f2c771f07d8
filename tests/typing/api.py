"""How the public interface is typed: read by `mypy --strict` in `make check`, and never run.

Each call is one that users write. `assert_type` says what it gives them. The `type: ignore` comments stand beside
mistakes that have to be noticed: where one is noticed no longer, mypy says that its comment is unused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import embstore
from embstore import (
    AsyncEmbeddingCache,
    CachedSemanticSearchEngine,
    DamagedStoreError,
    DayUsage,
    DocumentInfo,
    EmbeddingCache,
    EmbstoreError,
    Encoder,
    FillReport,
    IndexPlan,
    IndexReport,
    LostRow,
    ModelIdentity,
    ModelInfo,
    ModelUsage,
    Problem,
    PruneReport,
    ReconcileReport,
    RepairReport,
    SearchHit,
    SemanticSearchEngine,
    Stats,
    StoredEmbeddings,
    TooManyRemovalsError,
    cache_stats,
    content_hash,
    repair,
)
from embstore.integrations.openai_compatible import OpenAICompatibleEncoder
from embstore.pictures import DrawnMap, DrawnReport, draw_map, draw_report
from embstore.transfer import (
    ExportReport,
    TransferReport,
    export_npy,
    export_parquet,
    export_projector,
    export_safetensors,
    import_chroma,
    import_langchain,
    import_llm,
    import_matrix,
    import_npy_folder,
    import_parquet,
    import_safetensors,
    merge,
)

Vectors = npt.NDArray[np.float32]


class Lengths:
    model_name = "lengths"

    def encode(self, texts: list[str], /) -> npt.NDArray[np.float64]:
        return np.array([[len(text)] for text in texts], dtype=np.float64)


def lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] for text in texts]


async def a_cache_is_awaited(model: Encoder) -> None:
    async with AsyncEmbeddingCache("embeddings.db", n_threads=2, dtype="float16") as cache:
        assert_type(await cache.get("a", "text", model), Vectors)
        assert_type(await cache.get_many(["a"], ["text"], model, batch_size=8), Vectors)
        assert_type(await cache.matrix("lengths", dim=1), tuple[list[str], Vectors])
        assert_type(await cache.stats(), Stats)
        assert_type(await cache.run(len), int)
        async for doc_ids, _ in cache.iter_matrix("lengths", batch_rows=8):
            assert_type(doc_ids, list[str])
        await cache.get("a", 1, model)  # type: ignore[arg-type]


def an_encoder_is_whatever_encodes(model: Encoder) -> None:
    assert_type(model.encode(["text"]), Any)


an_encoder_is_whatever_encodes(Lengths())
an_encoder_is_whatever_encodes(OpenAICompatibleEncoder("small", dimensions=512))
an_encoder_is_whatever_encodes(lengths)  # type: ignore[arg-type]


def a_cache(cache: EmbeddingCache, ids: Sequence[str], texts: Iterator[str]) -> None:
    assert_type(cache.path, Path)
    assert_type(len(cache), int)
    assert_type("a" in cache, bool)

    assert_type(cache.get("a", "text", Lengths()), Vectors)
    assert_type(cache.get("a", "text", embedding_model="all-MiniLM-L6-v2"), Vectors)
    assert_type(cache.get_many(ids, texts, lengths, model_name="lengths", collection="notes", batch_size=64), Vectors)
    assert_type(cache.embed(texts, Lengths(), progress=False), Vectors)
    assert_type(cache.embed_query("text", Lengths()), Vectors)
    assert_type(cache.embed_query(["text"], Lengths()), Vectors)
    assert_type(cache.canary(Lengths()), Vectors | None)
    assert_type(cache.put_many(ids, texts, [[1.0]], model_name="lengths", settings={"revision": "1"}), int)

    report = cache.fill(ids, texts, Lengths(), role="query")
    assert_type(report, FillReport)
    assert_type(report.vectors, Vectors)
    assert_type(report.n_encoded, int)
    assert_type(report.encode_s, float)

    cache.get("a", 1, Lengths())  # type: ignore[arg-type]
    cache.get_many(ids, texts, Lengths(), "documents")  # type: ignore[call-arg]
    cache.embed(texts, Lengths(), role="documents")  # type: ignore[arg-type]


def what_is_stored(cache: StoredEmbeddings) -> None:
    assert_type(cache.matrix("lengths", doc_ids=["a"], dim=128), tuple[list[str], Vectors])
    assert_type(cache.iter_matrix("lengths", batch_rows=1000, shard=(0, 8)), Iterator[tuple[list[str], Vectors]])
    assert_type(cache.documents(model_name="lengths"), Iterator[DocumentInfo])
    assert_type(cache.models(), list[ModelInfo])
    assert_type(cache.stats(), Stats)
    assert_type(cache.stats().models, tuple[ModelInfo, ...])
    assert_type(cache.models()[0].usage, ModelUsage)
    assert_type(cache.models()[0].usage.days, tuple[DayUsage, ...])
    assert_type(cache.invalidate("a"), int)
    assert_type(cache.invalidate(["a", "b"], collection="notes"), int)
    assert_type(cache.clear(model_name="lengths"), int)
    assert_type(cache.prune(standalone=True, dry_run=True), PruneReport)
    assert_type(cache.verify(), list[Problem])
    assert_type(cache.backup(Path("backup.db")), list[Problem])
    assert_type(cache.compact(), int)
    assert_type(cache_stats(cache), dict[str, int | float])

    cache.get("a", "text", Lengths())  # type: ignore[attr-defined]


def a_context_gives_what_was_opened() -> None:
    with EmbeddingCache(Path("embeddings.db"), dtype="float16", timeout_s=1, check_canary=False) as cache:
        assert_type(cache, EmbeddingCache)
    with StoredEmbeddings("embeddings.db") as stored:
        assert_type(stored, StoredEmbeddings)
    with CachedSemanticSearchEngine(path=Path("library"), index="exact", truncate_dim=128) as engine:
        assert_type(engine, CachedSemanticSearchEngine)
    EmbeddingCache("embeddings.db", dtype="int8")  # type: ignore[arg-type]
    EmbeddingCache("embeddings.db", 30.0)  # type: ignore[call-arg]
    CachedSemanticSearchEngine(index="faiss")  # type: ignore[arg-type]


def an_engine(engine: SemanticSearchEngine, ids: Sequence[str], texts: Iterator[str]) -> None:
    report = engine.index_documents(
        texts, ids, [{"year": 2020}, None], remove_missing=True, scope={"folder": "notes"}, max_removed=0.1
    )
    assert_type(report, IndexReport)
    assert_type(report.encoded, int)
    assert_type(report.documents_per_s, float)
    assert_type(engine.plan(texts, ids), IndexPlan)
    assert_type(engine.reindex_document("a", "text", {"year": 2020}), IndexReport)
    assert_type(engine.reconcile(texts, ids, repair=True), ReconcileReport)
    assert_type(engine.reconcile().ok, bool)
    assert_type(engine.doc_ids({"year": 2020}), Iterator[str])
    assert_type(engine.delete_documents(["a"]), int)

    hits = engine.search("a query", n_results=3, where={"year": {"$gte": 2020}})
    assert_type(hits, list[SearchHit])
    assert_type(hits[0].score, float)
    assert_type(hits[0].document, str)

    engine.search(["a query"])  # type: ignore[arg-type]
    hits[0].score = 1.0  # type: ignore[misc]


def an_engine_on_a_cache(cache: EmbeddingCache, stored: StoredEmbeddings) -> None:
    CachedSemanticSearchEngine(Lengths(), cache=cache, collection_name="notes")
    CachedSemanticSearchEngine(Lengths(), cache=stored)  # type: ignore[arg-type]


def identities() -> None:
    identity = ModelIdentity.of("lengths", {"revision": "1", "normalize": True}, role="query")
    assert_type(identity, ModelIdentity)
    assert_type(identity.model_name, str)
    assert_type(content_hash("text"), bytes)


def whole_files(cache: EmbeddingCache) -> None:
    report = repair("damaged.db", Path("repaired.db"))
    assert_type(report, RepairReport)
    assert_type(report.lost, tuple[LostRow, ...])
    assert_type(report.n_lost, dict[str, int])
    assert_type(merge(cache, "other.db"), TransferReport)


def in_from_elsewhere(cache: EmbeddingCache, stored: StoredEmbeddings, vectors: npt.NDArray[np.float64]) -> None:
    assert_type(import_npy_folder(cache, Path("folder"), model_name="lengths"), TransferReport)
    assert_type(import_matrix(cache, vectors, ["a"], {"a": "text"}, model_name="lengths"), TransferReport)
    assert_type(import_parquet(cache, "file.parquet", id_column="key", model=Lengths()), TransferReport)
    assert_type(import_safetensors(cache, Path("file.safetensors")), TransferReport)
    assert_type(import_langchain(cache, "folder", ["text"], model_name="lengths"), TransferReport)
    assert_type(import_llm(cache, "embeddings.db", texts=["text"]), TransferReport)
    assert_type(import_chroma(cache, "chroma", source_collection="notes", model_name="lengths"), TransferReport)
    import_matrix(stored, vectors)  # type: ignore[arg-type]


def out_to_elsewhere(stored: StoredEmbeddings) -> None:
    assert_type(export_npy(stored, "folder", "lengths", overwrite=True), ExportReport)
    assert_type(export_parquet(stored, Path("file.parquet"), "lengths", collection="notes"), ExportReport)
    assert_type(export_safetensors(stored, "file.safetensors", "lengths"), ExportReport)
    assert_type(export_projector(stored, "folder", "lengths"), ExportReport)
    export_npy(stored, "folder", "lengths", "query")  # type: ignore[call-arg]


def pictures() -> None:
    assert_type(draw_map("library", "map.html", color_by="year", method="umap"), DrawnMap)
    assert_type(draw_report(Path("library"), Path("report.html")), DrawnReport)
    draw_map("library", "map.html", method="tsne")  # type: ignore[arg-type]


def errors_carry_their_facts(engine: SemanticSearchEngine) -> None:
    try:
        engine.index_documents([], remove_missing=True)
    except DamagedStoreError as error:
        assert_type(error.path, str)
    except TooManyRemovalsError as error:
        assert_type(error.message, str)
    except EmbstoreError as error:
        assert_type(error.facts, dict[str, object])


assert_type(embstore.__version__, str)
embstore.nothing  # type: ignore[attr-defined]  # noqa: B018
embstore.transfer.nothing  # type: ignore[attr-defined]  # noqa: B018
embstore.search.nothing  # type: ignore[attr-defined]  # noqa: B018
embstore.pictures.nothing  # type: ignore[attr-defined]  # noqa: B018
