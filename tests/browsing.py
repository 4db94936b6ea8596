"""What tests of pages share: a browser, open pages that keep what they asked for, and the contrast of their texts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

# As it stands in a container, and asking nobody for anything of its own.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

# The contrast of every visible text with what is painted behind it; WCAG 2.2, 1.4.3 and "relative luminance".
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => { for (let at = element; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor); if (colour[3] === 255) return colour; }
    return [255, 255, 255, 255]; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, style, title, desc")) continue;
    const inDrawing = element.closest("svg") !== null;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(inDrawing ? style.fill : style.color)), light(behind(element))].sort((x, y) => y - x);
    seen += 1;
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) poor.push(`${node.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return {seen, poor: [...new Set(poor)]};
}"""

UNFOLD = "for (const fold of document.querySelectorAll('details')) fold.open = true"


class Tab:
    """An open page in a context of its own, with everything that it asked for and complained of.

    A page of a file is opened offline. `settings` are those of the context.
    """

    def __init__(self, browser: Any, url: str, **settings: Any) -> None:
        self.context = browser.new_context(offline=url.startswith("file:"), **settings)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"{dialog.type}: {dialog.message}")
        dialog.dismiss()  # a dialog that is heard and left open would hold the page up

    def unfold(self) -> None:
        """Open every fold."""
        self.page.evaluate(UNFOLD)

    def contrasts(self) -> dict[str, Any]:
        """How many texts were `seen`, and the `poor` ones: those that hardly stand out from what is behind them."""
        found: dict[str, Any] = self.page.evaluate(CONTRASTS)
        return found


Visit = Callable[..., Tab]


@contextmanager
def launched(chromium: str) -> Iterator[Any]:
    """A browser; as long as it is open, Playwright's loop owns this thread, and no other can run in it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as api, api.chromium.launch(executable_path=chromium, args=FLAGS) as browser:
        yield browser


def in_files(folder: Path, pages: Mapping[str, bytes]) -> dict[str, str]:
    """The URLs of these pages, each written into a file."""
    for name, page in pages.items():
        (folder / f"{name}.html").write_bytes(page)
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome to look at pages with."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for path in map(shutil.which, filter(None, names)) if path), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium, or name one: CHROMIUM=/path/to/chrome")
    return found


# No wider than a module: the tests of other modules run loops in this thread.
@pytest.fixture(scope="module")
def browser(pages: dict[str, str], chromium: str) -> Iterator[Any]:
    """The browser of a module whose fixture `pages` names the URLs; they come first, since they may need a loop."""
    with launched(chromium) as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, pages: dict[str, str]) -> Iterator[Visit]:
    """Open one of the module's pages by its name, in a tab that the end of the test closes."""
    with ExitStack() as contexts:

        def go(name: str, **settings: Any) -> Tab:
            tab = Tab(browser, pages[name], **settings)
            contexts.enter_context(tab.context)
            return tab

        yield go
