"""The map as a page in a browser: points, hover, search, lasso and colours; and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from embstore import CachedSemanticSearchEngine, EmbeddingCache, InvalidInputError, MissingExtraError, TargetError
from embstore.cli import main
from embstore.pictures import draw_map
from embstore.pictures import map as map_module
from embstore.pictures.columns import columns_of
from embstore.pictures.page import as_json
from embstore.pictures.points import read_documents
from embstore.pictures.projection import project
from tests.browser import Looked, look_at, open_browser
from tests.fakes import CountingEncoder
from tests.files import change

pytest.importorskip("plotly", reason="needs the extra map")

HOSTILE = "</script><script>document.title = 'taken'</script><img src=http://localhost:9/x onerror=alert(1)> <!-- & <b>"
ARABIC = "قطة تنام على السجادة"
TEXTS = {
    "hostile": HOSTILE,
    "arabic": ARABIC,
    "cat": "A cat sleeps.",
    "Cats": "Two of them.",
    "long": "word " * 1000 + "end",
    **{f"doc_{i}": f"document number {i}" for i in range(35)},
}
METADATAS: list[dict[str, Any]] = [
    {"topic": "<i>odd</i>", "score": 0.5},
    {"topic": "animals", "score": 1},
    {"topic": "animals"},
    {},
    {"flag": True},
    *({"topic": f"topic {i % 14}", "score": i, "year": 2000 + i % 3} for i in range(35)),
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a library of forty documents."""
    folder = tmp_path_factory.mktemp("map")
    with CachedSemanticSearchEngine(CountingEncoder(), path=folder / "library", index="exact") as engine:
        engine.index_documents(list(TEXTS.values()), list(TEXTS), METADATAS)
    report = draw_map(folder / "library", folder / "map.html", color_by="topic")
    assert (report.n_documents, report.n_cut, report.n_without_text, report.n_without_vector) == (40, 1, 0, 0)
    return folder / "map.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(drawn: Path, browser: Any) -> Iterator[Looked]:
    """The page in a browser, which must have had nothing to complain of when the tests are over."""
    with look_at(browser, drawn) as looked:
        looked.page.wait_for_selector("body[data-ready]")
        yield looked
        assert looked.complaints == []
        assert [url for url in looked.requests if not url.startswith(("file:", "blob:", "data:"))] == []
        assert looked.page.title() == "library · embstore map"


@pytest.fixture
def page(opened: Looked) -> Any:
    """The page as it is at first."""
    opened.page.keyboard.press("Escape")
    opened.page.mouse.move(2, 2)
    return opened.page


def place_of(page: Any, doc_id: str) -> tuple[float, float]:
    """Where on the screen a document's point is."""
    row = list(TEXTS).index(doc_id)
    place = page.evaluate(
        """(row) => {
            const plot = document.getElementById("plot"), { xaxis, yaxis } = plot._fullLayout;
            const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
            const data = JSON.parse(document.getElementById("data").textContent), box = plot.getBoundingClientRect();
            const [x, y] = [data.x, data.y].map((axis) => new Float32Array(bytes(axis))[row]);
            return [box.left + xaxis._offset + xaxis.c2p(x), box.top + yaxis._offset + yaxis.c2p(y)];
        }""",
        row,
    )
    return place[0], place[1]


def highlighted(page: Any) -> int:
    """How many points of the picture are not faded."""
    script = "() => document.getElementById('plot').data.reduce((n, t) => n + (t.selectedpoints || t.x).length, 0)"
    return int(page.evaluate(script))


def listed(page: Any) -> list[str]:
    return list(page.locator("#list .id").all_inner_texts())


def hover(page: Any, doc_id: str) -> str:
    x, y = place_of(page, doc_id)
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    page.wait_for_selector("#card", state="visible")
    # The card of the point before may still stand there.
    page.wait_for_function("(said) => document.querySelector('#card .id').textContent === said", arg=doc_id)
    return str(page.inner_text("#card .text"))


@pytest.mark.parametrize("doc_id", ["hostile", "arabic", "cat"])
def test_hovering_shows_the_text_as_text(page: Any, doc_id: str) -> None:
    assert hover(page, doc_id) == TEXTS[doc_id]
    assert page.inner_text("#card .id") == doc_id


def test_hovering_shows_the_metadata_and_text_in_its_own_direction(page: Any) -> None:
    hover(page, "hostile")
    assert page.locator("#card dt, #card dd").all_inner_texts() == ["score", "0.5", "topic", "<i>odd</i>"]
    hover(page, "arabic")
    assert page.locator("#card dt, #card dd").all_inner_texts() == ["score", "1", "topic", "animals"]
    assert page.eval_on_selector("#card .text", "(text) => getComputedStyle(text).direction") == "rtl"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("CAT", ["cat", "Cats"]),
        ("number 3", ["doc_3", "doc_30", "doc_31", "doc_32", "doc_33", "doc_34"]),
        ("<b>", ["hostile"]),
        ("قطة", ["arabic"]),
        ("no such text", []),
    ],
)
def test_the_search_box_highlights_and_lists_what_has_the_words(page: Any, query: str, expected: list[str]) -> None:
    page.fill("#search", query)
    n = len(expected)
    page.wait_for_function(
        "(said) => document.getElementById('count').textContent === said",
        arg=f"{n} document{'s' * (n != 1)} match{'es' * (n == 1)}",
    )
    assert listed(page) == expected
    assert highlighted(page) == n
    page.keyboard.press("Escape")
    assert (highlighted(page), listed(page), page.input_value("#search")) == (40, [], "")


def test_a_lasso_around_all_lists_all_and_one_around_a_point_lists_it(page: Any) -> None:
    page.click("[data-val=lasso]")
    x, y = place_of(page, "cat")
    near = [doc_id for doc_id in TEXTS if max(np.abs(np.subtract(place_of(page, doc_id), (x, y)))) < 5]
    for box, expected in (((3, 70, 940, 750), list(TEXTS)), ((x - 5, y - 5, x + 5, y + 5), near)):
        left, top, right, bottom = box
        page.mouse.move(left, top)
        page.mouse.down()
        for corner in ((right, top), (right, bottom), (left, bottom), (left, top)):
            page.mouse.move(*corner, steps=4)
        page.mouse.up()
        n = len(expected)
        page.wait_for_function(
            "(said) => document.getElementById('count').textContent === said",
            arg=f"{n} document{'s' * (n != 1)} in the lasso",
        )
        assert listed(page) == expected
        assert highlighted(page) == n
        page.keyboard.press("Escape")
    page.click("[data-val=pan]")


def test_points_are_coloured_by_the_key_and_by_any_other(page: Any) -> None:
    labels = page.locator("#legend button span").all_inner_texts()
    assert labels[0] == "animals" or labels[0].startswith("topic ")
    assert labels[-2:] == ["5 others", "(none)"]
    assert sum(map(int, page.locator("#legend button b").all_inner_texts())) == 40
    page.select_option("#by", "year")
    assert page.locator("#legend button span").all_inner_texts() == ["2000", "2001", "2002", "(none)"]
    colors = page.evaluate("() => document.getElementById('plot').data.map((trace) => trace.marker.color)")
    assert len(set(colors)) == 4
    page.select_option("#by", "score")
    assert page.locator("#legend .ends span").all_inner_texts() == ["0", "34"]
    page.click("#legend button")  # those without a score
    assert page.evaluate("() => document.getElementById('plot').data.map((trace) => trace.visible ?? true)") == [
        False,
        True,
    ]
    page.select_option("#by", "")
    assert page.is_hidden("#legend")
    page.select_option("#by", "topic")


def test_the_page_is_dark_where_the_system_is(page: Any) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.eval_on_selector("body", "(body) => getComputedStyle(body).backgroundColor"))
    page.emulate_media(color_scheme="light")
    assert grounds == ["rgb(255, 255, 255)", "rgb(18, 21, 27)"]


def test_a_large_map_is_drawn_without_multisampling_and_answers_all_the_same(
    cache: EmbeddingCache, tmp_path: Path, browser: Any
) -> None:
    n = 20_001
    vectors = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    cache.put_many([f"doc_{i}" for i in range(n)], [f"text {i}" for i in range(n)], vectors, model_name="large")
    draw_map(cache.path, tmp_path / "map.html")
    antialias = "() => document.querySelector('#plot canvas').getContext('webgl').getContextAttributes().antialias"
    with look_at(browser, tmp_path / "map.html") as looked:
        looked.page.wait_for_selector("body[data-ready]")
        assert looked.page.evaluate(antialias) is False
        looked.page.fill("#search", "doc_20000")
        looked.page.wait_for_selector("text=1 document matches")
        assert (listed(looked.page), looked.complaints) == (["doc_20000"], [])


def test_data_ends_no_script_element() -> None:
    written = as_json([HOSTILE, "\u2028", "\x00"])
    assert "<" not in written
    assert json.loads(written) == [HOSTILE, "\u2028", "\x00"]


def test_a_chroma_library_and_an_exact_one_give_the_same_documents(tmp_path: Path) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    read = []
    for kind in ("chroma", "exact"):
        with CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path / kind, index=kind) as engine:
            engine.index_documents(["one", "two", "one"], ["a", "b", "c"], [{"n": 1}, None, {"n": 2}])
        documents = read_documents(tmp_path / kind)
        order = np.argsort(documents.doc_ids)
        read.append(
            [
                (documents.doc_ids[i], documents.texts[i], documents.metadatas[i], documents.vectors[i].tolist())
                for i in order
            ]
        )
    vectors = CountingEncoder().vectors(["one", "two", "one"]).tolist()
    assert read[0] == list(zip("abc", ["one", "two", "one"], [{"n": 1}, {}, {"n": 2}], vectors, strict=True))
    assert read[1] == read[0]


def test_documents_whose_vectors_are_damaged_are_left_out_and_counted(tmp_path: Path) -> None:
    with CachedSemanticSearchEngine(CountingEncoder(), path=tmp_path / "library", index="exact") as engine:
        engine.index_documents(["one", "two"], ["a", "b"])
    change(tmp_path / "library" / "embeddings.db", "UPDATE vectors SET checksum = checksum + 1 WHERE vector_id = 1")
    drawn = draw_map(tmp_path / "library", tmp_path / "map.html")
    assert (drawn.n_documents, drawn.n_without_vector) == (1, 1)


def test_a_file_without_texts_is_drawn_by_its_ids(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.get_many(["a", "b"], ["one", "two"], CountingEncoder())
    drawn = draw_map(cache.path, tmp_path / "map.html")
    assert (drawn.n_documents, drawn.n_without_text, drawn.model_name) == (2, 2, "fake")
    cache.get("c", "three", CountingEncoder(model_name="other"))
    with pytest.raises(InvalidInputError, match="several models are stored; say which by model_name"):
        draw_map(cache.path, tmp_path / "map.html")
    assert draw_map(cache.path, tmp_path / "map.html", model_name="other").n_documents == 1


def test_only_a_page_of_ours_is_replaced(drawn: Path, tmp_path: Path) -> None:
    library, target = drawn.parent / "library", tmp_path / "map.html"
    target.write_text("<html>somebody's</html>")
    with pytest.raises(TargetError, match=r"map\.html' is there, and no page of embstore; name another file"):
        draw_map(library, target)
    assert target.read_text() == "<html>somebody's</html>"
    with pytest.raises(TargetError, match="is no folder; create it first"):
        draw_map(library, tmp_path / "none" / "map.html")
    target.write_text("")
    for _ in range(2):
        draw_map(library, target)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, OSError])
def test_a_page_that_is_not_finished_leaves_nothing(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: type[BaseException]
) -> None:
    def end(*_: object) -> None:
        raise ending

    monkeypatch.setattr(Path, "replace", end)
    with pytest.raises((KeyboardInterrupt, TargetError)):
        draw_map(drawn.parent / "library", tmp_path / "map.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders, and links need a right")
def test_what_is_no_file_stays_and_a_link_leads_to_the_page_still(drawn: Path, tmp_path: Path) -> None:
    """A device is no file either: root drew a page in the place of /dev/null."""
    library = drawn.parent / "library"
    os.mkfifo(tmp_path / "pipe")
    for target in ("pipe", "."):
        with pytest.raises(TargetError, match="is there, and no file; name another"):
            draw_map(library, tmp_path / target)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "latest.html").symlink_to("map.html")
    for _ in range(2):
        draw_map(library, tmp_path / "latest.html")
    assert (tmp_path / "latest.html").is_symlink()
    assert (tmp_path / "map.html").is_file()


def test_the_command_says_what_it_drew_and_what_it_cannot_draw(drawn: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "map.html")
    arguments = ["map", str(drawn.parent / "library"), "-o", target]
    told = CliRunner().invoke(main, arguments)
    assert (told.exit_code, told.stdout.split(": ")[0]) == (0, target)
    assert told.stdout.endswith(" MB, 40 documents of fake by PCA\n")
    for more, message in (
        (
            ["--color-by", "colour"],
            "no document has the metadata key 'colour' to colour by; there are: 'flag', 'score'",
        ),
        (["--collection", "other"], "has no documents to draw in the collection 'other'"),
    ):
        refused = CliRunner().invoke(main, arguments + more)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert message in refused.stderr


def test_a_missing_extra_says_how_to_get_it(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[map\]"'):
        map_module.read_plotly()
    # Where both are missing, the extra that brings both is named.
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r'pip install "embstore\[umap\]"'):
        draw_map(drawn.parent / "library", tmp_path / "map.html", method="umap")


def test_the_plane_is_that_of_most_variance_whatever_the_shape() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((500, 2)) @ rng.standard_normal((2, 40)) * 0.01 + 1
    for vectors in (flat, flat[:20]):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        expected = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
        points, variance = project(vectors.astype(np.float32), "pca")
        assert np.abs(points) == pytest.approx(np.abs(expected.U * expected.S)[:, :2], abs=1e-6)
        assert variance == pytest.approx((expected.S[:2] ** 2).sum() / (expected.S**2).sum(), abs=1e-6)


@pytest.mark.parametrize("vectors", [np.ones((1, 3)), np.ones((4, 3)), np.zeros((2, 3)), np.full((3, 2), 3e38)])
def test_documents_that_do_not_differ_lie_on_one_point(vectors: np.ndarray) -> None:
    points, _ = project(vectors.astype(np.float32), "pca")
    assert np.ptp(points, axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_values_that_python_says_are_equal_are_told_apart() -> None:
    (column,) = columns_of([{"a": True}, {"a": 1}, {"a": 1.0}, {"a": ["x", "y"]}, {"a": "1"}, {}])
    assert column["values"] == ["true", "1", "x, y", "1"]


@pytest.mark.slow  # its compiler takes a minute or two
def test_umap_draws_each_document_at_a_finite_place() -> None:
    pytest.importorskip("umap", reason="needs the extra umap, which is 150 MB")
    vectors = CountingEncoder(dim=16).vectors([f"text {i}" for i in range(60)])
    points, variance = project(vectors, "umap")
    assert (points.shape, variance, bool(np.isfinite(points).all())) == ((60, 2), None, True)
