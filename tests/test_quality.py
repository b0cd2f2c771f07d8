"""The answers are as good as exact search can make them, on a public collection with judgements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import Corpus, LookUpEncoder, measure_each, ndcg, recall
from tests.scifact import SCIFACT, needs_scifact

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_gain_is_that_of_trec_eval() -> None:
    relevant = {"a": 2, "b": 1}
    assert ndcg(["a", "b"], relevant) == 1.0
    assert ndcg(["b", "a"], relevant) == pytest.approx((1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)))
    assert ndcg(["x"] * 10 + ["a"], relevant) == 0.0
    assert recall(["x", "b"], relevant) == 0.5


def test_a_folder_of_beir_is_read(tmp_path: Path) -> None:
    def write(name: str, *records: dict[str, str]) -> None:
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    write("corpus.jsonl", {"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "text": "two"})
    write("queries.jsonl", {"_id": "q1", "text": "1?"}, {"_id": "q2", "text": "2?"})
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n")
    assert Corpus.read(tmp_path) == Corpus({"d1": "T one", "d2": "two"}, ["1?", "2?"], {"q1": "1?"}, {"q1": {"d1": 1}})


def test_a_folder_without_vectors_needs_a_model(tmp_path: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
        (tmp_path / name).touch()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality", tmp_path], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no minilm_docs.npy; say by --model what encodes its texts" in done.stderr


@needs_scifact
def test_exact_search_reaches_the_published_figure_of_the_model() -> None:
    corpus = Corpus.read(SCIFACT)
    figures = measure_each(["exact"], corpus, LookUpEncoder(SCIFACT, "minilm", corpus))["exact"]
    assert figures["nDCG@10"] == pytest.approx(0.6451, abs=5e-5)
    assert figures["recall@100"] == pytest.approx(0.925)


@needs_scifact
@pytest.mark.parametrize(
    ("truncate_dim", "gain"),
    [
        pytest.param(256, 0.6349, marks=pytest.mark.slow),
        (128, 0.6016),
        pytest.param(64, 0.4841, marks=pytest.mark.slow),
    ],
)
def test_shorter_vectors_cost_what_the_readme_says(truncate_dim: int, gain: float) -> None:
    corpus = Corpus.read(SCIFACT)
    model = LookUpEncoder(SCIFACT, "minilm", corpus)
    figures = measure_each(["exact"], corpus, model, truncate_dim)["exact"]
    assert figures["nDCG@10"] == pytest.approx(gain, abs=5e-5)
    assert f"{gain} with {truncate_dim}" in README


@needs_scifact
@pytest.mark.slow
def test_search_by_chroma_comes_close() -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    corpus = Corpus.read(SCIFACT)
    figures = measure_each(["chroma"], corpus, LookUpEncoder(SCIFACT, "minilm", corpus))["chroma"]
    assert figures["nDCG@10"] >= 0.643
