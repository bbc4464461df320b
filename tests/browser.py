"""Pages in a real browser: what it says, what it asks for, and what it shows."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import chromium
from PIL import Image

# What no page may run.
ATTACK = "<script>alert(1)</script>"


def pictures(page: str) -> list[Image.Image]:
    """The pictures of a page, in their order."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


@dataclass
class Opened:
    """A page, the messages of its console, and the addresses that it asked for."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def evaluate(self, code: str) -> Any:
        return self.page.evaluate(code)

    def shown_rows(self, table: str) -> int:
        return int(self.page.eval_on_selector_all(f"#{table} tbody tr", "rows => rows.filter(r => !r.hidden).length"))

    def column(self, table: str, name: str) -> list[str]:
        """A data attribute of the rows, in their order."""
        return list(self.page.eval_on_selector_all(f"#{table} tbody tr", f"rows => rows.map(r => r.dataset.{name})"))

    def attributes(self, selector: str, name: str) -> list[str]:
        """An attribute of the elements that can be seen."""
        visible = "elements.filter(e => e.getClientRects().length)"
        return list(
            self.page.eval_on_selector_all(selector, f"elements => {visible}.map(e => e.getAttribute({name!r}))")
        )

    def check(self, page: Path) -> None:
        """Nothing is fetched, nothing fails, nothing is wider than the window, and pictures have their sizes."""
        assert self.messages == []
        assert [each for each in self.requests if not each.startswith("data:")] == [page.as_uri()]
        assert self.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        pictures = "Array.from(document.images)"
        assert self.evaluate(f"{pictures}.every(i => i.complete && i.naturalWidth > 0)")
        if self.page.viewport_size["width"] > 1000:
            assert self.evaluate(f"{pictures}.every(i => i.naturalWidth == i.width && i.naturalHeight == i.height)")


@contextmanager
def opened(page: Path, *, width: int = 1600, scheme: str = "light") -> Iterator[Opened]:
    """Open a page from its file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        found = Opened(view)
        view.on("console", lambda message: found.messages.append(message.text))
        view.on("pageerror", lambda error: found.messages.append(str(error)))
        view.on("request", lambda request: found.requests.append(request.url))
        view.goto(page.as_uri())
        yield found
        browser.close()
