"""Documents from iterators: window by window, in bounded memory, and whatever ends them early."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embstore import CachedSemanticSearchEngine, SemanticSearchEngine
from embstore.errors import InvalidInputError, InvalidTypeError
from embstore.search.given import WINDOW
from tests.fakes import CountingEncoder

Engine = SemanticSearchEngine


def texts(n: int, start: int = 0) -> Iterator[str]:
    return (f"text {i}" for i in range(start, n))


def unplugged(n: int) -> Iterator[str]:
    """Texts that end with an error of the caller's own."""
    yield from texts(n)
    raise OSError("unplugged")


def held(engine: Engine) -> dict[str, tuple[str, Any]]:
    """What the index holds: texts and years by id."""
    records = [record for page in engine._index.records() for record in page]
    return {record.doc_id: (record.document, record.metadata.get("year")) for record in records}


def note_of(raised: pytest.ExceptionInfo[BaseException]) -> str:
    (note,) = raised.value.__notes__
    return note


# --- windows --------------------------------------------------------------------------------


def test_documents_ids_and_metadatas_may_each_be_an_iterator(engine: Engine) -> None:
    report = engine.index_documents(
        texts(2500), ids=map("id {}".format, range(2500)), metadatas=({"year": i} for i in range(2500))
    )
    assert (report.total, report.added) == (2500, 2500)
    assert held(engine) == {f"id {i}": (f"text {i}", i) for i in range(2500)}
    again = engine.index_documents(
        list(texts(2500)), ids=map("id {}".format, range(2500)), metadatas=[{"year": i} for i in range(2500)]
    )
    assert again.unchanged == 2500


def test_ids_count_through_where_none_are_given(engine: Engine) -> None:
    engine.index_documents(texts(2500))
    assert held(engine).keys() == {f"doc_{i}" for i in range(2500)}


def test_no_more_than_one_window_is_being_written_when_the_next_is_read(engine: Engine) -> None:
    at_hand = []

    def watched() -> Iterator[str]:
        for i in range(4 * WINDOW):
            if i % WINDOW == 0:
                at_hand.append(engine._index.count())
            yield f"text {i}"

    engine.index_documents(watched())
    assert [n_written >= i * WINDOW for i, n_written in enumerate(at_hand[1:])] == [True] * 3
    assert engine._index.count() == 4 * WINDOW


def test_a_few_changes_in_many_windows_are_encoded_and_written_together(
    engine: Engine, encoder: CountingEncoder
) -> None:
    engine.index_documents(texts(3000))
    before = len(encoder.calls)
    report = engine.index_documents(f"text {i}{' edited' * (i % 100 == 0)}" for i in range(3000))
    assert (report.updated, report.unchanged) == (30, 2970)
    assert [len(call) for call in encoder.calls[before:]] == [30]


def test_a_text_that_is_new_in_two_windows_is_encoded_once(
    cached: CachedSemanticSearchEngine, encoder: CountingEncoder
) -> None:
    report = cached.index_documents(chain(["same"], texts(1500), ["same"]))
    assert (report.encoded, report.from_cache) == (1501, 1)
    assert encoder.texts.count("same") == 1


def test_an_array_of_texts_can_be_indexed(engine: Engine) -> None:
    assert engine.index_documents(np.array(["A", "B"]), ids=np.array(["a", "b"])).added == 2
    assert held(engine) == {"a": ("A", None), "b": ("B", None)}


# --- what is wrong further on ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_documents", "n_ids", "said"),
    [
        (1500, 1400, "the ids end after 1,400, and there are more documents"),
        (1500, 1501, "the documents end after 1,500, and there are more ids"),
        (2000, 1000, "the ids end after 1,000, and there are more documents"),
        (1000, 1025, "the documents end after 1,000, and there are more ids"),
    ],
)
def test_iterators_of_different_lengths_are_told_apart_at_the_end(
    engine: Engine, n_documents: int, n_ids: int, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        engine.index_documents(texts(n_documents), ids=map(str, range(n_ids)))
    assert engine._index.count() == 1000


def test_a_list_with_ids_without_end_is_refused_before_anything_is_written(engine: Engine) -> None:
    with pytest.raises(InvalidInputError, match="the documents end after 3, and there are more ids"):
        engine.index_documents(["A", "B", "C"], ids=map(str, count()))
    assert engine._index.count() == 0


@pytest.mark.parametrize(
    ("text", "doc_id", "metadata", "error", "said"),
    [
        (None, "new", None, InvalidTypeError, "document 'new' is NoneType"),
        ("text", 7, None, InvalidTypeError, "the doc_id at position 1500 is int"),
        ("text", "", None, InvalidInputError, "the doc_id at position 1500 is empty"),
        ("text", "\ud800", None, InvalidInputError, "the doc_id at position 1500 '.ud800' holds a lone surrogate"),
        ("text", "new", {"k": None}, InvalidInputError, "metadata of 'new'"),
        ("other", "3", None, InvalidInputError, "doc_id '3' is given twice with different texts or metadata"),
        ("text 3", "3", {"year": 1}, InvalidInputError, "doc_id '3' is given twice with different texts or metadata"),
    ],
    ids=["text", "id", "empty id", "surrogate", "metadata", "another text", "other metadata"],
)
def test_bad_input_further_on_is_named_and_what_was_written_stays(
    engine: Engine, text: Any, doc_id: Any, metadata: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        engine.index_documents(
            chain(texts(1500), [text]),
            ids=chain(map(str, range(1500)), [doc_id]),
            metadatas=chain(({} for _ in range(1500)), [metadata]),
        )
    assert engine._index.count() == 1000


def test_a_document_given_again_windows_later_counts_as_unchanged(engine: Engine) -> None:
    report = engine.index_documents(chain(texts(1500), ["text 3"]), ids=chain(map(str, range(1500)), ["3"]))
    assert (report.total, report.added, report.unchanged) == (1501, 1500, 1)


# --- what ends a run early ------------------------------------------------------------------


def test_an_iterator_that_raises_keeps_what_was_written_and_says_how_much_that_is(
    cached: CachedSemanticSearchEngine, encoder: CountingEncoder
) -> None:
    with pytest.raises(OSError, match="unplugged") as raised:
        cached.index_documents(unplugged(2500))
    assert note_of(raised) == "2,000 documents were indexed before this; the same call again does the rest"
    assert cached.collection.count() == 2000
    report = cached.index_documents(texts(2500))
    assert (report.unchanged, report.added, report.encoded) == (2000, 500, 500)
    assert encoder.n_texts == 2500


def test_an_encoder_that_is_interrupted_keeps_what_was_encoded(library: Path) -> None:
    class Interrupted(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            if "text 1500" in texts:
                raise KeyboardInterrupt
            return super().encode(texts)

    encoder = Interrupted()
    with (
        CachedSemanticSearchEngine(encoder, path=library) as engine,
        pytest.raises(KeyboardInterrupt) as raised,
    ):
        engine.index_documents(texts(3000))
    assert note_of(raised).startswith("1,000 documents")
    again = CountingEncoder()
    with CachedSemanticSearchEngine(again, path=library) as engine:
        report = engine.index_documents(texts(3000))
        assert (report.unchanged, report.added) == (1000, 3000 - 1000)
        assert engine.cache.verify() == []
    assert again.n_texts == 3000 - encoder.n_texts


INTERRUPTED = """
import signal, sys, time
from embstore import CachedSemanticSearchEngine
from tests.fakes import CountingEncoder

class Slow(CountingEncoder):
    def encode(self, texts):
        time.sleep(0.0005 * len(texts))
        return super().encode(texts)

def documents():
    for i in range(8_000):
        if i % 1000 == 0:
            print(i, flush=True)
        yield f"text {i}"

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits that it is ignored
with CachedSemanticSearchEngine(Slow(), path=sys.argv[1]) as engine:
    engine.index_documents(documents())
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT that a process can be sent")
@pytest.mark.parametrize("pause_s", [0.05, 0.3, 0.55, 0.8])
def test_a_run_that_is_interrupted_by_ctrl_c_is_continued_by_the_next(library: Path, pause_s: float) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "2000\n":
            assert process.poll() is None
        try:
            process.wait(pause_s)  # somewhere between encoding and writing
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT, told
    (n_indexed,) = re.findall(r"^([\d,]+) documents were indexed before this", told, re.MULTILINE)
    with CachedSemanticSearchEngine(CountingEncoder(), path=library) as engine:
        report = engine.index_documents(texts(8_000))
        assert report.unchanged >= int(n_indexed.replace(",", "")) >= 1000
        assert report.total == report.added + report.unchanged == 8_000
        assert held(engine) == {f"doc_{i}": (f"text {i}", None) for i in range(8_000)}
        assert [hit.document for hit in engine.search("text 7999", 1)] == ["text 7999"]
        assert engine.index_documents(texts(8_000)).unchanged == 8_000
        assert engine.cache.verify() == []


# --- progress -------------------------------------------------------------------------------


def test_one_bar_tells_what_became_of_the_documents(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.index_documents(["A", "B"], progress=False)
    engine.index_documents(["A", "B", "C"], progress=True)
    shown = capsys.readouterr().err
    assert "Encoding" not in shown
    assert "3/3" in shown
    assert "encoded=1, from_cache=0, unchanged=2" in shown


def test_the_bar_of_an_iterator_has_no_end(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.index_documents(iter(["A", "B"]), progress=True)
    shown = capsys.readouterr().err
    assert "2doc [" in shown
    assert "%" not in shown


# --- memory ---------------------------------------------------------------------------------


class ForgetfulEncoder:
    """Is fast and keeps nothing of what it is asked for."""

    model_name = "forgetful"

    def encode(self, texts: list[str]) -> np.ndarray:
        digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
        return np.frombuffer(digests, dtype=np.uint8).reshape(len(texts), 32).astype(np.float32)[:, :8] + 1


def peak_bytes(library: Path, n: int) -> int:
    """The most that Python holds at a time while documents of 2,000 characters are indexed."""
    documents = (f"{i} " + "x" * 2_000 for i in range(n))
    metadatas = ({"position": i} for i in range(n))
    with CachedSemanticSearchEngine(ForgetfulEncoder(), path=library) as engine:
        gc.collect()
        tracemalloc.start()
        try:
            engine.index_documents(documents, metadatas=metadatas, remove_missing=True)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.slow
def test_memory_grows_by_two_digests_a_document(library: Path) -> None:
    small = peak_bytes(library / "small", 5_000)
    large = peak_bytes(library / "large", 20_000)
    assert (large - small) / 15_000 < 250
