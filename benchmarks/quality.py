"""`python -m benchmarks.quality FOLDER`: how good the answers are, by each index, on a collection with judgements.

FOLDER has the form of BEIR (Thakur et al. 2021): corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, and
judgements query-id, corpus-id, score in qrels.tsv or qrels/test.tsv. A document is its title, a space and its text.
Where the folder has minilm_docs.npy and minilm_queries.npy, rows in file order, these vectors stand for the model
(--vectors names others); otherwise --model says which to load. Everything goes through the engine. A document that
has the id of a query is no answer to it, as BEIR evaluates. --truncate-dim tells what shorter vectors cost.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embstore import CachedSemanticSearchEngine, EmbeddingCache
from embstore.search.inputs import INDEX_KINDS, IndexKind

N_NDCG, N_RECALL = 10, 100


@dataclass(frozen=True)
class Corpus:
    """Texts by id in file order, and for each query that is judged its relevant documents and how much they are so."""

    documents: dict[str, str]
    all_queries: list[str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]

    @classmethod
    def read(cls, folder: Path) -> Corpus:
        queries, judgements = read_texts(folder / "queries.jsonl"), read_judgements(folder)
        judged = {query_id: text for query_id, text in queries.items() if query_id in judgements}
        return cls(read_texts(folder / "corpus.jsonl"), list(queries.values()), judged, judgements)


def read_texts(file: Path) -> dict[str, str]:
    with file.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    return {record["_id"]: f"{record.get('title', '')} {record['text']}".strip() for record in records}


def read_judgements(folder: Path) -> dict[str, dict[str, int]]:
    file = next(file for file in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if file.exists())
    judgements: dict[str, dict[str, int]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for query_id, doc_id, score in csv.reader(lines, delimiter="\t"):
            if score.isdigit() and int(score) > 0:  # neither the header nor what is judged irrelevant
                judgements.setdefault(query_id, {})[doc_id] = int(score)
    return judgements


class LookUpEncoder:
    """Gives the texts of a corpus the vectors that were computed for them before."""

    def __init__(self, folder: Path, prefix: str, corpus: Corpus) -> None:
        self.model_name = prefix
        texts = [*corpus.documents.values(), *corpus.all_queries]
        self.vectors = np.concatenate([np.load(folder / f"{prefix}_{what}.npy") for what in ("docs", "queries")])
        self.row_of = {text: row for row, text in enumerate(texts)}
        assert len(self.vectors) == len(texts), "not one vector a text"

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.vectors[[self.row_of.get(text, 0) for text in texts]]  # 0: the canary


def ndcg(found: list[str], relevant: dict[str, int]) -> float:
    """Give the normalised discounted cumulative gain of the first results, as trec_eval computes it."""
    gained = sum(relevant.get(doc_id, 0) / math.log2(rank + 2) for rank, doc_id in enumerate(found[:N_NDCG]))
    best = sorted(relevant.values(), reverse=True)[:N_NDCG]
    return gained / sum(gain / math.log2(rank + 2) for rank, gain in enumerate(best))


def recall(found: list[str], relevant: dict[str, int]) -> float:
    return len(relevant.keys() & set(found[:N_RECALL])) / len(relevant)


def measure(engine: CachedSemanticSearchEngine, corpus: Corpus) -> dict[str, float]:
    """Index a corpus whose vectors are cached, ask all queries, and give the means."""
    began = time.perf_counter()
    engine.index_documents(list(corpus.documents.values()), ids=list(corpus.documents))
    indexed = time.perf_counter()
    found = {key: [hit.doc_id for hit in engine.search(text, N_RECALL)] for key, text in corpus.queries.items()}
    searched = time.perf_counter()
    pairs = [(found[key], corpus.judgements[key]) for key in corpus.queries]
    return {
        f"nDCG@{N_NDCG}": statistics.mean(ndcg(*pair) for pair in pairs),
        f"recall@{N_RECALL}": statistics.mean(recall(*pair) for pair in pairs),
        "index_s": indexed - began,
        "ms_a_query": (searched - indexed) / len(found) * 1000,
    }


def measure_each(
    kinds: list[IndexKind], corpus: Corpus, model: Any, truncate_dim: int | None = None
) -> dict[str, dict[str, float]]:
    """Encode once, and measure one index after the other."""
    with tempfile.TemporaryDirectory() as folder, EmbeddingCache(Path(folder) / "embeddings.db") as cache:
        cache.embed(corpus.documents.values(), model)
        cache.embed_query(corpus.queries.values(), model)
        figures: dict[str, dict[str, float]] = {}
        for kind in kinds:
            with CachedSemanticSearchEngine(
                model, path=folder, index=kind, truncate_dim=truncate_dim, cache=cache
            ) as engine:
                figures[kind] = measure(engine, corpus)
        return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", choices=INDEX_KINDS, help="default: each of them")
    parser.add_argument("--model", help="load this model, also where there are vectors")
    parser.add_argument("--vectors", metavar="PREFIX", default="minilm", help="of the .npy files")
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="search N leading values; default: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    corpus = Corpus.read(options.folder)
    model = options.model
    if model is None:
        if not (options.folder / f"{options.vectors}_docs.npy").exists():
            parser.error(f"{options.folder} has no {options.vectors}_docs.npy; say by --model what encodes its texts")
        model = LookUpEncoder(options.folder, options.vectors, corpus)
    kinds: list[IndexKind] = [options.index] if options.index else ["exact", "chroma"]
    figures = measure_each(kinds, corpus, model, options.truncate_dim)
    name = options.model or model.model_name
    print(f"{options.folder.name}: {len(corpus.documents):,} documents, {len(corpus.queries):,} queries, model {name}")
    print(f"{'index':<8} {f'nDCG@{N_NDCG}':>8} {f'recall@{N_RECALL}':>11} {'index_s':>8} {'ms_a_query':>11}")
    for kind, (gain, share, index_s, query_ms) in ((kind, row.values()) for kind, row in figures.items()):
        print(f"{kind:<8} {gain:8.4f} {share:11.4f} {index_s:8.2f} {query_ms:11.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
