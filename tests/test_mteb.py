"""mteb through a cache: real evaluations of its own small tasks, with nothing from the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import DimensionError, EmbeddingCache, InvalidInputError, ModelChangedError, ModelNameError
from tests.fakes import CountingEncoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("mteb", reason="needs the extra mteb")
import mteb
from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask
from mteb.models import CacheBackendProtocol, ModelMeta
from mteb.models.abs_encoder import AbsEncoder

from embstore.integrations.mteb import EmbstoreBackend, cached


class Fake(AbsEncoder):
    """An encoder of mteb's kind; `texts` holds what it was asked for."""

    def __init__(self, name: str | None = "tests/fake", revision: str | None = "1", seed: int = 0) -> None:
        self.fake = CountingEncoder(seed=seed)
        self.mteb_model_meta = ModelMeta.create_empty({"name": name, "revision": revision})

    @property
    def texts(self) -> list[str]:
        return self.fake.texts

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        texts = [text for batch in inputs for text in batch["text"]]
        self.fake.count(texts)
        return self.fake.vectors([f"{prompt_type}: {text}" for text in texts])


def scores(model: Any, *tasks: Any) -> list[Any]:
    results = mteb.evaluate(model, list(tasks), cache=None, show_progress_bar=False, co2_tracker=False)
    return [[score for split in result.scores.values() for score in split] for result in results.task_results]


@pytest.fixture
def wrapped(cache_path: Path) -> Any:
    """Wraps models on one file, and closes them."""
    made: list[Any] = []

    def wrap(model: Any, **options: Any) -> Any:
        made.append(cached(model, cache_path, **options))
        return made[-1]

    yield wrap
    for wrapper in made:
        wrapper.close()
    with EmbeddingCache(cache_path) as cache:
        assert cache.verify() == []


def test_scores_are_those_of_the_model_without_a_cache(wrapped: Any, tmp_path: Path) -> None:
    plain, first, again = Fake(), Fake(), Fake()
    tasks = MockRetrievalTask(), MockSTSTask()
    expected = scores(plain, *tasks)
    for model in (first, again):
        np.testing.assert_equal(scores(wrapped(model), *tasks), expected)
    assert set(first.texts) == set(plain.texts)
    # Two texts of one are in the other; and one of each kind of prompt in each task tells the model, once it is stored.
    assert len(first.texts) == len(set(first.texts)) + 2 + 2
    assert len(again.texts) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["embeddings.db"]


def test_each_model_and_revision_has_its_own_vectors(wrapped: Any) -> None:
    models = [Fake(), Fake("tests/other", seed=1), Fake(revision="2", seed=2), Fake(seed=3)]
    names = [None, None, None, "tests/named"]
    expected = [scores(model, MockSTSTask()) for model in models]
    for _ in range(2):
        given = [
            scores(wrapped(model, model_name=name), MockSTSTask()) for model, name in zip(models, names, strict=True)
        ]
        np.testing.assert_equal(given, expected)
    assert [len(model.texts) for model in models] == [9] * 4  # without a cache, once with it, and one to compare


def test_a_model_that_changed_behind_its_name_and_revision_is_refused(wrapped: Any, cache_path: Path) -> None:
    scores(wrapped(Fake()), MockSTSTask())
    changed = Fake(seed=1)
    with pytest.raises(ModelChangedError, match=r"tests/fake.*not the model that filled"):
        scores(wrapped(changed), MockSTSTask())
    assert len(changed.texts) == 1
    with EmbeddingCache(cache_path, check_canary=False) as unchecked:
        unseen = Fake(seed=1)
        scores(cached(unseen, unchecked), MockSTSTask())
    assert unseen.texts == []


def test_a_cache_that_was_given_stays_open(cache: EmbeddingCache) -> None:
    model = Fake()
    wrapper = cached(model, cache)
    scores(wrapper, MockSTSTask())
    wrapper.close()
    assert cache.stats().n_vectors == len(model.texts) == 4


def test_prompts_of_a_model_are_part_of_its_identity(wrapped: Any) -> None:
    plain, prompted = Fake(), Fake(seed=1)
    prompted.model_prompts = {"query": "q: "}  # type: ignore[attr-defined]
    for model in (plain, prompted):
        scores(wrapped(model), MockSTSTask())
    assert len(prompted.texts) == 4


def test_a_sentence_transformer_is_known_by_what_changes_its_vectors(wrapped: Any) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the extra sentence-transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from tests.tiny_models import tokenizer, word_vectors

    model = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer(), embedding_weights=word_vectors(16))], device="cpu", truncate_dim=8
    )
    short = wrapped(model, model_name="tiny")
    scores(short, MockSTSTask())
    model.truncate_dim = None
    whole = wrapped(model, model_name="tiny")
    scores(whole, MockSTSTask())
    with EmbeddingCache(short._get_or_create_cache("MockSTSTask", None)._given) as cache:
        assert [(info.settings.get("truncate_dim"), info.dim) for info in cache.models()] == [(8, 8), (None, 16)]


def test_a_model_without_a_name_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(ModelNameError, match=r"Fake says no name.*model_name="):
        cached(Fake(name=None), cache)


# --- the backend alone ----------------------------------------------------------------------


@pytest.fixture
def backend(cache: EmbeddingCache, tmp_path: Path) -> EmbstoreBackend:
    return EmbstoreBackend(tmp_path / "Task" / "query", folder=tmp_path, model=Fake(), cache=cache)


ITEMS = [{"text": "one"}, {"text": "two"}, {"text": "one", "title": "a"}, {"text": "one", "instruction": "a"}]


def test_a_backend_keeps_to_the_protocol(backend: EmbstoreBackend) -> None:
    assert isinstance(backend, CacheBackendProtocol)
    vectors = CountingEncoder().vectors(["a", "b", "c", "d"])
    assert [item in backend for item in ITEMS] == [False] * 4
    backend.add(ITEMS, vectors)
    backend.save()
    backend.load()
    assert [item in backend for item in ITEMS] == [True] * 4
    assert np.array_equal(np.stack([backend.get_vector(item) for item in ITEMS]), vectors)
    assert backend.get_vector({"text": "three"}) is None


def test_tasks_and_kinds_of_prompts_share_nothing(
    backend: EmbstoreBackend, cache: EmbeddingCache, tmp_path: Path
) -> None:
    backend.add(ITEMS[:1], [[1.0, 0.0]])
    for directory in ("Task/document", "Task", "Other/query", "Task/experiments/half/query"):
        other = EmbstoreBackend(tmp_path / directory, folder=tmp_path, model=Fake(), cache=cache)
        assert ITEMS[0] not in other


def test_pictures_are_known_by_their_content(backend: EmbstoreBackend) -> None:
    image = pytest.importorskip("PIL.Image")
    red, blue = ({"image": image.new("RGB", (2, 2), colour)} for colour in ("red", "blue"))
    backend.add([red], [[1.0, 0.0]])
    assert (red in backend, blue in backend, {**red, "text": "red"} in backend) == (True, False, False)


@pytest.mark.parametrize("bad", [[[1.0, float("nan")]], [[1, 2]], [[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0], [[]]])
def test_vectors_that_are_not_one_an_item_are_refused_and_nothing_is_stored(
    backend: EmbstoreBackend, cache: EmbeddingCache, bad: Any
) -> None:
    with pytest.raises(InvalidInputError):
        backend.add(ITEMS[:1], bad)
    assert cache.stats().n_vectors == 0


def test_vectors_of_another_dimension_are_refused(backend: EmbstoreBackend) -> None:
    backend.add(ITEMS[:1], [[1.0, 0.0]])
    with pytest.raises(DimensionError):
        backend.add(ITEMS[1:2], [[1.0, 0.0, 0.0]])
