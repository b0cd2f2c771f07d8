"""Each distinct text is encoded once, and every vector comes back at its place."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embstore import EmbeddingCache, EncoderError, FillReport, filling, grouping
from embstore.background import Background
from embstore.canary import CANARY_TEXT
from embstore.errors import StoreClosedError
from tests.fakes import CountingEncoder, HookedEncoder, QueryEncoder
from tests.tables import dump, rows, state, without_password, writers_held

TEXTS = [f"text {'x' * (i % 7)} {i}" for i in range(40)]
IDS = [f"doc {i}" for i in range(40)]


def n_committed(location: str) -> int:
    """How many vectors another process would find."""
    return int(rows(location, "SELECT count(*) FROM vectors")[0][0])


# --- one encode a text ----------------------------------------------------------------------


def test_a_text_is_encoded_once(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    first = cache.get("a", "text", encoder)
    second = cache.get("a", "text", encoder)
    assert encoder.calls == [["text"]]
    assert first.dtype == second.dtype == np.float32
    assert first.tobytes() == second.tobytes() == encoder.vector("text").tobytes()


def test_second_document_with_the_same_text_costs_no_encode(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    cache.get("b", "text", encoder)
    assert encoder.calls == [["text"]]
    assert (len(cache), cache.stats().n_vectors) == (2, 1)


def test_a_text_is_encoded_once_across_calls_of_every_kind(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.embed(["text"], encoder)
    cache.get("a", "text", encoder)
    cache.get_many(["b", "c"], ["text", "text"], encoder, collection="other")
    cache.embed_query("text", encoder)
    cache.fill(["d"], ["text"], encoder)
    assert encoder.calls == [["text"]]


def test_a_text_is_encoded_once_across_openings(location: str, encoder: CountingEncoder) -> None:
    for _ in range(3):
        with EmbeddingCache(location) as cache:
            cache.get("a", "text", encoder)
            assert cache.verify() == []
    assert encoder.calls == [["text"]]


def test_duplicates_in_a_call_are_encoded_once(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    texts = ["b", "a", "b", "b", "a"]
    assert np.array_equal(cache.embed(texts, encoder), encoder.vectors(texts))
    assert sorted(encoder.texts) == ["a", "b"]


def test_a_document_edited_and_edited_back_costs_no_encode(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    for text in ("old", "new", "old", "new"):
        assert np.array_equal(cache.get("a", text, encoder), encoder.vector(text))
    assert encoder.texts == ["old", "new"]
    assert cache.matrix("fake")[1].tolist() == encoder.vectors(["new"]).tolist()


def test_documents_that_move_to_other_ids_cost_no_encode(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    n_before = encoder.n_texts
    shifted = cache.get_many(IDS, TEXTS[1:] + TEXTS[:1], encoder)
    assert encoder.n_texts == n_before
    assert np.array_equal(shifted, encoder.vectors(TEXTS[1:] + TEXTS[:1]))


def test_the_empty_text_is_a_text(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    assert np.array_equal(cache.get_many(["a", "b"], ["", "x"], encoder), encoder.vectors(["", "x"]))
    cache.get("c", "", encoder)
    assert sorted(encoder.texts) == ["", "x"]


@pytest.mark.parametrize("text", ["a\ud800", "\udfff", "\ud83d\ude42", "a\0b", "🙂"])
def test_any_text_can_be_cached(text: str, cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    texts = [text, "🙂", "plain", text]
    for _ in range(2):
        assert np.array_equal(cache.embed(texts, encoder), encoder.vectors(texts))
    assert sorted(encoder.texts) == sorted(set(texts))


def test_no_texts_give_no_rows_and_touch_neither_model_nor_file(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    before = dump(cache.location)
    shapes = [vectors.shape for vectors in (cache.embed([], encoder), cache.get_many([], [], encoder))]
    assert shapes == [(0, 0), (0, 0)]
    assert (encoder.calls, encoder.n_canaries, dump(cache.location)) == ([], 0, before)
    cache.get("a", "text", encoder)
    assert cache.embed([], encoder).shape == (0, 8)


@pytest.mark.parametrize("seed", range(8))
def test_any_mix_of_hits_misses_and_duplicates_equals_the_matrix_without_a_cache(
    seed: int, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    choose = random.Random(seed)
    known: set[str] = set()
    for _ in range(6):
        texts = choose.choices(TEXTS, k=choose.randrange(1, 60))
        n_before = encoder.n_texts
        report = cache.fill([f"doc {i}" for i in range(len(texts))], texts, encoder, batch_size=choose.randrange(1, 9))
        assert report.vectors.tobytes() == encoder.vectors(texts).tobytes()
        misses = set(texts) - known
        assert sorted(encoder.texts[n_before:]) == sorted(misses)
        assert (report.n_encoded, report.n_hits) == (len(misses), len(set(texts) & known))
        known |= misses


def test_more_keys_than_a_statement_takes_are_looked_up(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    texts = [f"text {i}" for i in range(2100)]
    cache.embed(texts[::2], encoder)
    for _ in range(2):
        assert np.array_equal(cache.embed(texts[::-1], encoder), encoder.vectors(texts[::-1]))
    assert sorted(encoder.texts) == sorted(texts)


def test_a_request_that_is_large_beside_the_table_reads_the_same_vectors(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    texts = [f"text {i}" for i in range(2500)]
    cache.embed(texts, encoder)
    for asked in (texts[::-1], texts[100:600], texts[::50]):
        assert np.array_equal(cache.embed(asked, encoder), encoder.vectors(asked))
    assert encoder.n_texts == len(texts)


def test_iterators_are_taken_for_lists(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    vectors = cache.get_many(iter(IDS), (text for text in TEXTS), encoder)
    assert np.array_equal(vectors, encoder.vectors(TEXTS))
    assert np.array_equal(cache.embed(iter(TEXTS), encoder), vectors)


def test_what_is_returned_may_be_changed_without_changing_the_cache(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    for _ in range(2):
        vectors = cache.embed(["text", "text"], encoder)
        assert np.array_equal(vectors, encoder.vectors(["text", "text"]))
        vectors[0] = 0
        assert np.array_equal(vectors[1], encoder.vector("text"))


# --- batches and groups ---------------------------------------------------------------------


def test_misses_go_to_the_model_in_batches_longest_first(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    texts = [f"{i:03}" + "x" * (i % 10) for i in range(100)]
    cache.embed(texts, encoder)
    assert [len(call) for call in encoder.calls] == [32, 32, 32, 4]
    lengths = [len(text) for text in encoder.texts]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 40, 100])
def test_no_call_of_a_plain_encoder_is_longer_than_batch_size(
    batch_size: int, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get_many(IDS, TEXTS, encoder, batch_size=batch_size)
    full, rest = divmod(len(TEXTS), batch_size)
    assert [len(call) for call in encoder.calls] == [batch_size] * full + [rest] * (rest > 0)


def test_only_the_misses_among_hits_are_in_the_batches(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.embed(TEXTS[::2], encoder)
    encoder.calls.clear()
    cache.embed(TEXTS, encoder)
    assert [len(call) for call in encoder.calls] == [20]
    assert set(encoder.texts) == set(TEXTS[1::2])


@pytest.fixture
def storing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group is stored before the next is encoded, not meanwhile."""
    monkeypatch.setattr(Background, "submit", lambda self, work: work())


@pytest.mark.usefixtures("storing_at_once")
def test_a_commit_follows_about_a_second_of_model_work(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    committed: list[int] = []
    encoder = HookedEncoder(lambda texts: committed.append(n_committed(cache.location)))
    # Each look at the clock is 0.4 s after the one before, so each batch takes as long.
    monkeypatch.setattr(grouping, "time", SimpleNamespace(perf_counter=lambda: 0.4 * next(clock)))
    cache.get_many(IDS[:10], TEXTS[:10], encoder, batch_size=1)
    assert committed == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
    assert n_committed(cache.location) == 10


@pytest.mark.usefixtures("storing_at_once")
def test_no_more_than_five_thousand_rows_are_in_a_group(cache: EmbeddingCache) -> None:
    assert most_waiting(cache) <= 5000


def test_no_more_than_one_group_waits_while_another_is_being_stored(cache: EmbeddingCache) -> None:
    assert most_waiting(cache) <= 10_000


def most_waiting(cache: EmbeddingCache) -> int:
    waiting: list[int] = []

    def look(texts: list[str]) -> None:
        waiting.append(encoder.n_texts + len(texts) - n_committed(cache.location))

    encoder = HookedEncoder(look, dim=2)
    cache.embed([f"text {i}" for i in range(12_500)], encoder)
    assert n_committed(cache.location) == 12_500
    return max(waiting)


def test_a_batch_larger_than_a_group_is_stored_whole(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    texts = [f"text {i}" for i in range(7500)]
    cache.embed(texts, encoder, batch_size=6000)
    assert [len(call) for call in encoder.calls] == [6000, 1500]
    assert n_committed(cache.location) == 7500


@pytest.fixture(params=[1.0, 0.0], ids=["one group", "a group a batch"])
def group_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "GROUP_S", request.param)


@pytest.mark.usefixtures("group_s")
@pytest.mark.parametrize("n_good", [0, 1, 5, 6, 19])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_the_batch_that_raises_stores_nothing_and_those_before_it_stay(
    failure: type[BaseException], n_good: int, cache: EmbeddingCache
) -> None:
    def fail(texts: list[str]) -> None:
        if len(encoder.calls) == n_good:
            raise failure("stop")

    encoder = HookedEncoder(fail)
    with pytest.raises((EncoderError, KeyboardInterrupt)):
        cache.get_many(IDS, TEXTS, encoder, batch_size=2)
    stored = [text for call in encoder.calls[:n_good] for text in call]
    expected = sorted((IDS[TEXTS.index(text)], encoder.vector(text).tolist()) for text in stored)
    found = cache.matrix("fake") if stored else ([], np.empty((0, 8)))
    assert sorted(zip(found[0], found[1].tolist(), strict=True)) == expected
    encoder.calls.clear()
    encoder.hook = lambda texts: None
    assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
    assert sorted(encoder.texts) == sorted(set(TEXTS) - set(stored))


@pytest.mark.usefixtures("group_s")
def test_a_bad_batch_stores_nothing_and_those_before_it_stay(cache: EmbeddingCache) -> None:
    class BadThird(CountingEncoder):
        def encode(self, texts: list[str]) -> Any:
            vectors = super().encode(texts)
            return vectors * np.nan if len(self.calls) == 3 else vectors

    encoder = BadThird()
    with pytest.raises(EncoderError, match="NaN"):
        cache.get_many(IDS, TEXTS, encoder, batch_size=4)
    assert sorted(cache.matrix("fake")[1].tolist()) == sorted(encoder.vectors(encoder.texts[:8]).tolist())


def test_the_first_batch_that_raises_leaves_the_file_as_it_was(cache: EmbeddingCache) -> None:
    def fail(texts: list[str]) -> None:
        raise RuntimeError

    before = dump(cache.location)
    with pytest.raises(EncoderError):
        cache.get_many(IDS, TEXTS, HookedEncoder(fail))
    assert dump(cache.location) == before


def test_the_documents_of_hits_are_recorded_although_a_miss_of_the_call_fails(cache: EmbeddingCache) -> None:
    def fail(texts: list[str]) -> None:
        if "bad" in texts:
            raise RuntimeError

    encoder = HookedEncoder(fail)
    cache.embed(["good"], encoder)
    with pytest.raises(EncoderError):
        cache.get_many(["a", "b"], ["good", "bad"], encoder)
    assert cache.matrix("fake")[0] == ["a"]


def test_where_another_process_stored_a_text_first_its_vector_is_what_the_call_gives(cache: EmbeddingCache) -> None:
    class Slightly(CountingEncoder):
        def vector(self, text: str) -> np.ndarray:
            return super().vector(text) + np.float32(1e-6)

    def beat(texts: list[str]) -> None:
        with EmbeddingCache(cache.location) as other:
            other.get("theirs", "text", Slightly())

    encoder = HookedEncoder(beat)
    vectors = cache.get_many(["ours", "new"], ["text", "more"], encoder)
    expected = np.stack([Slightly().vector("text"), encoder.vector("more")])
    assert np.array_equal(vectors, expected)
    assert np.array_equal(cache.get_many(["ours", "new"], ["text", "more"], encoder), expected)
    assert sorted(cache.matrix("fake")[0]) == ["new", "ours", "theirs"]


def test_where_another_process_clears_the_model_meanwhile_the_call_still_stores_its_own(cache: EmbeddingCache) -> None:
    def clear(texts: list[str]) -> None:
        with EmbeddingCache(cache.location) as other:
            other.clear()

    encoder = HookedEncoder(lambda texts: None)
    cache.get("a", "text", encoder)
    encoder.hook = clear
    vectors = cache.get_many(["a", "b"], ["text", "more"], encoder)
    assert np.array_equal(vectors, encoder.vectors(["text", "more"]))
    assert cache.matrix("fake", doc_ids=["b"])[1].tolist() == encoder.vectors(["more"]).tolist()


def test_an_encoder_that_uses_one_buffer_again_and_again_gives_each_text_its_own_vector(cache: EmbeddingCache) -> None:
    class Buffered(CountingEncoder):
        buffer = np.empty((4, 8), np.float32)

        def encode(self, texts: list[str]) -> np.ndarray:
            self.buffer[: len(texts)] = super().encode(texts)
            return self.buffer[: len(texts)]

    encoder = Buffered()
    for _ in range(2):
        assert np.array_equal(cache.embed(TEXTS, encoder, batch_size=4), encoder.vectors(TEXTS))
    with EmbeddingCache(cache.location) as other:  # where the canary that is stored is compared with a new one
        assert np.array_equal(other.embed(TEXTS, CountingEncoder()), encoder.vectors(TEXTS))


def test_vectors_that_are_put_are_kept_although_their_encoder_fills_the_same_array_with_its_canary(
    cache: EmbeddingCache,
) -> None:
    class Buffered(CountingEncoder):
        buffer = np.empty((4, 8), np.float32)

        def encode(self, texts: list[str]) -> np.ndarray:
            self.buffer[: len(texts)] = super().encode(texts)
            return self.buffer[: len(texts)]

    encoder, texts = Buffered(), ["a", "b", "c", "d"]
    cache.put_many(texts, texts, encoder.encode(texts), model=encoder)
    assert np.array_equal(cache.embed(texts, encoder), encoder.vectors(texts))


def test_an_encoder_of_double_precision_gives_the_same_bits_new_and_stored(cache: EmbeddingCache) -> None:
    class Double(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            return super().encode(texts).astype(np.float64) / 3

    first, second = (cache.embed(TEXTS, Double()) for _ in range(2))
    assert first.dtype == second.dtype == np.float32
    assert first.tobytes() == second.tobytes()


def test_an_encoder_may_change_the_list_that_it_is_given(cache: EmbeddingCache) -> None:
    class Taking(CountingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:
            vectors = super().encode(texts)
            texts.clear()
            return vectors

    encoder, texts = Taking(), list(TEXTS)
    assert np.array_equal(cache.get_many(IDS, texts, encoder), encoder.vectors(TEXTS))
    assert texts == TEXTS


class Meanwhile(CountingEncoder):
    """Another process does something between the look-up of a call and what the call stores."""

    def __init__(self, do: Callable[[EmbeddingCache], object], location: str) -> None:
        super().__init__()
        self.do = do
        self.location = location

    def encode(self, texts: list[str]) -> np.ndarray:
        if texts == [CANARY_TEXT]:
            with EmbeddingCache(self.location) as other:
                self.do(other)
        return super().encode(texts)


@pytest.mark.parametrize("forget", ["prune", "clear", "clear the model"])
def test_a_hit_that_another_process_forgets_meanwhile_is_stored_with_its_document(
    forget: str, cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    ways: dict[str, Callable[[EmbeddingCache], object]] = {
        "prune": lambda other: other.prune(standalone=True),
        "clear": lambda other: other.clear(),
        "clear the model": lambda other: other.clear(model_name="fake"),
    }
    cache.embed(TEXTS, encoder)
    late = Meanwhile(ways[forget], cache.location)
    assert np.array_equal(cache.get_many(IDS, TEXTS, late), encoder.vectors(TEXTS))
    assert late.calls == []
    assert np.array_equal(cache.matrix("fake", doc_ids=IDS)[1], encoder.vectors(TEXTS))


def test_a_document_that_another_process_edits_meanwhile_stands_for_the_last_text_stored(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.embed(["ours", "theirs"], encoder)
    late = Meanwhile(lambda other: other.get("a", "theirs", encoder), cache.location)
    assert np.array_equal(cache.get("a", "ours", late), encoder.vector("ours"))
    assert cache.matrix("fake")[1].tolist() == encoder.vectors(["ours"]).tolist()


# --- what a call writes ---------------------------------------------------------------------


def test_a_call_that_finds_everything_as_it_was_takes_no_write_lock(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    cache.embed(["bare"], encoder)
    cache.embed_query("query", encoder)
    with EmbeddingCache(cache.location, timeout_s=0.1) as other, writers_held(cache.location):
        second = CountingEncoder()
        assert np.array_equal(other.get_many(IDS, TEXTS, second), encoder.vectors(TEXTS))
        assert np.array_equal(other.embed(["bare"], second), encoder.vectors(["bare"]))
        assert np.array_equal(other.embed_query("query", second), encoder.vector("query"))
        assert second.calls == []


def test_a_call_that_finds_everything_as_it_was_writes_nothing(location: str, encoder: CountingEncoder) -> None:
    with EmbeddingCache(location) as cache:
        cache.get_many(IDS, TEXTS, encoder)
    before = state(location)
    with EmbeddingCache(location) as cache:
        cache.get_many(IDS, TEXTS, CountingEncoder())
    assert state(location) == before


def test_a_text_cached_without_an_id_and_then_as_a_document_is_both(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.embed(["text"], encoder)
    cache.get("a", "text", encoder)
    cache.get("b", "other", encoder)
    cache.embed(["other"], encoder)
    assert cache.invalidate(["b"]) == 1  # no document uses its vector any more
    encoder.calls.clear()
    cache.get("a", "edited", encoder)
    assert cache.prune().n_vectors == 0
    cache.embed(["text"], encoder)
    assert encoder.texts == ["edited"]


def test_collections_are_apart_and_share_vectors(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("doc_0", "one", encoder, collection="a")
    cache.get("doc_0", "two", encoder, collection="b")
    cache.get("doc_1", "one", encoder, collection="b")
    found = {name: cache.matrix("fake", collection=name) for name in ("a", "b")}
    assert {name: (ids, vectors.tolist()) for name, (ids, vectors) in found.items()} == {
        "a": (["doc_0"], encoder.vectors(["one"]).tolist()),
        "b": (["doc_1", "doc_0"], encoder.vectors(["one", "two"]).tolist()),
    }
    assert encoder.texts == ["one", "two"]


@pytest.mark.parametrize(
    "doc_id", ["../../etc/passwd", "a/b", "nul\0inside", "nul\0", "\1\2", "🙂", " ", "x" * 2000, "'"]
)
def test_any_id_works(doc_id: str, cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    ids = [doc_id, doc_id + "\0", doc_id + "x", "plain"]
    texts = ["one", "two", "three", "four"]
    cache.get_many(ids, texts, encoder)
    assert all(one in cache for one in ids)
    found, vectors = cache.matrix("fake", doc_ids=ids)
    assert (found, vectors.tolist()) == (ids, encoder.vectors(texts).tolist())
    assert sorted(row.doc_id for row in cache.documents()) == sorted(ids)
    encoder.calls.clear()
    cache.get_many(ids, texts, encoder)
    assert encoder.calls == []
    assert cache.invalidate(doc_id) == 1
    assert [one in cache for one in ids] == [False, True, True, True]


# --- models ---------------------------------------------------------------------------------


def test_two_models_share_nothing(cache: EmbeddingCache) -> None:
    first, second = CountingEncoder(model_name="first", seed=1), CountingEncoder(model_name="second", seed=2, dim=5)
    for encoder in (first, second, first, second):
        assert np.array_equal(cache.get("a", "text", encoder), encoder.vector("text"))
    assert (first.texts, second.texts) == (["text"], ["text"])


@pytest.mark.parametrize("values", [(1, 1.0, True), ("a", "A", None), (0.0, -0.0)])
def test_two_settings_of_one_model_share_nothing(values: tuple[Any, ...], cache: EmbeddingCache) -> None:
    encoders = [CountingEncoder(seed=seed) for seed in range(len(values))]
    for encoder, value in zip(encoders, values, strict=True):
        encoder.model_settings = {"setting": value}  # type: ignore[attr-defined]
    for encoder in encoders * 2:
        assert np.array_equal(cache.get("a", "text", encoder), encoder.vector("text"))
    assert [encoder.texts for encoder in encoders] == [["text"]] * len(values)


def test_a_setting_that_changes_on_the_live_object_leads_to_other_vectors(cache: EmbeddingCache) -> None:
    class Truncating(CountingEncoder):
        max_length = 3

        @property
        def model_settings(self) -> dict[str, int]:
            return {"max_length": self.max_length}

        def vector(self, text: str) -> np.ndarray:
            return super().vector(text[: self.max_length])

    encoder = Truncating()
    short = cache.get("a", "abcdef", encoder)
    encoder.max_length = 5
    long = cache.get("a", "abcdef", encoder)
    assert np.array_equal(short, CountingEncoder().vector("abc"))
    assert np.array_equal(long, CountingEncoder().vector("abcde"))


def test_the_name_given_in_the_call_decides(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "text", encoder)
    cache.get("a", "text", encoder, model_name="other")
    assert encoder.texts == ["text", "text"]
    assert [model.model_name for model in cache.models()] == ["fake", "other"]


def test_a_model_can_be_given_by_the_name_that_it_is_loaded_by(
    cache: EmbeddingCache, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embstore import encoders

    monkeypatch.setitem(encoders._loaded, "path/to/fake", encoder)
    assert np.array_equal(cache.get("a", "text", "path/to/fake"), encoder.vector("text"))
    assert [model.model_name for model in cache.models()] == ["fake"]


# --- roles ----------------------------------------------------------------------------------


def test_a_query_is_a_vector_for_a_str_and_a_matrix_for_a_list(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    one = cache.embed_query("text", encoder)
    several = cache.embed_query(["text", "more"], encoder)
    assert (one.shape, several.shape, cache.embed_query([], encoder).shape) == ((8,), (2, 8), (0, 8))
    assert np.array_equal(several, encoder.vectors(["text", "more"]))
    assert np.array_equal(one, several[0])


def test_a_query_and_a_document_share_a_vector_where_the_model_makes_no_difference(
    cache: EmbeddingCache, encoder: CountingEncoder
) -> None:
    cache.get("a", "text", encoder)
    cache.embed_query("text", encoder)
    assert encoder.calls == [["text"]]
    assert [model.settings for model in cache.models()] == [{}]


def test_a_query_and_a_document_share_no_vector_where_the_model_makes_a_difference(cache: EmbeddingCache) -> None:
    encoder = QueryEncoder()
    for _ in range(2):
        assert np.array_equal(cache.embed_query("text", encoder), encoder.vector("query: text"))
        assert np.array_equal(cache.get("a", "text", encoder), encoder.vector("text"))
        assert np.array_equal(cache.get("a", "text", encoder, role="query"), encoder.vector("query: text"))
    assert encoder.calls == [["text"], ["text"]]
    assert [model.settings for model in cache.models()] == [{"role": "query"}, {}]
    assert cache.matrix("fake", role="query")[1].tolist() == encoder.vectors(["query: text"]).tolist()


# --- vectors from elsewhere -----------------------------------------------------------------


def test_vectors_from_elsewhere_come_back_bit_for_bit(cache: EmbeddingCache) -> None:
    bits = np.array([[0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF], [0, 0x3F800000, 0x00800000, 0xFF7FFFFF]], np.uint32)
    assert cache.put_many(["a", "b"], ["one", "two"], bits.view(np.float32), model_name="m") == 2
    ids, vectors = cache.matrix("m")
    assert (ids, vectors.view(np.uint32).tolist()) == (["a", "b"], bits.tolist())


def test_vectors_from_elsewhere_are_hits(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.put_many(IDS, TEXTS, encoder.vectors(TEXTS).astype(np.float64), model=encoder)
    assert np.array_equal(cache.get_many(IDS, TEXTS, encoder), encoder.vectors(TEXTS))
    assert encoder.calls == []


def test_vectors_from_elsewhere_take_the_place_of_those_there(cache: EmbeddingCache) -> None:
    old, new = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    assert cache.put_many(["a", "b"], ["one", "two"], old, model_name="m") == 2
    assert cache.put_many(["b", "c"], ["two", "three"], new, model_name="m") == 1
    assert cache.matrix("m", doc_ids=["a", "b", "c"])[1].tolist() == [[1] * 3, [2] * 3, [2] * 3]


def test_a_text_given_twice_needs_one_vector_up_to_rounding(cache: EmbeddingCache) -> None:
    vectors = np.array([[1, 2], [1, 2 + 1e-6]], np.float32)
    assert cache.put_many(["a", "b"], ["text", "text"], vectors, model_name="m") == 1
    assert cache.matrix("m")[1].tolist() == [[1, 2], [1, 2]]


def test_vectors_are_put_for_the_one_stored_model_of_a_name(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    encoder.model_settings = {"a": 1}  # type: ignore[attr-defined]
    cache.get("a", "text", encoder)
    cache.put_many(["b"], ["more"], encoder.vectors(["more"]), model_name="fake")
    assert [(model.settings, model.n_documents) for model in cache.models()] == [({"a": 1}, 2)]


def test_vectors_can_be_put_for_an_identity_with_settings_and_role(cache: EmbeddingCache) -> None:
    vector = np.ones((1, 2))
    cache.put_many(["a"], ["t"], vector, model_name="m", settings={"x": 1})
    cache.put_many(["a"], ["t"], vector, model_name="m", settings={"x": 1}, role="query")
    cache.put_many(["a"], ["t"], vector, model_name="m", role="query", settings={})
    assert [model.settings for model in cache.models()] == [{"x": 1}, {"role": "query", "x": 1}, {"role": "query"}]


def test_vectors_can_be_put_for_an_identity_object(cache: EmbeddingCache) -> None:
    from embstore import ModelIdentity

    cache.put_many(["a"], ["t"], np.ones((1, 2)), model=ModelIdentity.of("m", {"x": 1}))
    cache.put_many(["a"], ["t"], np.ones((1, 2)), model=ModelIdentity.of("m", {"x": 1}), model_name="n")
    assert [(model.model_name, model.settings) for model in cache.models()] == [("m", {"x": 1}), ("n", {"x": 1})]


def test_no_vectors_from_elsewhere_change_nothing(cache: EmbeddingCache) -> None:
    before = dump(cache.location)
    assert cache.put_many([], [], [], model_name="m") == 0
    assert dump(cache.location) == before


# --- the object -----------------------------------------------------------------------------


def test_a_report_tells_what_the_call_cost(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.embed(["one"], encoder)
    report = cache.fill(["a", "b", "c"], ["one", "two", "two"], encoder)
    assert isinstance(report, FillReport)
    assert (report.n_encoded, report.n_hits, report.encode_s > 0) == (1, 1, True)
    assert np.array_equal(report.vectors, encoder.vectors(["one", "two", "two"]))
    again = cache.fill(["a"], ["one"], encoder)
    assert (again.n_encoded, again.n_hits, again.encode_s) == (0, 1, 0.0)


def test_a_report_of_texts_without_ids_tells_what_they_cost(cache: EmbeddingCache, encoder: CountingEncoder) -> None:
    cache.get("a", "one", encoder)
    report = cache.fill(None, ["one", "two", "two"], encoder)
    assert (report.n_encoded, report.n_hits) == (1, 1)
    assert np.array_equal(report.vectors, encoder.vectors(["one", "two", "two"]))
    assert [document.doc_id for document in cache.documents()] == ["a"]
    assert cache.prune().n_vectors == 0  # a text without an id is wanted as such


def test_progress_is_shown_where_it_is_asked_for(
    cache: EmbeddingCache, encoder: CountingEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.get_many(IDS, TEXTS, encoder)
    assert capfd.readouterr() == ("", "")
    cache.embed(["new"], encoder, progress=True)
    out, err = capfd.readouterr()
    assert (out, "Encoding" in err) == ("", True)


@pytest.fixture
def closed(location: str, encoder: CountingEncoder) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(location) as cache:
        cache.get("a", "text", encoder)
    return cache


def test_a_closed_cache_says_so_whatever_it_is_asked(closed: EmbeddingCache, encoder: CountingEncoder) -> None:
    asked = [
        lambda: closed.get("a", "text", encoder),
        lambda: closed.embed(["text"], encoder),
        lambda: closed.put_many(["a"], ["text"], [[1.0]], model_name="m"),
        lambda: closed.matrix("fake"),
        lambda: list(closed.documents()),
        lambda: len(closed),
        lambda: "a" in closed,
        closed.stats,
        closed.verify,
        closed.clear,
        closed.compact,
    ]
    for ask in asked:
        with pytest.raises(StoreClosedError, match="closed; open a new one"):
            ask()
    closed.close()


def test_an_empty_cache_is_true(cache: EmbeddingCache) -> None:
    assert (len(cache), bool(cache)) == (0, True)


def test_a_cache_says_where_it_is(cache: EmbeddingCache, location: str) -> None:
    told = without_password(location)
    assert (cache.location, repr(cache)) == (told, f"EmbeddingCache({told!r})")
