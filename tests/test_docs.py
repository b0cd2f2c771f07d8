"""What the pages of docs/ say is done here to the letter, and the site is built of them."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest

import embstore
from embstore import encoders, pictures, transfer
from embstore.cli import main
from embstore.errors import MissingExtraError
from tests import docs_pages
from tests.browser import open_browser
from tests.docs_pages import DOCS, ROOT
from tests.fakes import CountingEncoder

PAGES = {file.relative_to(DOCS).as_posix(): file.read_text(encoding="utf-8") for file in sorted(DOCS.rglob("*.md"))}
PYTHON = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in PAGES.items()}
STARTS_A_CLUSTER = ("recipes/ray.md",)
COMMANDS = [
    (page, line[2:].split("  #")[0].strip())
    for page, text in PAGES.items()
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a network, in which the default model is an encoder that needs none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(encoders._loaded, "all-MiniLM-L6-v2", CountingEncoder(dim=64, model_name="all-MiniLM-L6-v2"))
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a page of docs/ asks {address} for something")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in STARTS_A_CLUSTER else [])
        for page, blocks in PYTHON.items()
        if blocks
    ],
)
def test_the_python_of_a_page_runs_as_it_stands(page: str, folder: Path) -> None:
    names: dict[str, object] = {"__name__": "docs"}
    for number, block in enumerate(PYTHON[page], 1):
        try:
            exec(compile(block, f"docs/{page}, block {number}", "exec", dont_inherit=True), names)
        except MissingExtraError as error:
            pytest.skip(str(error))
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] in ("embstore", "tests"):
                raise
            pytest.skip(f"needs {error.name}")


def test_blocks_of_code_say_their_language() -> None:
    """A block without one would be run by nobody."""
    for page, text in PAGES.items():
        openings = re.findall(r"^ *```(.*)$", text, re.MULTILINE)[::2]
        assert set(openings) <= {"python", "console", "sql", "text", "json"}, page


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_on_a_page_exists_with_its_options(page: str, command: str) -> None:
    program, *arguments = shlex.split(command)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if program == "embstore":
        check_arguments(arguments)
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif program == "pip":
        assert arguments[0] == "install"
        for extras in re.findall(r"^embstore\[(.+)\]$", arguments[1]):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])
    else:
        assert program in ("sqlite3", "sqlite-utils"), f"{page}: nothing here knows {program}"


def check_arguments(arguments: list[str]) -> None:
    """Have click read the arguments of a command of embstore, without running it; files may be missing."""
    command: click.Command = main
    context = click.Context(main, info_name="embstore")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        assert found is not None, f"no command {arguments[0]}"
        command, arguments = found, arguments[1:]
    try:
        command.make_context("embstore", list(arguments))
    except click.MissingParameter:
        raise
    except click.BadParameter as error:
        if "does not exist" not in error.format_message():
            raise
    except click.exceptions.Exit:  # of --help and --version, which come after nothing that is wrong
        pass


def test_inline_names_of_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page, text in PAGES.items():
        for extras in re.findall(r'pip install "embstore\[([^\]]+)\]"', text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page


def test_links_and_pictures_lead_to_files_that_are_there() -> None:
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if not target.startswith(("http://", "https://")):
                assert ((DOCS / page).parent / target).is_file(), f"{page}: {target}"


def test_the_page_of_the_file_says_what_each_table_is_for() -> None:
    (table,) = re.findall(r"\| table \|.*?\n\n", PAGES["schema.md"], re.DOTALL)
    described = set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.strip().splitlines())))
    assert described == set(re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", docs_pages.schema()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, of a copy of the pages."""
    pytest.importorskip("zensical", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings_handlers.python", reason="needs the extra docs")
    source = tmp_path_factory.mktemp("docs")
    for name in ("zensical.toml", "CHANGELOG.md", "SECURITY.md"):
        shutil.copy(ROOT / name, source)
    for name in ("docs", "embstore"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    docs_pages.write(source / "build" / "docs")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=source, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "build" / "site"


def pages_of(site: Path) -> Iterator[tuple[str, str]]:
    for file in site.rglob("*.html"):
        yield file.relative_to(site).as_posix(), file.read_text(encoding="utf-8")


def test_the_site_has_each_page_in_its_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        built = page.removesuffix(".md") + ".html"
        assert (site / built).is_file(), page
        assert re.search(rf'href="(\./)?{built}" class="md-nav__link', home), f"{page} is not in docs/.nav.yml"


def test_the_site_asks_nobody_for_fonts_scripts_or_pictures(site: Path) -> None:
    for page, html in pages_of(site):
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"'\s>]+)", html)
        loaded += re.findall(r"<link[^>]*\shref=[\"']?([^\"'\s>]+)", html)
        assert [url for url in loaded if re.match("(?:https?:)?//", url)] == [], page
        assert "class=mermaid" not in html.replace('"', ""), f"{page}: mermaid comes from a server of others"


def test_the_site_says_what_the_fault_suite_and_the_benchmarks_have_shown(site: Path) -> None:
    text = {page: words(html) for page, html in pages_of(site)}
    written = docs_pages.pieces()
    for line in written["promises.md"].splitlines():
        assert words(line.strip(" -").replace("*", "").replace("`", "")) in text["guarantees.html"]
    for line in written["benchmarks.md"].splitlines():
        for cell in line.strip("|").split("|") if line.startswith("| ") else []:
            assert words(cell.replace("*", "").replace("`", "")) in text["benchmarks.html"]
    assert words(written["not-promised.md"].splitlines()[0].strip("- ")) in text["guarantees.html"]
    assert words(written["schema.sql"]) in text["schema.html"]


def test_the_reference_has_every_public_name_and_every_command(site: Path) -> None:
    text = {page: html for page, html in pages_of(site) if page.startswith(("reference/", "commands"))}
    for page, names in docs_pages.public_names().items():
        for name in names:
            assert f'id="{name}"' in text[f"reference/{page}.html"].replace("id=" + name, f'id="{name}"'), name
    listed = {name.rpartition(".")[2] for names in docs_pages.public_names().values() for name in names}
    assert {*embstore.__all__, *transfer.__all__, *pictures.__all__} <= listed
    assert 'id="embstore.cache.EmbeddingCache.matrix"' in text["reference/cache.html"]
    for command in main.list_commands(click.Context(main)):
        assert f"embstore {command}" in text["commands.html"]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing about requests."""


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where a server on this machine answers with the site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_browser_finds_by_the_search_of_the_site_and_has_nothing_to_complain_of(address: str) -> None:
    complaints: list[str] = []
    requests: list[str] = []
    with open_browser() as browser:
        page = browser.new_page()
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}how-it-works.html")
        assert page.evaluate("document.querySelector('article img').naturalWidth") > 0
        search = page.get_by_placeholder("Search")
        act_until_visible(lambda: page.keyboard.press("Control+k"), search)
        act_until_visible(
            lambda: search.fill("canary"), page.locator("a[href*='#embstore.cache.EmbeddingCache.canary']").first
        )
        page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(address)] == []


def act_until_visible(act: Callable[[], object], element: Any) -> None:
    """Do something again until it shows: what is done before a page listens is lost."""
    from playwright.sync_api import TimeoutError as NotInTime

    for _ in range(30):
        act()
        with contextlib.suppress(NotInTime):
            element.wait_for(timeout=2000)
            return
    pytest.fail(f"{element} did not appear")


def words(html: str) -> str:
    """Give the text of a page without its tags and spaces."""
    return re.sub(r"\s+", "", unescape(re.sub(r"<[^>]+>", "", html)))
