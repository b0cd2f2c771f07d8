"""A real Chromium without a window, in which pages are looked at; tests that need one skip where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


@dataclass
class Looked:
    """A page, and what went wrong on it: lines of the console, errors, and requests that are no file's."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def find_chromium(playwright: Any) -> str | None:
    """The path of a Chromium: what EMBSTORE_CHROMIUM says, the system's, or the one that playwright installed."""
    named = os.environ.get("EMBSTORE_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None) or playwright.chromium.executable_path
    return found if found and Path(found).exists() else None


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser, or a skip that says what is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    with api.sync_playwright() as playwright:
        path = find_chromium(playwright)
        if path is None:
            pytest.skip("needs a Chromium: apt-get install chromium, or playwright install chromium")
        # As root Chromium has no sandbox; WebGL is drawn by the processor where there is no graphics card.
        flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        flags += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@contextmanager
def look_at(
    browser: Any, file: Path, *, scheme: str = "light", width: int = 1280, height: int = 760
) -> Iterator[Looked]:
    """Open a file, and note what the browser has to say of it."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    looked = Looked(page)
    page.on("console", lambda line: looked.complaints.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: looked.complaints.append(str(error)))
    page.on("request", lambda request: looked.requests.append(request.url))
    page.goto(file.as_uri())
    yield looked
    page.close()
