"""The demo's documents, and its runs with an encoder that costs nothing."""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from embstore import CachedSemanticSearchEngine, EmbstoreError, InvalidInputError
from embstore.demo import N_DOCUMENTS, N_HITS, QUERIES, DemoResult, DocumentedName, collect, run
from tests.fakes import CountingEncoder

N_TEXTS = 50


@pytest.fixture(scope="module")
def documents() -> list[DocumentedName]:
    return collect()


@pytest.fixture(scope="module")
def encoder_of_runs() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture(scope="module")
def result(
    documents: list[DocumentedName], encoder_of_runs: CountingEncoder, tmp_path_factory: pytest.TempPathFactory
) -> DemoResult:
    engine = CachedSemanticSearchEngine(encoder_of_runs, path=tmp_path_factory.mktemp("demo"))
    try:
        return run(engine, documents[:N_TEXTS])
    finally:
        engine.close()


@pytest.fixture
def stdlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the demo takes for the standard library."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_a_thousand_documents_have_distinct_texts_and_ids(documents: list[DocumentedName]) -> None:
    assert len(documents) == N_DOCUMENTS
    assert len({document.text for document in documents}) == N_DOCUMENTS
    assert len({document.doc_id for document in documents}) == N_DOCUMENTS


def test_the_documents_are_the_same_every_time(documents: list[DocumentedName]) -> None:
    assert collect() == documents


def test_documents_are_of_modules_that_every_machine_has(documents: list[DocumentedName]) -> None:
    texts = {document.doc_id: document for document in documents}
    assert texts["tempfile.mkdtemp"].module == "tempfile"
    assert texts["tempfile.mkdtemp"].text.startswith("User-callable function to create and return a unique temporary")
    assert "asyncio.tasks.wait" in texts


def test_only_public_names_with_a_paragraph_of_some_length_are_collected(stdlib: Path) -> None:
    doc = "What this does, said in a sentence that is long enough."
    (stdlib / "here.py").write_text(
        f'def public():\n    """{doc}\n\n    More."""\n'
        f'def _private():\n    """{doc} (7)"""\n'
        f'def short():\n    """Too short."""\n'
        f'def twin():\n    """{doc}"""\n'
        f'def again():\n    """{doc} (0)"""\n'
        f'def again():\n    """{doc} (1)"""\n'
        f'class Kind:\n    """{doc} (2)"""\n    async def method(self):\n        """{doc}\n        (3)"""\n'
        f'class _Hidden:\n    def method(self):\n        """{doc} (4)"""\n'
    )
    (stdlib / "_there.py").write_text(f'def public():\n    """{doc} (5)"""\n')
    (stdlib / "broken.py").write_text("def (:\n")
    (stdlib / "test").mkdir()
    (stdlib / "test" / "test_here.py").write_text(f'def public():\n    """{doc} (6)"""\n')

    assert collect(4) == [
        DocumentedName("here.Kind", f"{doc} (2)", "here"),
        DocumentedName("here.again", f"{doc} (1)", "here"),
        DocumentedName("here.public", doc, "here"),
        DocumentedName("here.Kind.method", f"{doc} (3)", "here"),
    ]


def test_numpy_fills_up_what_a_stripped_standard_library_lacks(stdlib: Path) -> None:
    (stdlib / "here.py").write_text(
        'def public():\n    """What this does, said in a sentence that is long enough."""\n'
    )
    first, second = collect(2)
    assert first.doc_id == "here.public"
    assert second.module.startswith("numpy.")


def test_sources_that_do_not_suffice_are_named(stdlib: Path) -> None:
    with pytest.raises(EmbstoreError, match=r"and numpy have docstrings of \d+ names, 1000000 are needed") as raised:
        collect(1_000_000)
    assert str(stdlib) in str(raised.value)


def test_the_runs_encode_all_then_the_forgotten_then_nothing(
    result: DemoResult, encoder_of_runs: CountingEncoder
) -> None:
    assert [run.total for run in result.runs] == [N_TEXTS] * 3
    assert [run.encoded for run in result.runs] == [N_TEXTS, 10, 0]
    assert result.n_forgotten == 10
    assert result.broken_promises == []
    assert encoder_of_runs.n_texts == N_TEXTS + 10 + len(QUERIES)


def test_every_question_is_answered(result: DemoResult) -> None:
    assert [answer.query for answer in result.answers] == list(QUERIES)
    assert [len(answer.hits) for answer in result.answers] == [N_HITS] * len(QUERIES)


def test_a_run_that_encoded_too_much_is_said_to_have_failed(result: DemoResult) -> None:
    first, second, third = result.runs
    broken = replace(result, runs=(first, replace(second, encoded=11), replace(third, encoded=1)))
    assert broken.broken_promises == [
        "run 2 encoded 11 texts, expected are 10",
        "run 3 encoded 1 texts, expected are 0",
    ]


def test_fewer_documents_than_are_forgotten_are_refused(documents: list[DocumentedName], tmp_path: Path) -> None:
    engine = CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path)
    try:
        with pytest.raises(InvalidInputError, match="9 documents, at least 10"):
            run(engine, documents[:9])
    finally:
        engine.close()
