"""Web pages that servers send in place of a file, such as Google Drive's question whether to download a large one.

request ─► the file
        └► a page with <form id="download-form">: its address and hidden fields ─► the file
        └► another page (quota exceeded, sign in): refused, with the page's title
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from clipbert_cli.assets.catalog import is_address
from clipbert_cli.assets.check_file import SourceRefusedError
from clipbert_cli.foreign import excerpt

if TYPE_CHECKING:
    import httpx

PAGE_BYTES = 1 << 20
PAGE_SECONDS = 60.0
"""As much of a page is read, and so long."""


class DownloadPage(HTMLParser):
    """The title of a web page, and the address and hidden fields of its download form, if it has one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title = ""
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._in_title = self._in_form = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "form" and values.get("id") == "download-form":
            self.action, self._in_form = values.get("action", ""), True
        elif tag == "input" and self._in_form and values.get("type", "").lower() == "hidden" and "name" in values:
            self.fields[values["name"]] = values.get("value", "")
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self._in_form = self._in_form and tag != "form"
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data

    def confirmed(self, url: str) -> str | None:
        """Return the address that the form of the page at `url` leads to; None without a form or a usable address."""
        if self.action is None:
            return None
        try:
            address = urljoin(url, self.action)
        except ValueError:  # half an IPv6 address
            return None
        if not is_address(address):
            return None
        query = "&".join(filter(None, [urlsplit(address).query, urlencode(self.fields)]))
        return urlsplit(address)._replace(query=query, fragment="").geturl()

    def refusal(self) -> SourceRefusedError:
        """Return the error that says that this page came in place of the file."""
        title = excerpt(" ".join(self.title.split()))
        return SourceRefusedError("answered with a web page, not the file" + (f": {title!r}" if title else ""))


@contextmanager
def open_file(client: httpx.Client, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    """Open the answer to a request for a file, without its body. A page's download form is answered once.

    Raises:
        SourceRefusedError: the answer is another web page.
        httpx.HTTPError: as the client.
    """
    with client.stream("GET", url, headers=headers) as response:
        page = _page(response)
        if page is None:
            yield response
            return
    address = page.confirmed(str(response.url))
    if address is None:
        raise page.refusal()
    with client.stream("GET", address, headers=headers) as response:
        if page := _page(response):
            raise page.refusal()
        yield response


def _page(response: httpx.Response) -> DownloadPage | None:
    """Return the web page of a successful answer; None if the answer is an error or of another kind."""
    is_html = response.headers.get("Content-Type", "").lower().startswith("text/html")
    if response.status_code not in (200, 206) or not is_html:
        return None
    body, begin = b"", time.monotonic()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) >= PAGE_BYTES or time.monotonic() - begin > PAGE_SECONDS:
            break
    return DownloadPage(body[:PAGE_BYTES].decode("utf-8", errors="replace"))
